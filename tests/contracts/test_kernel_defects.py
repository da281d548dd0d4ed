"""The contract of kernels finds the defects that are planted here."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

from kfpbench.testing import report


class Gaussian:
    """A sound kernel of length 0.9, from which the broken ones are made."""

    smoothness: float = math.inf
    rate = -0.5 / 0.9**2

    def fit(self, points: Tensor) -> Any:
        return copy.copy(self)

    def profile(self, squared_distance: Tensor) -> tuple[Any, ...]:
        value = (squared_distance * self.rate).exp()
        return value, value * self.rate, value * self.rate**2

    def describe(self) -> dict[str, Any]:
        return {"rate": self.rate}


class WrongSign(Gaussian):
    def profile(self, squared_distance):
        h, first, second = super().profile(squared_distance)
        return h, -first, second


class MissingFactor(Gaussian):
    def profile(self, squared_distance):
        h, first, second = super().profile(squared_distance)
        return h, first, 0.5 * second


class SlopeInRadius(Gaussian):
    def profile(self, squared_distance):
        h, first, second = super().profile(squared_distance)
        return h, first * 2.0 * squared_distance.sqrt(), second


class RoughExponential(Gaussian):
    """exp(-r): not one derivative, declared analytic, with r clamped away from 0."""

    def profile(self, squared_distance):
        r = squared_distance.clamp_min(1e-24).sqrt()
        value = (-r).exp()
        return value, -value / (2.0 * r), value * (1.0 / r**2 + 1.0 / r**3) / 4.0


class RoughMatern(Gaussian):
    """Matern-5/2, correct, declared analytic: its third derivative in s is infinite at 0."""

    def profile(self, squared_distance):
        u = (5.0 * squared_distance).sqrt()
        decay = (-u).exp()
        return (1.0 + u + u * u / 3.0) * decay, -(5.0 / 6.0) * (1.0 + u) * decay, (25.0 / 12.0) * decay


class Indefinite(Gaussian):
    """1 / (1 + s^2) is not positive definite beyond small scales: its spectrum changes sign."""

    def profile(self, squared_distance):
        v = 1.0 / (1.0 + squared_distance**2)
        return v, -2.0 * squared_distance * v**2, (6.0 * squared_distance**2 - 2.0) * v**3


class FitsItself(Gaussian):
    def fit(self, points):
        self.rate = -0.5 / float(points.var())
        return self


class FitsItselfAndCopies(Gaussian):
    def fit(self, points):
        self.rate = -0.5 / float(points.var())
        return copy.copy(self)


class NaNAtZero(Gaussian):
    def profile(self, squared_distance):
        h, first, second = super().profile(squared_distance)
        return h, first * squared_distance / squared_distance, second


class TooFewDerivatives(Gaussian):
    def profile(self, squared_distance):
        return super().profile(squared_distance)[:2]


class LosesPrecision(Gaussian):
    def profile(self, squared_distance):
        return tuple(entry.double() for entry in super().profile(squared_distance))


class ForgetsTheRecord(Gaussian):
    def describe(self):
        return {"rate": torch.tensor(self.rate)}


class Asymmetric(Gaussian):
    """A kernel by blocks, whose value depends on the order of its arguments."""

    max_dim = 8
    profile = None  # type: ignore[assignment]

    def block(self, x, centres):
        return (-(x[:, None] - centres[None]).square().sum(2)).exp() * (1.0 + 0.1 * x[:, :1])

    def generator_block(self, x, centres, drift, diffusion):
        return torch.zeros(len(x), len(centres), dtype=x.dtype)


class ForgetsTheLength(Gaussian):
    """Of a length that is 1 by default, where the forgotten factors of h' and h'' are 1; 1.5 is not allowed."""

    def __init__(self, length: Annotated[float, Field(lt=1.2)] = 1) -> None:
        self.length = length

    def profile(self, squared_distance):
        value = (squared_distance * (-0.5 / self.length**2)).exp()
        return value, value * -0.5, value * 0.25


class RefusesNumbers(Gaussian):
    """Sound; its constructor knows a bound that its annotation does not state."""

    def __init__(self, power: float = 2.0, digits: int = 3) -> None:
        if power != 2.0:
            raise ValueError("2 is the only power")


KERNEL_DEFECTS = [
    (ForgetsTheLength, "first_derivatives_match_the_value", "h' is off by the factor 0.5625"),
    (WrongSign, "first_derivatives_match_the_value", "h' has the wrong sign"),
    (MissingFactor, "second_derivatives_match_the_value", "h'' is off by the factor 0.5"),
    (SlopeInRadius, "first_derivatives_match_the_value", "with respect to the distance r"),
    (RoughExponential, "smoothness_is_not_overstated", "derivative 1 in the squared distance grows without bound"),
    (RoughMatern, "smoothness_is_not_overstated", "Declare smoothness = 2"),
    (Indefinite, "gram_matrix_is_positive_semi_definite", "negative eigenvalue"),
    (FitsItself, "fit_returns_a_copy", "fit returns the kernel itself"),
    (FitsItselfAndCopies, "fit_returns_a_copy", "fit changes the kernel that it is called on; got 'rate'"),
    (NaNAtZero, "is_finite_everywhere", "h' is not finite at distance 0"),
    (TooFewDerivatives, "declares_its_smoothness", "second derivatives are missing"),
    (LosesPrecision, "single_precision_agrees", "does not keep the precision"),
    (ForgetsTheRecord, "describes_itself_in_json", "JSON cannot hold"),
    (Asymmetric, "value_is_symmetric", "k(x, y) and k(y, x) differ"),
    (Asymmetric, "generator_matches_the_kernel", "image of the kernel is wrong"),
]


def test_numbers_that_a_constructor_refuses_are_no_fault(failures):
    assert not failures("kernels", RefusesNumbers)
    findings = report("kernels", RefusesNumbers)
    (skipped,) = (one for one in findings if one.component == "RefusesNumbers(power=3.0, digits=4)")
    assert "the constructor refuses these numbers: ValueError: 2 is the only power" in skipped.what


def test_a_sound_kernel_passes(failures):
    assert not failures("kernels", Gaussian)
    assert all(finding.passed for finding in report("kernels", Gaussian))


@pytest.mark.parametrize(("defect", "check", "words"), KERNEL_DEFECTS)
def test_defects_of_kernels_are_found(failures, defect, check, words):
    found = failures("kernels", defect)
    assert check in found
    assert words in str(found[check])
