"""The contract of backends finds the defects that are planted here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kfpbench.operators.dense import DenseGram, DenseMatrix
from kfpbench.operators.tiled import TiledGram


class DropsTheDrift(DenseGram):
    def generator_gram(self, kernel, x, centres, drift, diffusion):
        return super().generator_gram(kernel, x, centres, torch.zeros_like(drift), diffusion)


class MeansTheDiffusion(DenseGram):
    """Takes the first point's diffusion for all."""

    def generator_gram(self, kernel, x, centres, drift, diffusion):
        if diffusion.pointwise and len(x):
            diffusion = replace(diffusion, values=diffusion.values[:1].expand_as(diffusion.values))
        return super().generator_gram(kernel, x, centres, drift, diffusion)


class PretendsToBeLazy(DenseGram):
    lazy = True


class AddsIntoItsOperand(DenseGram):
    class Matrix(DenseMatrix):
        def matmul(self, right):
            return self.matrix @ right.mul_(1.0 + 1e-15).add_(1e-14)

    def generator_gram(self, kernel, x, centres, drift, diffusion):
        return self.Matrix(super().generator_gram(kernel, x, centres, drift, diffusion).matrix)


class PredictsNothing(TiledGram):
    def working_memory(self, n, centres, dimension, columns, itemsize):
        return 0.0


BACKEND_DEFECTS = [
    (DropsTheDrift, "generator_gram_matches_the_formula[scalar]", "leaves out the drift"),
    (MeansTheDiffusion, "generator_gram_matches_the_formula[matrix at points]", "not that of the formula"),
    (PretendsToBeLazy, "lazy_backends_hold_no_matrix", "as large as the matrix"),
    (AddsIntoItsOperand, "products_leave_no_trace", "the right operand"),
    (PredictsNothing, "predicts_its_working_memory", "positive whole number"),
]


@pytest.mark.parametrize(("defect", "check", "words"), BACKEND_DEFECTS)
def test_defects_of_backends_are_found(failures, defect, check, words):
    found = failures("backends", defect)
    assert check in found
    assert words in str(found[check])
