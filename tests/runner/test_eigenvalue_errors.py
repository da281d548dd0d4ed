"""Which mode stands for which exact eigenvalue, and the error that follows."""

from __future__ import annotations

import numpy as np
import pytest

from kfpbench.runner.eigenvalue_errors import match_eigenvalues


def errors(values: list[complex], flags: list[str], exact: list[complex]) -> list[float | None]:
    found = match_eigenvalues(np.array(values, dtype=complex), flags, np.array(exact, dtype=complex))
    return [match and round(match.error, 12) for match in found]


EXACT: list[complex] = [0, -1, -2, -4]


@pytest.mark.parametrize(
    ("values", "flags", "expected"),
    [
        ([0, -1.1, -2, -3], ["", "", "", ""], [None, 0.1, 0.0, 0.25]),
        # a mode that is flagged has no error, and the next one stands for its exact value
        ([0, -0.2, -1.1, -2], ["", "doubtful", "", ""], [None, None, 0.1, 0.0]),
        # one that is not flagged although it is spurious shifts those after it: the error shows it
        ([0, -0.5, -1, -2], ["", "", "", ""], [None, 0.5, 0.5, 0.5]),
        # without a zero mode the slowest is not taken for one
        ([-1, -2], ["", ""], [0.0, 0.0]),
        # a second slow mode is not the constant function
        ([0, -0.05, -1], ["", "", ""], [None, 0.95, 0.5]),
        ([1e-9, -1], ["", ""], [None, 0.0]),
        # more modes than exact values
        ([0, -1, -2, -4, -5], [""] * 5, [None, 0.0, 0.0, 0.0, None]),
        ([0, -1], ["doubtful", "doubtful"], [None, None]),
    ],
)
def test_the_kth_sound_mode_stands_for_the_kth_exact_value(values, flags, expected) -> None:
    assert errors(values, flags, EXACT) == expected


def test_a_positive_value_is_an_error() -> None:
    assert errors([0.5, 0, -1], ["", "", ""], EXACT) == [1.5, None, 0.5]


def test_modes_of_one_real_part_are_told_apart_by_their_imaginary_part() -> None:
    exact = [0, -1 + 2j, -1 - 2j, -2 + 4j, -2 - 4j, -2]
    values = [0, -1 + 2j, -1 - 2j, -1.99, -2.01 + 4j, -2.01 - 4j]  # rounding has put the real one first
    assert errors(values, [""] * 6, exact) == pytest.approx(
        [None, 0.0, 0.0, 0.005, 0.01 / 20**0.5, 0.01 / 20**0.5], abs=1e-9
    )


def test_the_match_names_its_exact_value() -> None:
    found = match_eigenvalues(np.array([0, -1.5 + 0j]), ["", ""], np.array([0, -1.0 + 0j]))
    assert found[0] is None
    assert found[1] is not None
    assert (found[1].exact, found[1].error) == (-1, 0.5)


def test_without_non_zero_exact_values_there_is_nothing_to_compare() -> None:
    assert errors([0, -1], ["", ""], [0]) == [None, None]
