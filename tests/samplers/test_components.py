"""The kernel part on the leading coordinates, the Gaussian part on the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.operators.leading_axes import LeadingAxes
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import Problem
from kfpbench.samplers.koopman import Koopman
from kfpbench.samplers.leading_flow import LeadingFlow
from kfpbench.scores.gaussian import GaussianScore
from kfpbench.scores.mixture import MixtureScore

CPU = torch.device("cpu")
DIMENSION = 8


def two_modes(count=1500):
    """Two modes along the first axis, faint independent noise along seven others: a product."""
    means = np.zeros((2, DIMENSION))
    means[:, 0] = (-2.0, 2.0)
    covariance = np.diag([0.04, *np.linspace(0.09, 0.03, DIMENSION - 1)])
    law = Mixture(np.array([0.5, 0.5]), means, np.stack([covariance, covariance]))
    rows = law.sample(count, np.random.default_rng(0))
    return Dataset("two_modes", rows, rows[:0], rows[:0], law=law, fingerprint="two_modes")


def problem(score, data):
    bound = score.bind(data, CPU, torch.float64)
    return Problem(data, VarianceExploding(0.05, 20.0), bound, CPU, torch.float64, 3)


def options(**changes):
    return GeneratorOptions(**{"segments": 6, "points": 300, "frame": "posterior", **changes})


def draw(sampler, given, count=400):
    noise = NoiseStream.of_range(7, 0, count, DIMENSION, CPU, torch.float64)
    return sampler.fit(given).sample(noise)


@pytest.mark.parametrize("frame", ["whitened", "posterior"])
@pytest.mark.parametrize("components", [DIMENSION, 50])
def test_all_components_are_the_sampler_without_them(frame, components):
    given = problem(MixtureScore(), two_modes())
    whole = draw(Koopman(operator=options(frame=frame)), given)
    assert torch.equal(draw(Koopman(operator=options(frame=frame), components=components), given), whole)


@pytest.mark.parametrize("frame", ["whitened", "posterior"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_gaussian_data_leave_the_gaussian_part_alone(frame, eta):
    # their excess drift is 0 in every coordinate, so the kernel part adds nothing, wherever it acts
    given = problem(GaussianScore(), two_modes())
    closed = draw(Koopman(operator=options(frame=frame, eta=eta), rank=0), given)
    found = draw(Koopman(operator=options(frame=frame, eta=eta), components=3), given)
    torch.testing.assert_close(found, closed, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("covariance", ["none", "gaussian", "kernel", "kernel_mean"])
def test_the_rest_is_the_gaussian_sampler_whatever_the_leading_part_does(covariance):
    given = problem(MixtureScore(), two_modes())
    chosen = Koopman(operator=options(eta=1.0), components=2, covariance=covariance)
    fitted = chosen.fit(given)
    closed = Koopman(operator=options(eta=1.0), rank=0, covariance="none" if covariance == "none" else "gaussian")
    noise = NoiseStream.of_range(7, 0, 50, DIMENSION, CPU, torch.float64)
    at = fitted.steps[-1].segment.end
    frame = FRAMES["posterior"](given.dataset, CPU, torch.float64)
    ours, theirs = (frame.encode(sampler.sample(noise), at) for sampler in (fitted, closed.fit(given)))
    torch.testing.assert_close(ours[:, 2:], theirs[:, 2:], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(ours[:, :2], theirs[:, :2], rtol=0.1)


def test_one_component_parts_two_modes_on_one_axis():
    # between the modes lies 5e-24 of the data's mass, and a third of the Gaussian's
    given = problem(MixtureScore(), two_modes())
    gaussian = draw(Koopman(operator=options(), rank=0), given)
    found = draw(Koopman(operator=options(), components=1), given)
    between = [float((rows[:, 0].abs() < 1.0).double().mean()) for rows in (gaussian, found)]
    assert between[0] > 0.25
    assert between[1] < 0.05


def test_a_fit_evaluates_what_it_did_and_describes_its_segments():
    given = problem(MixtureScore(), two_modes())
    fitted = Koopman(operator=options(), components=2).fit(given)
    assert given.score.evaluations == 6 * 300
    assert [entry["sigma"] for entry in fitted.describe()["segments"]] == [
        step.segment.middle.sigma for step in fitted.steps
    ]
    assert all(step.displacement.low.shape == (2,) for step in fitted.steps)


@pytest.mark.parametrize("frame", ["whitened", "posterior"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_matrix_for_the_rest_is_coding_it_and_decoding_it(frame, eta):
    given = problem(MixtureScore(), two_modes())
    chosen = options(frame=frame, eta=eta)
    folded = Koopman(operator=chosen, components=2, covariance="none").fit(given)
    assert isinstance(folded, LeadingFlow)
    whole = FRAMES[frame](given.dataset, CPU, torch.float64)
    first, last = folded.steps[0].segment.start, folded.steps[-1].segment.end
    noise = NoiseStream.of_range(7, 0, 50, DIMENSION, CPU, torch.float64)
    y = whole.encode(first.sigma * noise.normal(0), first)
    for step in folded.steps:
        rest = whole.decay(step.segment.start, step.segment.end, eta)[2:]
        y = torch.cat([step.advance(y[:, :2], None), rest * y[:, 2:]], dim=1)
    # the kernel expansion multiplies the rounding of its argument by the size of its coefficients
    torch.testing.assert_close(folded.sample(noise), whole.decode(y, last), rtol=1e-7, atol=1e-7)


def test_impossible_components_are_refused():
    with pytest.raises(ParameterError, match="components"):
        Koopman(components=0)
    with pytest.raises(CapabilityError, match="not sorted"):
        Koopman(operator=options(frame="raw"), components=2)
    with pytest.raises(CapabilityError, match="no state"):
        LeadingAxes(None, 2).decode(torch.zeros(1, 2), None)


def test_fewer_components_need_less_memory():
    from kfpbench.protocols import ProblemSize

    size = ProblemSize(45_000, 3072, 250, 4)
    some, all_ = (Koopman(components=count).working_memory(size) for count in (64, None))
    assert some < all_
