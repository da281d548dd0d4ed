"""The law of an affine sampler is found from its rows, and what is not affine is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from kfpbench.errors import CapabilityError, NumericalError
from kfpbench.exact.affine_law import affine_law
from kfpbench.samplers.jump import Jump
from kfpbench_baselines.euler_maruyama import EulerMaruyama
from kfpbench_baselines.gaussian import ClosedFormGaussian
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun
from kfpbench_baselines.schedules import time_grid

EYE = np.eye(3)


def covariance(law):
    root = np.diag(law.root) if law.diagonal else law.root
    return root.T @ root


def recursion(gaussian, process, steps, eta):
    """Mean and covariance of Euler-Maruyama, as matrices: x <- x + h (-f x + w g^2 S^-1 (alpha mu - x)) + noise."""
    mean, spread = np.zeros(3), process.sigma(process.t_max) ** 2 * EYE
    for t, following in pairwise(time_grid(process, steps, "edm")):
        h, g2, alpha = t - following, process.squared_diffusion(t), process.alpha(t)
        precision = np.linalg.inv(alpha**2 * gaussian.covariances[0] + process.sigma(t) ** 2 * EYE)
        pull = h * (1 + eta**2) / 2 * g2 * precision
        step = (1 - h * process.drift_rate(t)) * EYE - pull
        mean = step @ mean + pull @ (alpha * gaussian.means[0])
        spread = step @ spread @ step.T + eta**2 * g2 * h * EYE
    return mean, spread


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("own_axes", [True, False])
def test_euler_maruyama_has_the_law_of_its_recursion(gaussian, make_problem, process, eta, own_axes):
    problem, steps = make_problem(gaussian, process), 15
    axes = np.linalg.eigh(gaussian.covariances[0])[1] if own_axes else EYE
    found = affine_law(EulerMaruyama(steps, eta=eta).fit(problem), problem, axes)
    mean, spread = recursion(gaussian, process, steps, eta)
    np.testing.assert_allclose(axes @ found.mean, mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(axes @ covariance(found) @ axes.T, spread, rtol=1e-9, atol=1e-11)
    draws = steps + 1 if eta else 1
    assert len(found.response) == draws
    assert found.diagonal is own_axes  # one row a draw then, and none for each coordinate
    assert found.rows == draws + 26 + (0 if own_axes else 3 * draws)
    assert found.defect < 1e-11


def test_any_affine_map_of_any_draws(gaussian, make_problem, sampled):
    rng = np.random.default_rng(4)
    maps = {draw: rng.standard_normal((3, 3)) for draw in (0, 7, 65_541)}
    shift = rng.standard_normal(3)

    def sample(noise):
        behind = noise.after(65_536)
        parts = noise.normal(0), noise.normal(7), behind.normal(5)
        mixed = sum(part @ torch.tensor(matrix) for part, matrix in zip(parts, maps.values(), strict=True))
        # rows taken out of the batch keep their numbers
        some = torch.arange(noise.size - 1, -1, -1)
        assert torch.equal(noise.select(some).normal(7), parts[1][some])
        return torch.tensor(shift) + mixed

    found = affine_law(sampled(sample), make_problem(gaussian), EYE)
    np.testing.assert_allclose(found.mean, shift, atol=1e-14)
    for draw, matrix in maps.items():
        np.testing.assert_allclose(found.response[draw], matrix, atol=1e-14)
    expected = sum(matrix.T @ matrix for matrix in maps.values())
    np.testing.assert_allclose(covariance(found), expected, atol=1e-13)


def test_another_start(gaussian, make_problem, sampled):
    shift, scale = np.array([1.0, -2.0, 3.0]), np.array([0.5, 1.0, 2.0])
    problem = make_problem(gaussian)
    for axes in (np.linalg.eigh(gaussian.covariances[0])[1], EYE):
        plain = ProbabilityFlowHeun(6).fit(problem)

        def moved(noise, axes=axes, plain=plain):
            class Moved:
                def normal(self, draw):
                    start = shift + scale * (noise.normal(draw).numpy() @ axes)
                    return torch.tensor(start @ axes.T)

            return plain.sample(Moved())

        found = affine_law(plain, problem, axes).with_start(shift, scale)
        expected = affine_law(sampled(moved), problem, axes)
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)
        np.testing.assert_allclose(covariance(found), covariance(expected), atol=1e-12)


def test_draws_of_a_composed_sampler(gaussian, make_problem):
    problem = make_problem(gaussian)
    fitted = Jump(start=ClosedFormGaussian(), refiner=EulerMaruyama(5), sigma_star=1.0).fit(problem)
    # the start's own, then one a step behind all that belong to the start; a step's first draw is number 1
    behind = [fitted.draws + number for number in range(1, 6)]
    assert list(affine_law(fitted, problem, EYE).response) == [0, *behind]


def refusal(problem, sampler, **keywords):
    with pytest.raises(CapabilityError) as caught:
        affine_law(sampler, problem, EYE, **keywords)
    return str(caught.value)


def test_what_is_not_affine_is_refused(gaussian, make_problem, sampled):
    problem = make_problem(gaussian)
    # odd, and linear along each coordinate alone: no response to a basis vector shows it
    product = sampled(lambda noise: noise.normal(0) + 1e-3 * noise.normal(0).prod(1, keepdim=True))
    assert "not an affine map" in refusal(problem, product)
    assert "not an affine map" in refusal(problem, sampled(lambda noise: noise.normal(0).abs()))
    assert "random" in refusal(problem, sampled(lambda noise: noise.uniform_integers(0, 3)[:, None] * torch.ones(3)))

    def adaptive(noise):
        start = noise.normal(0)
        return start + noise.normal(1) if bool((start.abs() > 0.1).any()) else start

    assert "depend on their values" in refusal(problem, sampled(adaptive))
    mixture = make_problem(type(gaussian)(np.full(2, 0.5), np.array([EYE[0], -EYE[0]]), np.stack([EYE, EYE])))
    assert "not an affine map" in refusal(mixture, ProbabilityFlowHeun(10).fit(mixture))


def test_the_cost_is_bounded(gaussian, make_problem, sampled):
    problem = make_problem(gaussian)
    fitted = EulerMaruyama(40).fit(problem)  # 41 draws of 3 coordinates, not diagonal in the coordinates' axes
    assert "41 draws in 3 dimensions; got 190" in refusal(problem, fitted, max_rows=189)
    assert affine_law(fitted, problem, EYE, max_rows=190).rows == 190
    assert "got 67" in refusal(problem, fitted, max_rows=66)  # before anything large has been done
    endless = sampled(lambda noise: noise.normal(0) / (noise.normal(0) - noise.normal(0)))
    with pytest.raises(NumericalError, match="NaN or infinity"):
        affine_law(endless, problem, EYE)


def test_float32_is_known_to_its_rounding(gaussian, make_problem):
    laws = {}
    for dtype in (torch.float64, torch.float32):
        problem = make_problem(gaussian, dtype=dtype)
        laws[dtype] = affine_law(ProbabilityFlowHeun(10).fit(problem), problem, EYE)
    assert 1e-9 < laws[torch.float32].defect < 1e-5
    np.testing.assert_allclose(laws[torch.float32].mean, laws[torch.float64].mean, atol=1e-5)
    np.testing.assert_allclose(covariance(laws[torch.float32]), covariance(laws[torch.float64]), atol=1e-5)
