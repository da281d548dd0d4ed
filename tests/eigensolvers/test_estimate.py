"""estimate_spectrum: what it accepts, what it refuses and how, and what a Spectrum does with its pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfpbench import estimate_spectrum
from kfpbench.data.potentials import AnisotropicOU, DoubleWell, OrnsteinUhlenbeck, RotatingOU
from kfpbench.errors import (
    CapabilityError,
    KfpbenchError,
    NumericalError,
    ParameterError,
    ShapeError,
    UnknownComponentError,
)
from kfpbench.kernels.rbf import RBF

OU2 = OrnsteinUhlenbeck(dimension=2)
X = OU2.sample(300, seed=0)


def drift(x):
    return -x


# ---- equivalent ways to say the same


def test_arrays_functions_and_forms_of_diffusion_agree():
    """a as a number, a diagonal, a matrix, a matrix at each point and as functions; b as an array and a function."""
    plain = estimate_spectrum(X, drift, 1.0)
    for b in (drift, -X):
        for a in (
            np.ones(2),
            np.eye(2),
            np.broadcast_to(np.eye(2), (300, 2, 2)),
            lambda x: np.ones(len(x)),
            lambda x: np.broadcast_to(np.eye(2), (len(x), 2, 2)),
        ):
            other = estimate_spectrum(X, b, a)
            np.testing.assert_allclose(other.values, plain.values, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(other.residuals, plain.residuals, rtol=1e-4, atol=1e-6)


def test_an_anisotropic_diffusion_acts_along_its_axes():
    """E[x_s^2] grows to a_ss / r_s at rate 2 r_s: by a = diag(0.5, 2), not by the mean of its entries.

    Eigenvalues of a linear drift would not tell: they do not depend on a.
    """
    problem = AnisotropicOU()
    points, weights = problem.quadrature(30)
    found = estimate_spectrum(points, problem.drift, problem.diffusion, weights=weights, n_eigs=4)
    np.testing.assert_allclose(found.values[:4].real, problem.exact_eigenvalues(4), atol=1e-3)
    rates, dt = np.array(problem.rates), 0.3
    limit = np.diag(problem.diffusion) / rates
    x = np.array([[0.0, 0.0], [0.5, -0.5]])
    expected = np.exp(-2 * rates * dt) * x**2 + limit * (1 - np.exp(-2 * rates * dt))
    np.testing.assert_allclose(found.propagate(lambda z: z**2, dt, x), expected, atol=1e-3)


def test_weights_need_not_be_normalised():
    points, weights = DoubleWell().quadrature(120)
    one = estimate_spectrum(points, DoubleWell().drift, 1.0, weights=weights, n_eigs=3)
    other = estimate_spectrum(points, DoubleWell().drift, 1.0, weights=17.0 * weights, n_eigs=3)
    np.testing.assert_allclose(one.values, other.values, rtol=1e-7, atol=1e-9)


def test_components_may_be_given_as_objects():
    one = estimate_spectrum(X, drift, 1.0, kernel="rbf", kernel_params={"bandwidth": 1.2}, backend="dense")
    other = estimate_spectrum(X, drift, 1.0, kernel=RBF(bandwidth=1.2), backend="dense")
    np.testing.assert_array_equal(one.values, other.values)


def test_the_same_call_gives_the_same_numbers():
    one, other = estimate_spectrum(X, drift, 1.0), estimate_spectrum(X, drift, 1.0)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.residuals, other.residuals)


def test_inputs_are_not_changed():
    points, b = X.copy(), drift(X).copy()
    estimate_spectrum(points, b, 1.0)
    np.testing.assert_array_equal(points, X)
    np.testing.assert_array_equal(b, drift(X))


# ---- where residuals are taken


def test_draws_are_split_and_grids_are_not():
    assert estimate_spectrum(X, drift, 1.0).diagnostics["residual_points"] == "held-out points"
    assert estimate_spectrum(X, drift, 1.0).diagnostics["points"] == 240
    points, weights = DoubleWell().quadrature(100)
    fitted = estimate_spectrum(points, DoubleWell().drift, 1.0, weights=weights)
    assert fitted.diagnostics["residual_points"] == "half-way between neighbours"
    assert fitted.diagnostics["points"] == 100
    arrays = estimate_spectrum(points, DoubleWell().drift(points), 1.0, weights=weights)
    assert arrays.diagnostics["residual_points"] == "the fitted points"
    np.testing.assert_array_equal(arrays.values, fitted.values)


def test_held_out_points_are_not_fitted():
    """A drift that is wild on the held-out points alone changes residuals and flags, not values."""
    plain = estimate_spectrum(X, -X, 1.0)
    unseen = np.setdiff1d(np.arange(300), plain.fitted)
    assert len(unseen) == 60
    wild = -X.copy()
    wild[unseen] *= 50.0
    other = estimate_spectrum(X, wild, 1.0)
    shared = min(len(plain.values), len(other.values))
    np.testing.assert_array_equal(other.values[:shared], plain.values[:shared])
    assert other.flags[1]
    assert not plain.flags[1]
    assert other.status == "too few sound modes"


# ---- functions


def test_functions_are_normalised_and_biorthogonal():
    points, weights = OU2.quadrature(20)
    found = estimate_spectrum(points, drift, 1.0, weights=weights, kernel_params={"bandwidth": 2.0}, n_eigs=4)
    phi, psi = found.eigenfunctions(points), found.adjoint(points)
    np.testing.assert_allclose((weights[:, None] * abs(phi) ** 2).sum(0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(psi.conj().T @ (weights[:, None] * phi), np.eye(phi.shape[1]), atol=1e-6)
    np.testing.assert_allclose(phi[:, 0], 1.0, rtol=1e-8)


def test_propagation_of_ornstein_uhlenbeck():
    """E[x_dt | x_0] = e^-dt x, E[x^2] = e^-2dt x^2 + 1 - e^-2dt: arrays, functions, new points."""
    points, weights = OrnsteinUhlenbeck().quadrature(150)
    found = estimate_spectrum(points, drift, 1.0, weights=weights, kernel_params={"bandwidth": 2.0}, n_eigs=3)
    x = np.linspace(-2.0, 2.0, 9)[:, None]
    for dt in (0.0, 0.3, 2.0):
        np.testing.assert_allclose(found.propagate(points, dt, x), np.exp(-dt) * x, atol=1e-4)
        square = found.propagate(lambda z: z[:, 0] ** 2, dt, x)
        assert square.shape == (9,)
        np.testing.assert_allclose(square, np.exp(-2 * dt) * x[:, 0] ** 2 + 1 - np.exp(-2 * dt), atol=1e-3)
    assert found.propagate(points, 0.1).shape == points.shape


@pytest.mark.parametrize("dt", [-1.0, float("nan"), float("inf")])
def test_bad_time_step(dt):
    with pytest.raises(ParameterError, match="dt"):
        estimate_spectrum(X, drift, 1.0).propagate(X, dt)


def test_observables_and_points_of_the_wrong_shape():
    found = estimate_spectrum(X, drift, 1.0)
    with pytest.raises(ShapeError, match="observable"):
        found.propagate(X[:-1], 0.1)
    with pytest.raises(ShapeError, match="points"):
        found.eigenfunctions(np.zeros((4, 3)))


# ---- bad input: a typed error that names it, never one of LAPACK's, never silence


def with_nan(array):
    changed = np.array(array, dtype=float)
    changed[3, 0] = np.nan
    return changed


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"points": with_nan(X)}, NumericalError, "points"),
        ({"drift": with_nan(X)}, NumericalError, "drift"),
        ({"points": X[:, 0]}, ShapeError, "points"),
        ({"points": X[:1], "drift": X[:1], "n_eigs": 1}, NumericalError, "equal"),
        ({"points": X[:4], "drift": X[:4]}, ParameterError, "n_eigs"),
        ({"points": np.zeros((0, 2)), "drift": np.zeros((0, 2))}, ParameterError, "n_eigs"),
        ({"points": np.ones((50, 2))}, NumericalError, "equal"),
        ({"points": np.ones((50, 2)), "kernel_params": {"bandwidth": 1.0}}, NumericalError, "constant"),
        ({"drift": X[:, :1]}, ShapeError, "drift"),
        ({"drift": lambda x: x[:, 0]}, ShapeError, "drift"),
        ({"diffusion": -1.0}, ParameterError, "diffusion"),
        ({"diffusion": np.nan}, NumericalError, "diffusion"),
        ({"diffusion": np.ones(3)}, ShapeError, "diffusion"),
        ({"diffusion": np.array([[1.0, 2.0], [0.0, 1.0]])}, ParameterError, "symmetric"),
        ({"diffusion": np.diag([1.0, -1.0])}, ParameterError, "positive"),
        ({"weights": np.ones(7)}, ShapeError, "weights"),
        ({"weights": np.zeros(300)}, ParameterError, "weights"),
        ({"weights": np.full(300, np.nan)}, NumericalError, "weights"),
        ({"centres": np.zeros((5, 3))}, ShapeError, "centres"),
        ({"n_eigs": 0}, ParameterError, "n_eigs"),
        ({"n_eigs": 2.5}, ParameterError, "n_eigs"),
        ({"device": "abacus"}, ParameterError, "device"),
        ({"dtype": "float16"}, ParameterError, "dtype"),
        ({"kernel": "rbff"}, UnknownComponentError, "rbf"),
        ({"kernel_params": {"bandwidth": -1.0}}, ParameterError, "bandwidth"),
        ({"kernel": RBF(), "kernel_params": {"factor": 2.0}}, ParameterError, "constructor"),
        ({"regularization": -1.0}, ParameterError, "truncation"),
        ({"diffusion": 0.0, "reversible": True}, ParameterError, "reversible"),
        ({"points": [["a", "b"]] * 300}, ParameterError, "points"),
        ({"kernel": "matern32"}, CapabilityError, "second derivatives"),
    ],
)
def test_bad_input(change, error, words):
    arguments = {"points": X, "drift": drift, "diffusion": 1.0, **change}
    if callable(arguments["drift"]) and "drift" not in change:
        arguments["drift"] = lambda x: -np.asarray(x, dtype=float)
    with pytest.raises(KfpbenchError) as caught:
        estimate_spectrum(arguments.pop("points"), arguments.pop("drift"), arguments.pop("diffusion"), **arguments)
    assert isinstance(caught.value, error), repr(caught.value)
    assert words in str(caught.value)


def test_duplicate_points_are_harmless():
    """Every point twice is the same density: the same eigenvalues, up to the split into fitted and held-out ones."""
    points, weights = OrnsteinUhlenbeck().quadrature(100)
    once = estimate_spectrum(points, drift, 1.0, weights=weights, kernel_params={"bandwidth": 2.0}, n_eigs=3)
    twice = estimate_spectrum(
        np.repeat(points, 2, axis=0),
        drift,
        1.0,
        weights=np.repeat(weights, 2),
        kernel_params={"bandwidth": 2.0},
        n_eigs=3,
    )
    np.testing.assert_allclose(twice.values, once.values, rtol=1e-5, atol=1e-7)
    assert twice.status == "ok"


def test_a_rank_deficient_gram_matrix_is_truncated():
    """Ten distinct places for 300 points: at most nine functions besides the constant, and the status says so."""
    places = X[:10]
    points = places[np.arange(300) % 10]
    found = estimate_spectrum(points, drift, 1.0, n_eigs=20)
    assert found.diagnostics["rank"] <= 10
    assert found.status == "too few sound modes"
    assert np.isfinite(found.values).all()


def test_a_bandwidth_so_large_that_the_model_is_linear_is_flagged():
    found = estimate_spectrum(X, drift, 1.0, kernel_params={"bandwidth": 1e3})
    assert "linear" in found.diagnostics["warning"]
    assert "warning" not in estimate_spectrum(X, drift, 1.0).diagnostics


def test_float32_agrees_with_float64():
    """To single precision of the leading value; the smallest kept strengths are at its rounding."""
    wide = estimate_spectrum(X, drift, 1.0, n_eigs=3)
    narrow = estimate_spectrum(X, drift, 1.0, n_eigs=3, dtype="float32")
    assert narrow.pairs.values.dtype == torch.complex64
    np.testing.assert_allclose(narrow.values[:3].real, wide.values[:3].real, atol=0.05)


@pytest.mark.parametrize("name", ["matern32", "matern52"])
def test_rough_kernels_in_the_reversible_form(name):
    """The Dirichlet form needs one derivative: the leading value of OU within 15 %."""
    points, weights = OrnsteinUhlenbeck().quadrature(200)
    found = estimate_spectrum(points, drift, 1.0, weights=weights, kernel=name, reversible=True, n_eigs=2)
    sound = [value for value, flag in zip(found.values, found.flags, strict=True) if not flag]
    assert abs(sound[1] + 1.0) < 0.15


# ---- what callers' functions and arrays may do


def test_a_function_gets_a_copy_in_float64():
    """Integers do not wrap, and a drift that works in place changes neither the caller's array nor the fit."""
    draws = np.round(10 * OU2.sample(200, seed=3)).astype(np.int8)

    def in_place(x):
        assert x.dtype == np.float64
        x *= -1.0
        return x

    kept = draws.copy()
    found = estimate_spectrum(draws, in_place, 100.0, n_eigs=3)
    np.testing.assert_array_equal(draws, kept)
    expected = estimate_spectrum(draws.astype(float), -draws.astype(float), 100.0, n_eigs=3)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-9, atol=1e-12)


