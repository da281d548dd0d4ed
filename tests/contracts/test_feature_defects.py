"""The contract of feature extractors finds the defects that are planted here."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from kfpbench.errors import CapabilityError, ShapeError
from kfpbench.testing import report


class Scaled:
    """A sound extractor, phi(x) = scale (x - mean of the training rows), from which the broken ones are made."""

    def __init__(self, scale: float = 2.0) -> None:
        self.scale = scale
        self._mean: Any = None

    @property
    def version(self) -> str:
        return f"scaled-{self.scale}/1"

    def fit(self, dataset: Any) -> Any:
        fitted = copy.copy(self)
        fitted._mean = dataset.train.mean(axis=0, dtype=np.float64)
        return fitted

    def transform(self, rows: Any) -> Any:
        if rows.ndim != 2 or rows.shape[1] != len(self._mean):
            raise ShapeError("other columns", got=rows.shape)
        return self.scale * (rows - self._mean)

    def describe(self) -> dict[str, Any]:
        return {"features": "scaled", "version": self.version, "resize": "none"}


class CentresTheBatch(Scaled):
    def transform(self, rows):
        found = super().transform(rows)
        return found - found.mean(axis=0)


class SortsTheBatch(Scaled):
    def transform(self, rows):
        return np.sort(super().transform(rows), axis=0)


class Draws(Scaled):
    def transform(self, rows):
        return super().transform(rows) + 1e-9 * np.random.default_rng().standard_normal(rows.shape)


class DrawsInTheFit(Scaled):
    def fit(self, dataset):
        fitted = super().fit(dataset)
        fitted._mean = fitted._mean + np.random.default_rng().standard_normal(len(fitted._mean))
        return fitted


class SinglePrecision(Scaled):
    def transform(self, rows):
        return super().transform(rows).astype(np.float32)


class Overflows(Scaled):
    def transform(self, rows):
        with np.errstate(over="ignore"):
            return np.exp(200.0 * np.abs(super().transform(rows)))


class FitsItself(Scaled):
    def fit(self, dataset):
        self._mean = dataset.train.mean(axis=0, dtype=np.float64)
        return self


class ChangesRows(Scaled):
    def transform(self, rows):
        found = super().transform(rows)
        rows *= 0.0
        return found


class SeesTestRows(Scaled):
    def fit(self, dataset):
        fitted = super().fit(dataset)
        fitted._mean = np.concatenate([dataset.train, dataset.test]).mean(axis=0, dtype=np.float64)
        return fitted


class SaysThatItLearnsNothing(Scaled):
    uses_training_rows: ClassVar[bool] = False


class OneVersion(Scaled):
    version = "scaled/1"


class OneVersionForAllWeights(Scaled):
    version = "linear/1"

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Linear(3, 3, bias=False)

    def transform(self, rows):
        return super().transform(rows) * float(self.network.weight.detach().sum())


class NumbersItsFits(Scaled):
    def fit(self, dataset):
        fitted = super().fit(dataset)
        fitted.__class__ = _Fitted
        return fitted


class _Fitted(Scaled):
    version = "scaled/fitted"


class TakesAnyColumns(Scaled):
    def transform(self, rows):
        return self.scale * np.atleast_2d(np.asarray(rows, dtype=np.float64))


class RefusesInOtherWords(Scaled):
    def transform(self, rows):
        if rows.ndim != 2 or rows.shape[1] != len(self._mean):
            raise ValueError("operands could not be broadcast")
        return super().transform(rows)


class SaysNothingOfSizes(Scaled):
    def describe(self):
        return {"features": "scaled", "version": self.version}


class DescribesArrays(Scaled):
    def describe(self):
        return {**super().describe(), "mean": self._mean}


class DescribesAnother(Scaled):
    def describe(self):
        return {**super().describe(), "version": "scaled/0"}


DEFECTS = [
    (CentresTheBatch, "maps_rows_one_by_one", "other features alone than in a batch"),
    (SortsTheBatch, "maps_rows_one_by_one", "other features alone than in a batch"),
    (Draws, "is_deterministic", "a second call gives other features"),
    (DrawsInTheFit, "is_deterministic", "a second fit gives other features"),
    (SinglePrecision, "maps_rows_to_finite_numbers", "not float64"),
    (Overflows, "maps_rows_to_finite_numbers", "not finite"),
    (FitsItself, "leaves_everything_alone", "fit changes the extractor"),
    (ChangesRows, "leaves_everything_alone", "transform changes the rows"),
    (SeesTestRows, "sees_training_rows_only", "looks at validation or test rows"),
    (SaysThatItLearnsNothing, "sees_training_rows_only", "says that it does not"),
    (OneVersion, "version_changes_with_the_weights", "features change with scale"),
    (OneVersionForAllWeights, "version_changes_with_the_weights", "features change with network.weight"),
    (NumbersItsFits, "version_names_the_features", "a fit changes the version"),
    (TakesAnyColumns, "refuses_rows_of_other_shapes", "a column less: not refused by ShapeError"),
    (RefusesInOtherWords, "refuses_rows_of_other_shapes", "ValueError: operands"),
    (SaysNothingOfSizes, "describes_itself", "no text under 'resize'"),
    (DescribesArrays, "describes_itself", "cannot be held by JSON"),
    (DescribesAnother, "describes_itself", "names another version"),
]


@pytest.mark.parametrize(("defect", "check", "words"), DEFECTS)
def test_defects_of_extractors_are_found(failures, defect, check, words):
    found = failures("features", defect)
    assert check in found
    assert words in str(found[check])


def test_a_sound_extractor_passes_every_check():
    assert [finding.outcome for finding in report("features", Scaled)] == ["passed"] * 10


def test_images_are_tried_after_points():
    seen = []

    class GreyImages(Scaled):
        def fit(self, dataset):
            if dataset.image_shape is None:
                raise CapabilityError("images only")
            seen.append((dataset.image_shape, dataset.train.shape, float(np.abs(dataset.train).max()) <= 1.0))
            return super().fit(dataset)

    assert not [finding for finding in report("features", GreyImages) if finding.outcome != "passed"]
    assert set(seen) == {((1, 8, 8), (24, 64), True)}


def test_an_extractor_that_cannot_be_used_here_is_skipped_with_its_reason():
    class NeedsWeights(Scaled):
        def fit(self, dataset):
            raise CapabilityError("the weights are not here")

    first, *rest = report("features", NeedsWeights)
    assert first.passed
    assert {(finding.outcome, finding.what) for finding in rest} == {("skipped", "the weights are not here")}
