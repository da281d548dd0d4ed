"""The contract of samplers finds the defects that are planted here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kfpbench.protocols import ProblemSize
from kfpbench_baselines.gaussian import ClosedFormGaussian


class Altered:
    """A closed-form Gaussian sampler whose rows go through ``alter``."""

    def fit(self, problem):
        inner, outer = ClosedFormGaussian().fit(problem), self

        class Fitted:
            def sample(self, noise):
                return outer.alter(inner.sample(noise), noise, problem)

            def describe(self):
                return {}

        return Fitted()

    def alter(self, rows: Tensor, noise: Any, problem: Any) -> Tensor:
        return rows

    def working_memory(self, size: ProblemSize) -> int:
        return size.batch


class LeaksTheBatch(Altered):
    def alter(self, rows, noise, problem):
        return rows + 1e-7 * rows.mean(0)


class OwnNoise(Altered):
    def alter(self, rows, noise, problem):
        return rows + 1e-3 * torch.randn(rows.shape, dtype=rows.dtype)


class ResetsTheCount(Altered):
    def alter(self, rows, noise, problem):
        problem.score.evaluations = 7
        return rows


class Diverges(Altered):
    def alter(self, rows, noise, problem):
        return rows / (rows - rows)


SAMPLER_DEFECTS = [
    (LeaksTheBatch, "rows_do_not_depend_on_the_batch", "depends on the batch"),
    (OwnNoise, "is_deterministic", "a second draw differs"),
    (ResetsTheCount, "score_evaluations_are_counted", "the count was reset"),
    (Diverges, "rows_are_finite", "NaN or infinity"),
]


def test_a_sound_sampler_passes(failures):
    assert not failures("samplers", Altered)


@pytest.mark.parametrize(("defect", "check", "words"), SAMPLER_DEFECTS)
def test_defects_of_samplers_are_found(failures, defect, check, words):
    found = failures("samplers", defect)
    assert check in found
    assert words in str(found[check])