def test_weights_far_below_single_precision_do_not_vanish():
    points, weights = DoubleWell().quadrature(80)
    weights[0] = 1e-200
    found = estimate_spectrum(points, DoubleWell().drift, 1.0, weights=weights, n_eigs=3, dtype="float32")
    assert found.status == "ok"


def test_equal_weights_are_draws():
    plain, weighted = estimate_spectrum(X, -X, 1.0), estimate_spectrum(X, -X, 1.0, weights=np.ones(300))
    np.testing.assert_array_equal(weighted.values, plain.values)
    assert weighted.diagnostics["residual_points"] == "held-out points"


def test_single_precision_on_a_grid_keeps_no_functions_of_rounding():
    """The truncation of 1e-10 lies below float32's rounding of the kernel: the values must not come from there."""
    points, weights = DoubleWell().quadrature(100)
    exact = DoubleWell().exact_eigenvalues(3)
    for solver in ("dense", "nystrom"):
        found = estimate_spectrum(
            points, DoubleWell().drift, 1.0, weights=weights, n_eigs=3, dtype="float32", eigensolver=solver
        )
        np.testing.assert_allclose(found.values[:3].real, exact, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_a_conjugate_pair_is_not_split(count):
    x = RotatingOU().sample(1000, 0)
    found = estimate_spectrum(x, RotatingOU().drift(x), 1.0, n_eigs=count)
    np.testing.assert_array_equal(np.sort_complex(found.values), np.sort_complex(found.values.conj()))
    assert len(found.values) == 3


def test_complex_observables():
    points, weights = OrnsteinUhlenbeck().quadrature(150)
    found = estimate_spectrum(points, drift, 1.0, weights=weights, n_eigs=3)
    wave = np.exp(1j * points[:, 0])
    both = found.propagate(wave, 0.2)
    np.testing.assert_allclose(both.real, found.propagate(wave.real, 0.2), atol=1e-12)
    np.testing.assert_allclose(both.imag, found.propagate(wave.imag, 0.2), atol=1e-12)


def test_tensors_and_numpy_numbers_are_taken():
    tensor = torch.as_tensor(X).requires_grad_(True)
    found = estimate_spectrum(tensor, -tensor, 1.0, n_eigs=np.int64(3))
    np.testing.assert_array_equal(found.values, estimate_spectrum(X, -X, 1.0, n_eigs=3).values)
    assert found.eigenfunctions(tensor).shape == (300, len(found.values))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"points": X + 1j}, "complex"),
        ({"device": None}, "device"),
        ({"device": "mps"}, "device"),
        ({"kernel": RBF}, "not a component"),
        ({"kernel": 3}, "not a component"),
        ({"eigensolver": None}, "not a component"),
        ({"backend": None}, "not a component"),
        ({"kernel_params": [1]}, "mapping"),
        ({"eigensolver": "krylov", "regularization": 1e-8}, "krylov has no truncation"),
        ({"centres": np.zeros((0, 2))}, "centres"),
    ],
)
def test_more_bad_input(change, words):
    arguments = {"drift": -X, "diffusion": 1.0, **change}
    with pytest.raises((ParameterError, ShapeError), match=words):
        estimate_spectrum(arguments.pop("points", X), **arguments)


@pytest.mark.parametrize("bad", [["a"] * 300, np.full(300, np.nan)])
def test_bad_observables(bad):
    with pytest.raises(ParameterError, match="observable"):
        estimate_spectrum(X, -X, 1.0).propagate(bad, 0.1)
