"""The spectrum against truth: quadrature grids to many digits, draws from the invariant density by the defaults."""

from __future__ import annotations

import numpy as np
import pytest

from kfpbench import estimate_spectrum
from kfpbench.data.potentials import DoubleWell, MultiWell, OrnsteinUhlenbeck, RotatingOU, TiltedWell

WELLS = [
    pytest.param(DoubleWell(beta=1.0), id="double well, beta 1"),
    pytest.param(DoubleWell(beta=4.0), id="double well, beta 4"),
    pytest.param(DoubleWell(beta=6.0), id="double well, beta 6"),
    pytest.param(TiltedWell(beta=3.0, tilt=0.3), id="tilted well"),
]
DRAWN = [
    pytest.param(OrnsteinUhlenbeck(dimension=1), 3, id="OU, d = 1"),
    pytest.param(OrnsteinUhlenbeck(dimension=2), 6, id="OU, d = 2"),
    pytest.param(OrnsteinUhlenbeck(dimension=4), 5, id="OU, d = 4"),
    *[pytest.param(*parameter.values, 3, id=parameter.id) for parameter in WELLS],
]


def sound(spectrum) -> np.ndarray:
    return np.array([value for value, flag in zip(spectrum.values, spectrum.flags, strict=True) if not flag])


def relative_errors(problem, spectrum, count) -> np.ndarray:
    """Of the k-th sound non-zero mode against the k-th exact one: an unflagged spurious one shifts them all."""
    exact = problem.exact_eigenvalues(count + 1)[1:]
    found = sound(spectrum)
    assert abs(found[0]) < 1e-8  # the constant function
    assert len(found) > count, spectrum.flags
    return np.abs(found[1 : count + 1] - exact) / np.abs(exact)


# ---- grids with quadrature weights


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("problem", WELLS)
def test_wells_on_a_grid(problem, reversible):
    """The first three non-zero eigenvalues to 1e-6: half the automatic bandwidth, truncation 1e-12."""
    points, weights = problem.quadrature(300)
    found = estimate_spectrum(
        points,
        problem.drift,
        problem.diffusion,
        weights=weights,
        kernel_params={"factor": 0.5},
        regularization=1e-12,
        reversible=reversible,
        n_eigs=4,
    )
    assert relative_errors(problem, found, 3).max() < 1e-6


@pytest.mark.parametrize(
    ("eigensolver", "parameters", "tolerance"),
    [
        ("nystrom", {"centres": 300, "truncation": 1e-12}, 1e-6),
        ("randomized", {"truncation": 1e-12}, 1e-6),
        ("krylov", {"damping": 1e-11, "count": 6}, 1e-4),
        ("rff", {}, 0.02),
    ],
)
@pytest.mark.parametrize("problem", WELLS)
def test_wells_on_a_grid_by_the_other_solvers(problem, eigensolver, parameters, tolerance):
    points, weights = problem.quadrature(300)
    found = estimate_spectrum(
        points,
        problem.drift,
        problem.diffusion,
        weights=weights,
        kernel_params={"factor": 0.5},
        eigensolver=eigensolver,
        eigensolver_params=parameters,
        n_eigs=4,
    )
    assert relative_errors(problem, found, 3).max() < tolerance


@pytest.mark.parametrize("problem", WELLS)
def test_wells_on_a_grid_by_the_defaults(problem):
    """To 1e-3 without any parameter."""
    points, weights = problem.quadrature(1000)
    found = estimate_spectrum(points, problem.drift, problem.diffusion, weights=weights, n_eigs=4)
    assert relative_errors(problem, found, 3).max() < 1e-3


@pytest.mark.parametrize("problem", WELLS)
def test_wells_with_sixty_centres(problem):
    """1,000 points, 60 centres spread over them: 1e-4."""
    points, weights = problem.quadrature(1000)
    found = estimate_spectrum(
        points,
        problem.drift,
        problem.diffusion,
        weights=weights,
        centres=np.linspace(points.min(), points.max(), 60)[:, None],
        kernel_params={"factor": 0.5},
        regularization=1e-13,
        n_eigs=4,
    )
    assert relative_errors(problem, found, 3).max() < 1e-4


def test_the_prinz_potential_on_a_grid():
    """Its bumps are narrow: a bandwidth of 0.06 and 1,000 points resolve them to 1e-4."""
    problem = MultiWell(beta=1.0)
    points, weights = problem.quadrature(1000)
    found = estimate_spectrum(
        points,
        problem.drift,
        problem.diffusion,
        weights=weights,
        kernel_params={"bandwidth": 0.06},
        regularization=1e-12,
        n_eigs=4,
    )
    assert relative_errors(problem, found, 3).max() < 1e-4


@pytest.mark.parametrize("dimension", [1, 2])
def test_ornstein_uhlenbeck_on_a_grid(dimension):
    """To 1e-6, with the multiplicities 1, d, d (d + 1) / 2."""
    problem = OrnsteinUhlenbeck(dimension=dimension)
    points, weights = problem.quadrature(300 if dimension == 1 else 32)
    count = {1: 3, 2: 5}[dimension]
    found = estimate_spectrum(points, problem.drift, 1.0, weights=weights, regularization=1e-13, n_eigs=count + 1)
    assert relative_errors(problem, found, count).max() < 1e-6


# ---- draws from the invariant density, all defaults


def worst_of_draws(problem, count, seed) -> float:
    x = problem.sample(2000, seed)
    found = estimate_spectrum(x, problem.drift(x), problem.diffusion, n_eigs=count)
    return float(relative_errors(problem, found, count - 1).max())


@pytest.mark.parametrize(("problem", "count"), DRAWN)
def test_two_thousand_draws(problem, count):
    """Every sound mode is the exact one of its rank, to 15 %: none is spurious, and none that is true is flagged."""
    assert worst_of_draws(problem, count, 1000) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "count"), DRAWN)
def test_ten_more_times_two_thousand_draws(problem, count):
    errors = [worst_of_draws(problem, count, seed) for seed in range(1001, 1011)]
    print(f"{problem.label}: {count - 1} modes, 10 seeds: worst {max(errors):.3f}, median {np.median(errors):.3f}")
    assert max(errors) < 0.15


@pytest.mark.parametrize("seed", [1000, 1001, 1002])
def test_complex_pairs_of_a_rotating_process(seed):
    """-1 +- 2i and the modes of second order, from draws, within 5 %."""
    problem = RotatingOU()
    x = problem.sample(2000, seed)
    found = estimate_spectrum(x, problem.drift(x), problem.diffusion, n_eigs=3)
    assert relative_errors(problem, found, 2).max() < 0.05
    assert found.values[1] == found.values[2].conjugate()
    assert found.values[1].imag > 0
