"""The contract of eigensolvers finds the defects that are planted here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kfpbench.eigensolvers.dense import DenseEigensolver


class Unsorted(DenseEigensolver):
    def solve(self, pencil, kernel, backend, n_eigs=None):
        pairs = super().solve(pencil, kernel, backend, n_eigs)
        return pairs.take(list(range(len(pairs.values)))[::-1])


class RightForAdjoint(DenseEigensolver):
    def solve(self, pencil, kernel, backend, n_eigs=None):
        pairs = super().solve(pencil, kernel, backend, n_eigs)
        return replace(pairs, adjoint=pairs.right)


class ShiftedVectors(DenseEigensolver):
    def solve(self, pencil, kernel, backend, n_eigs=None):
        pairs = super().solve(pencil, kernel, backend, n_eigs)
        return replace(pairs, right=pairs.right.roll(1, dims=1), adjoint=pairs.adjoint.roll(1, dims=1))


class HalfTheDiffusion(DenseEigensolver):
    def solve(self, pencil, kernel, backend, n_eigs=None):
        half = replace(pencil.diffusion, values=0.5 * pencil.diffusion.values)
        return super().solve(replace(pencil, diffusion=half), kernel, backend, n_eigs)


class MovesThePoints(DenseEigensolver):
    def solve(self, pencil, kernel, backend, n_eigs=None):
        pencil.points.add_(1e-3)
        return super().solve(pencil, kernel, backend, n_eigs)


class OwnDraw(DenseEigensolver):
    def solve(self, pencil, kernel, backend, n_eigs=None):
        noisy = replace(pencil.diffusion, values=pencil.diffusion.values * (1.0 + 1e-4 * torch.rand(())))
        return super().solve(replace(pencil, diffusion=noisy), kernel, backend, n_eigs)


class Traceback(DenseEigensolver):
    def solve(self, pencil, kernel, backend, n_eigs=None):
        if len(pencil.points) == 1:
            raise IndexError("list index out of range")
        return super().solve(pencil, kernel, backend, n_eigs)


EIGENSOLVER_DEFECTS = [
    (Unsorted, "returns_sorted_values", "not sorted by descending real part"),
    (RightForAdjoint, "adjoints_are_biorthogonal", "not biorthogonal"),
    (ShiftedVectors, "values_belong_to_their_functions", "does not satisfy L phi = lambda phi"),
    (HalfTheDiffusion, "finds_the_leading_values", "is missing"),
    (MovesThePoints, "leaves_its_arguments_alone", "changes the pencil's points"),
    (OwnDraw, "is_deterministic", "two solutions of one problem differ"),
    (Traceback, "refuses_bad_input", "one point: no typed error; got 'IndexError"),
]


@pytest.mark.parametrize(("defect", "check", "words"), EIGENSOLVER_DEFECTS)
def test_defects_of_eigensolvers_are_found(failures, defect, check, words):
    found = failures("eigensolvers", defect)
    assert check in found
    assert words in str(found[check])
