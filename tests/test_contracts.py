"""Every registered plugin keeps the contract of its kind, and the contract finds the defects that are planted here."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from kfpbench import testing
from kfpbench.eigensolvers.dense import DenseEigensolver
from kfpbench.errors import CapabilityError, PluginError
from kfpbench.kernels.rbf import RBF
from kfpbench.metrics.energy_distance import EnergyDistance
from kfpbench.operators.dense import DenseGram, DenseMatrix
from kfpbench.operators.tiled import TiledGram
from kfpbench.protocols import KINDS, ProblemSize
from kfpbench.registry import available
from kfpbench.testing import Finding, missing_members, report
from kfpbench_baselines.gaussian import ClosedFormGaussian

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_kernel.py"

SLOW = {  # by name: every check takes compilations of 10 s, or the whole suite half a minute
    ("backends", "keops"),
    ("eigensolvers", "krylov"),
}


def parameters() -> list[Any]:
    """One test for every case of every registered component, and every check of its kind."""
    found = []
    for kind in testing.KINDS:
        for name in available(kind):
            for case in testing.cases(kind, name):
                marks = [pytest.mark.slow] if (kind, name) in SLOW else []
                for check in testing.checks(kind):
                    found.append(pytest.param(case, check, id=f"{kind}-{case.label}-{check.name}", marks=marks))
    return found


_BUILT: dict[str, Any] = {}


@pytest.mark.parametrize(("case", "check"), parameters())
def test_every_registered_component_keeps_its_contract(case, check):
    key = f"{case.kind} {case.label}"
    if key not in _BUILT:  # one instance for all checks: what several of them look at is computed once
        _BUILT.clear()
        _BUILT[key] = testing.construct(case)
    finding = check.run(_BUILT[key], case.label)
    if finding.outcome == "skipped":
        pytest.skip(finding.what)
    assert finding.passed, str(finding)


def failures(kind: str, component: object) -> dict[str, Finding]:
    return {finding.check: finding for finding in report(kind, component) if finding.outcome == "failed"}


# -- planted defects: kernels ----------------------------------------------------------------------


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


KERNEL_DEFECTS = [
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


def test_a_sound_kernel_passes():
    assert not failures("kernels", Gaussian)
    assert all(finding.passed for finding in report("kernels", Gaussian))


@pytest.mark.parametrize(("defect", "check", "words"), KERNEL_DEFECTS)
def test_defects_of_kernels_are_found(defect, check, words):
    found = failures("kernels", defect)
    assert check in found
    assert words in str(found[check])


# -- backends --------------------------------------------------------------------------------------


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
def test_defects_of_backends_are_found(defect, check, words):
    found = failures("backends", defect)
    assert check in found
    assert words in str(found[check])


# -- eigensolvers ----------------------------------------------------------------------------------


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
def test_defects_of_eigensolvers_are_found(defect, check, words):
    found = failures("eigensolvers", defect)
    assert check in found
    assert words in str(found[check])


# -- samplers --------------------------------------------------------------------------------------


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


def test_a_sound_sampler_passes():
    assert not failures("samplers", Altered)


@pytest.mark.parametrize(("defect", "check", "words"), SAMPLER_DEFECTS)
def test_defects_of_samplers_are_found(defect, check, words):
    found = failures("samplers", defect)
    assert check in found
    assert words in str(found[check])


# -- metrics ---------------------------------------------------------------------------------------


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
def test_defects_of_metrics_are_found(defect, check, words):
    found = failures("metrics", defect)
    assert check in found
    assert words in str(found[check])


def test_a_metric_with_the_wrong_direction_is_found():
    class HigherIsBetter(EnergyDistance):
        outputs: ClassVar[dict[str, Any]] = {"energy_distance": "higher"}

    found = failures("metrics", HigherIsBetter)
    assert found.keys() == {"directions_are_right"}
    assert "energy_distance prefers every bad set" in found["directions_are_right"].what


# -- building, shapes, outcomes --------------------------------------------------------------------


class NeedsParameters(Gaussian):
    def __init__(self, width: float) -> None:
        self.width = width


class NamesExamples(NeedsParameters):
    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"width": 1.0}, {"width": 2.0})


def test_required_parameters_without_examples_are_one_finding_with_its_remedy():
    (finding,) = report("kernels", NeedsParameters)
    assert (finding.check, finding.outcome) == ("constructs", "failed")
    assert "names no contract_examples" in finding.what
    assert finding.got == "required parameters: width"
    assert "contract_examples: ClassVar" in finding.remedy
    assert '{"width": ...}' in finding.remedy


def test_examples_are_cases():
    labels = [case.label for case in testing.cases("kernels", NamesExamples)]
    assert labels == ["NamesExamples(width=1.0)", "NamesExamples(width=2.0)"]
    assert len(report("kernels", NamesExamples)) == 2 * len(testing.checks("kernels"))


def test_missing_members_are_named():
    class NoKernel:
        def fit(self, points: Tensor, labels: Tensor) -> NoKernel:
            return self

    missing = missing_members("kernels", NoKernel)
    assert missing[0] == "the attribute smoothness"
    assert "the arguments of fit(points)" in missing[1]
    assert missing[2] == "the method describe()"
    assert missing[3].startswith("a formula: profile, or arguments and jet")
    (finding,) = report("kernels", NoKernel())
    assert finding.check == "has_the_members_of_its_protocol"
    assert finding.outcome == "failed"
    assert "lacks the attribute smoothness" in finding.what


def test_a_component_of_another_kind_lacks_members():
    assert "the method evaluate(data)" in missing_members("metrics", RBF)
    assert "the method fit(points)" in missing_members("kernels", DenseGram)


@pytest.mark.parametrize("kind", KINDS)
def test_registered_classes_have_the_shape_of_their_kind(kind):
    for entry in available(kind).values():
        assert missing_members(kind, entry.load()) == []


def test_a_kind_without_a_contract_is_refused():
    with pytest.raises(PluginError, match="no contract for this kind"):
        testing.checks("datasets")


def test_a_capability_error_is_a_skip_with_its_reason():
    class Unavailable(DenseGram):
        def gram(self, kernel, x, centres):
            raise CapabilityError("no compiler")

    skipped = {f.check: f for f in report("backends", Unavailable) if f.outcome == "skipped"}
    assert "no compiler" in skipped["gram_matches_the_formula"].what
    assert not skipped["gram_matches_the_formula"].passed


def test_every_check_states_its_law():
    for kind in testing.KINDS:
        checks = testing.checks(kind)
        assert len({check.name for check in checks}) == len(checks)
        assert all(len(check.law) > 10 for check in checks)


# -- a stranger's file -----------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kfpbench.testing", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_example_kernel_passes():
    result = run("kernels", "--plugin", str(EXAMPLE))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failed" in result.stdout


def test_a_broken_copy_of_the_example_is_explained(tmp_path):
    source = EXAMPLE.read_text(encoding="utf-8")
    broken = source.replace("first = -rate * value / u", "first = rate * value / u").replace(
        "fitted = copy.copy(self)", "fitted = self"
    )
    assert broken != source
    (tmp_path / "kernel.py").write_text(broken, encoding="utf-8")
    result = run("kernels", "my_rational_quadratic", "--plugin", str(tmp_path / "kernel.py"), "--failures")
    assert result.returncode == 1
    assert "h' has the wrong sign" in result.stdout
    assert "fit returns the kernel itself" in result.stdout
    assert "fitted = copy.copy(self)" in result.stdout  # the remedy


def test_a_wrong_command_line_is_an_error(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    result = run("kernels", "--plugin", str(tmp_path / "empty.py"))
    assert result.returncode == 2
    assert "registers no kernels" in result.stdout
