"""The contract of metrics finds the defects that are planted here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from kfpbench.metrics.energy_distance import EnergyDistance


class SortsItsInput(EnergyDistance):
    def evaluate(self, data):
        data.samples.sort(axis=0)
        return super().evaluate(data)


class PairsRows(EnergyDistance):
    def evaluate(self, data):
        gap = float(np.linalg.norm(data.samples - data.reference, axis=1).mean())
        return [replace(found, value=gap, ci_low=None, ci_high=None) for found in super().evaluate(data)]


class HalfAnInterval(EnergyDistance):
    def evaluate(self, data):
        return [replace(found, ci_low=None) for found in super().evaluate(data)]


class Undeclared(EnergyDistance):
    outputs: ClassVar[dict[str, Any]] = {"distance": "lower"}


class AcceptsNaN(EnergyDistance):
    def evaluate(self, data):
        return super().evaluate(replace(data, samples=np.nan_to_num(data.samples, posinf=0.0)))


METRIC_DEFECTS = [
    (SortsItsInput, "leaves_its_input_alone", "evaluate changes the samples"),
    (PairsRows, "does_not_depend_on_the_order_of_rows", "depends on the order of the samples"),
    (HalfAnInterval, "values_and_intervals_are_finite", "half an interval"),
    (Undeclared, "measures_what_it_declares", "not what is declared"),
    (AcceptsNaN, "refuses_bad_rows", "NaN in the samples: not refused by NumericalError"),
]


@pytest.mark.parametrize(("defect", "check", "words"), METRIC_DEFECTS)
def test_defects_of_metrics_are_found(failures, defect, check, words):
    found = failures("metrics", defect)
    assert check in found
    assert words in str(found[check])


def test_a_metric_with_the_wrong_direction_is_found(failures):
    class HigherIsBetter(EnergyDistance):
        outputs: ClassVar[dict[str, Any]] = {"energy_distance": "higher"}

    found = failures("metrics", HigherIsBetter)
    assert found.keys() == {"directions_are_right"}
    assert "energy_distance prefers every bad set" in found["directions_are_right"].what
