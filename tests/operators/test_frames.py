"""Frames: coordinates with an exact linear part, checked against the process itself, finite differences, quadrature."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.data.moments import training_moments
from kfpbench.errors import CapabilityError
from kfpbench.operators.frames import FRAMES, Frame, PosteriorFrame, RawFrame, WhitenedFrame, WithoutLinearPart
from kfpbench.operators.marginal import Marginal, marginal
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.ve import VarianceExploding
from kfpbench.processes.vp import VariancePreserving
from kfpbench.scores.gaussian import GaussianScore
from kfpbench.scores.mixture import MixtureScore

CPU, F64 = torch.device("cpu"), torch.float64
ETAS = [0.0, 0.5, 1.0]
PROCESSES = {
    "ve": VarianceExploding(0.01, 50.0),
    "vp": VariancePreserving(),
    "ou": OrnsteinUhlenbeck(rate=0.7, stationary_std=2.0, t_max=5.0),
}
over_processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
over_etas = pytest.mark.parametrize("eta", ETAS)
over_frames = pytest.mark.parametrize("kind", list(FRAMES))
over_rotated = pytest.mark.parametrize("kind", ["whitened", "posterior"])


def three_modes() -> Dataset:
    """A mixture in 3-D with a mean off the origin and correlated axes; 400 rows drawn from it."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((3, 3, 3)) * 0.6
    law = Mixture(np.array([0.2, 0.3, 0.5]), 2.0 * rng.standard_normal((3, 3)) + 1.0, factors @ factors.swapaxes(1, 2))
    rows = law.sample(400, rng)
    return Dataset("three modes", rows, rows[:1], rows[:1], law=law)


DATA = three_modes()
MEAN = DATA.train.astype(np.float64).mean(axis=0)
COVARIANCE = np.cov(DATA.train.astype(np.float64).T, bias=True)


def frame_of(kind: str) -> Frame:
    return FRAMES[kind](DATA, CPU, F64)


def instants(process, count: int = 5) -> list[Marginal]:
    ends = process.log_ratio(process.t_min), process.log_ratio(process.t_max)
    inner = np.linspace(*ends, count + 2)[1:-1]
    return [marginal(process, process.time_of(float(value))) for value in inner]


def states(at: Marginal, count: int = 20, seed: int = 0) -> torch.Tensor:
    noise = torch.randn((count, 3), generator=torch.Generator().manual_seed(seed), dtype=F64)
    return at.alpha * torch.as_tensor(DATA.train[:count], dtype=F64) + at.sigma * noise


def assert_close(actual: torch.Tensor, expected: torch.Tensor, relative: float, scale: float = 0.0) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= relative * max(scale, float(expected.abs().max()))


# ---- coordinates ----


@over_processes
@over_frames
def test_decode_inverts_encode(kind, process):
    frame = frame_of(kind)
    for at in [marginal(process, process.t_min), *instants(process), marginal(process, process.t_max)]:
        x = states(at)
        assert_close(frame.decode(frame.encode(x, at), at), x, 1e-12)
        y = torch.randn((7, 3), generator=torch.Generator().manual_seed(1), dtype=F64)
        assert_close(frame.encode(frame.decode(y, at), at), y, 1e-12, scale=1.0 + float(abs(MEAN).max()) / at.sigma)


@over_processes
def test_whitened_coordinates_are_white(process):
    """encode maps N(alpha mean, alpha^2 Cov + sigma^2) to N(0, I): its matrix A has A Cov_t A^T = I."""
    frame = frame_of("whitened")
    for at in instants(process):
        centre = at.alpha * torch.as_tensor(MEAN)[None]
        assert float(frame.encode(centre, at).abs().max()) < 1e-6 * at.alpha / at.sigma + 1e-12
        matrix = (frame.encode(centre + torch.eye(3, dtype=F64), at) - frame.encode(centre, at)).T
        covariance = torch.as_tensor(at.alpha**2 * COVARIANCE + at.sigma**2 * np.eye(3))
        # the frame's covariance is added up from float32 products: 1e-6 relative
        assert_close(matrix @ covariance @ matrix.T, torch.eye(3, dtype=F64), 1e-5)


@over_processes
def test_posterior_coordinates_are_gaussian_posterior_means(process):
    """Distances in y are those of E[x_0 | x] under Gaussian data, here from the Gaussian score."""
    frame, score = frame_of("posterior"), GaussianScore().bind(DATA, CPU, F64)
    for at in instants(process):
        x = states(at)
        denoised = score.denoise(x, at.alpha, at.sigma)
        y = frame.encode(x, at)
        assert_close(torch.cdist(y, y), torch.cdist(denoised, denoised), 1e-9, scale=float(denoised.abs().max()))
        assert_close(frame.decode(torch.zeros((1, 3), dtype=F64), at), at.alpha * score.mean[None], 1e-12)
    least = marginal(process, process.t_min)  # almost without noise: distances of data
    rows = torch.as_tensor(DATA.train[:20], dtype=F64)
    y = frame.encode(least.alpha * rows, least)
    # lam / (lam + r^2) = 1 to r^2 over the smallest variance
    assert_close(torch.cdist(y, y), torch.cdist(rows, rows), 1.1 * least.squared_ratio / float(frame.variances.min()))


@over_processes
@over_frames
def test_the_scale_is_the_standard_deviation_of_gaussian_data(process, kind):
    """scale^2 is the diagonal of A Cov_t A^T, A the matrix of encode; in the raw frame its mean over the axes."""
    frame = frame_of(kind)
    for at in [marginal(process, process.t_min), *instants(process), marginal(process, process.t_max)]:
        zero = torch.zeros((1, 3), dtype=F64)
        matrix = (frame.encode(zero + torch.eye(3, dtype=F64), at) - frame.encode(zero, at)).T
        covariance = torch.as_tensor(at.alpha**2 * COVARIANCE + at.sigma**2 * np.eye(3))
        variances = torch.diag(matrix @ covariance @ matrix.T)
        expected = variances.mean().expand(3) if kind == "raw" else variances
        # the frame's covariance is added up from float32 products: 1e-6 relative
        torch.testing.assert_close(frame.scale(at).square(), expected, rtol=1e-5, atol=0.0)
        assert torch.equal(WithoutLinearPart(frame).scale(at), frame.scale(at))


def test_raw_coordinates_are_the_state():
    at = instants(PROCESSES["vp"])[0]
    x = states(at)
    assert torch.equal(frame_of("raw").encode(x, at), x)
    assert torch.equal(frame_of("raw").decode(x, at), x)


# ---- drift ----


def reverse_drift(x, process, t, eta, score):
    """b = -f x + (1 + eta^2) / 2 g^2 s, in the process's own time tau = T - t, from section 1 of the design."""
    return -process.drift_rate(t) * x + 0.5 * (1.0 + eta**2) * process.squared_diffusion(t) * score


@over_processes
@over_etas
def test_raw_drift_is_that_of_the_process_in_rho(process, eta):
    score = MixtureScore().bind(DATA, CPU, F64)
    frame = frame_of("raw")
    for at in instants(process):
        x = states(at)
        tau_per_rho = 2.0 * at.sigma**2 / process.squared_diffusion(at.time)
        expected = tau_per_rho * reverse_drift(x, process, at.time, eta, score.score(x, at.alpha, at.sigma))
        actual = frame.excess_drift(x, score.denoise(x, at.alpha, at.sigma), at, eta)
        assert_close(actual, expected, 1e-11)
        assert float(frame.decay_rate(at, eta).abs().max()) == 0.0
        # a = eta^2 g^2 / 2 per unit of rho
        diffusion = torch.full((3,), 0.5 * eta**2 * process.squared_diffusion(at.time) * tau_per_rho, dtype=F64)
        torch.testing.assert_close(frame.diffusion(at, eta), diffusion, rtol=1e-12, atol=0.0)


@over_processes
@over_etas
@over_frames
def test_drift_is_the_derivative_of_the_map_along_the_flow(process, eta, kind):
    """d/d rho of y(x(rho), rho) by differences of fourth order along x + h dx/dtau, t - h: the affine map's own
    motion is included, and no Ito term arises."""
    score = MixtureScore().bind(DATA, CPU, F64)
    frame = frame_of(kind)
    for at in instants(process):
        x, t = states(at), at.time
        velocity = reverse_drift(x, process, t, eta, score.score(x, at.alpha, at.sigma))
        h = 1e-3 * t

        def encoded(step, x=x, t=t, velocity=velocity, h=h):
            return frame.encode(x + step * h * velocity, marginal(process, t - step * h))

        slope = (8.0 * (encoded(1) - encoded(-1)) - (encoded(2) - encoded(-2))) / (12.0 * h)
        per_rho = slope * (2.0 * at.sigma**2 / process.squared_diffusion(t))
        y = frame.encode(x, at)
        drift = frame.excess_drift(x, score.denoise(x, at.alpha, at.sigma), at, eta) - frame.decay_rate(at, eta) * y
        assert_close(drift, per_rho, 1e-8, scale=float(y.abs().max()))


@over_processes
@over_etas
@over_rotated
def test_the_diffusion_is_that_of_the_mapped_noise(process, eta, kind):
    """a_y = A a_x A^T with A the linear part of encode: whitened, (eta^2 g^2 / 2) S^-1 per unit of tau."""
    frame = frame_of(kind)
    for at in instants(process):
        zero = torch.zeros((1, 3), dtype=F64)
        matrix = (frame.encode(zero + torch.eye(3, dtype=F64), at) - frame.encode(zero, at)).T
        mapped = frame_of("raw").diffusion(at, eta)[0] * matrix @ matrix.T
        assert_close(torch.diag(frame.diffusion(at, eta)), mapped, 1e-10, scale=1e-30)


@over_processes
@over_etas
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@over_rotated
def test_gaussian_data_leave_no_excess(process, eta, dtype, kind):
    """With the Gaussian score the excess vanishes, to the rounding of the two terms that cancel."""
    frame = FRAMES[kind](DATA, CPU, dtype)
    score = GaussianScore().bind(DATA, CPU, dtype)
    for at in instants(process):
        x = states(at).to(dtype)
        denoised = score.denoise(x, at.alpha, at.sigma)
        excess = frame.excess_drift(x, denoised, at, eta)
        # one term alone: what the excess is for the denoiser 0
        alone = frame.excess_drift(x, torch.zeros_like(x), at, eta)
        assert float(excess.abs().max()) <= 20.0 * torch.finfo(dtype).eps * float(alone.abs().max())
        if kind == "whitened":  # so that b_y = -(eta^2 g^2 / 2) S^-1 y per unit tau, that is -kappa y with kappa = a
            assert torch.equal(frame.decay_rate(at, eta), frame.diffusion(at, eta))


# ---- the linear part ----


@over_processes
@over_etas
@over_rotated
def test_decay_is_the_integral_of_its_rate(process, eta, kind):
    frame = frame_of(kind)
    marks = [marginal(process, process.t_max), *instants(process)[::-1], marginal(process, process.t_min)]
    for start, end in [(marks[0], marks[2]), (marks[2], marks[3]), (marks[0], marks[-1])]:
        for axis in range(3):

            def rate(rho, axis=axis):
                return float(frame.decay_rate(marginal(process, process.time_of(-rho)), eta)[axis])

            exponent, _ = integrate.quad(rate, start.rho, end.rho, epsabs=1e-11, epsrel=1e-11, limit=200)
            assert float(frame.decay(start, end, eta)[axis]) == pytest.approx(math.exp(-exponent), rel=1e-8, abs=0.0)


@over_processes
@over_etas
def test_decay_is_the_closed_form_of_the_design(process, eta):
    """E[y_0 | y_T] = (S_0 alpha_T^2 / (S_T alpha_0^2))^(eta^2 / 2) y_T, and a semigroup."""
    frame, variances = frame_of("whitened"), torch.tensor(training_moments(DATA).variances)
    start, middle, end = marginal(process, process.t_max), instants(process)[2], marginal(process, process.t_min)
    s_0 = end.alpha**2 * variances + end.sigma**2
    s_t = start.alpha**2 * variances + start.sigma**2
    expected = (s_0 * start.alpha**2 / (s_t * end.alpha**2)) ** (eta**2 / 2.0)
    torch.testing.assert_close(frame.decay(start, end, eta), expected, rtol=1e-11, atol=0.0)
    chained = frame.decay(start, middle, eta) * frame.decay(middle, end, eta)
    torch.testing.assert_close(chained, frame.decay(start, end, eta), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(frame.decay(middle, middle, eta), torch.ones(3, dtype=F64), rtol=0.0, atol=0.0)


@over_processes
def test_at_eta_one_the_decay_is_gaussian_regression(process):
    """For Gaussian data E[x_s | x_t] regresses with Cov(x_s, x_t) = alpha_s alpha_t lam + alpha_t sigma_s^2 / alpha_s;
    whitened, the correlation of y_s with y_t."""
    frame, lam = frame_of("whitened"), training_moments(DATA).variances
    marks = instants(process)[::-1]  # noisy first
    for start, end in itertools.pairwise(marks):
        covariance = (start.alpha / end.alpha) * (end.alpha**2 * lam + end.sigma**2)
        spreads = [np.sqrt(at.alpha**2 * lam + at.sigma**2) for at in (start, end)]
        correlation = torch.as_tensor(covariance / spreads[0] / spreads[1])
        torch.testing.assert_close(frame.decay(start, end, 1.0), correlation, rtol=1e-11, atol=0.0)


@over_processes
@over_etas
@over_rotated
def test_the_linear_part_keeps_the_law_of_gaussian_data(process, eta, kind):
    """decay^2 scale_start^2 + noise^2 = scale_end^2: whitened coordinates stay standard normal."""
    frame = frame_of(kind)
    marks = [marginal(process, process.t_max), *instants(process)[::-1], marginal(process, process.t_min)]
    for start, end in itertools.pairwise(marks):
        carried = frame.decay(start, end, eta) * frame.scale(start)
        total = carried.square() + frame.noise_scale(start, end, eta).square()
        torch.testing.assert_close(total, frame.scale(end).square(), rtol=1e-13, atol=0.0)
        if eta == 0.0:
            assert float(frame.noise_scale(start, end, eta).abs().max()) == 0.0


@over_processes
@over_etas
@over_rotated
def test_the_spans_diffusion_makes_the_spans_noise(process, eta, kind):
    """Constant a and kappa over the span: 2 a int_0^D e^(-2 kappa r) dr = noise_scale^2, by quadrature; the midpoint's
    a is met to second order in D."""
    frame = frame_of(kind)
    marks = instants(process)[::-1]
    for start, end in itertools.pairwise(marks):
        middle = marginal(process, process.time_of(-0.5 * (start.rho + end.rho)))
        length = end.rho - start.rho
        kappa = (-frame.decay(start, end, eta).log() / length).numpy()
        found = frame.span_diffusion(start, middle, end, eta).numpy()
        for axis in range(3):
            spread, _ = integrate.quad(lambda r, k=kappa[axis]: math.exp(-2.0 * k * r), 0.0, length, epsrel=1e-11)
            exact = float(frame.noise_scale(start, end, eta)[axis]) ** 2
            assert 2.0 * found[axis] * spread == pytest.approx(exact, rel=1e-9, abs=0.0)
        if eta == 0.0:
            assert not found.any()
            continue
        errors = []
        for half in (0.2, 0.1):
            near, far = (marginal(process, process.time_of(-middle.rho + sign * half)) for sign in (1.0, -1.0))
            ratio = frame.span_diffusion(near, middle, far, eta) / frame.diffusion(middle, eta)
            errors.append(float((ratio - 1.0).abs().max()))
        # a quarter at half the length, to terms of fourth order (0.2^2 of it), where there is an error at all
        assert errors[1] <= 0.28 * errors[0] + 1e-9


@pytest.mark.parametrize("eta", [0.5, 1.0])
@over_rotated
def test_single_precision_keeps_the_noise_of_short_spans(eta, kind):
    """1 - decay^2 is 1e-7 and less where the data are far wider than the noise: no rounding of 1 may eat it."""
    process = VarianceExploding(0.0005, 50.0)
    marks = [marginal(process, t) for t in (0.0011, 0.00105, 0.001)]
    single, double = (FRAMES[kind](DATA, CPU, dtype) for dtype in (torch.float32, F64))
    assert float(double.noise_scale(marks[0], marks[-1], eta).min()) ** 2 < 1e-6
    for function in ("noise_scale", "span_diffusion"):
        spans = marks if function == "span_diffusion" else (marks[0], marks[-1])
        exact, found = (getattr(frame, function)(*spans, eta) for frame in (double, single))
        # a dozen operations, and squared ratios that differ by a tenth: some 20 eps
        torch.testing.assert_close(found.double(), exact, rtol=20 * 2**-23, atol=0.0)


@over_processes
@over_etas
def test_raw_noise_is_the_variance_equation_of_isotropic_gaussian_data(process, eta):
    """dP/d rho = 2 A P + 2 a from P = 0, A the linear drift of isotropic Gaussian data, by an ODE solver."""
    frame = frame_of("raw")
    variance = float(np.trace(COVARIANCE)) / 3.0
    assert isinstance(frame, RawFrame)
    assert frame.variance == pytest.approx(variance, rel=1e-6)

    def slope(rho, p):
        at = marginal(process, process.time_of(-rho))
        gain = at.alpha**2 * frame.variance / (at.alpha**2 * frame.variance + at.sigma**2)
        return 2.0 * (at.log_scale_rate + (1.0 + eta**2) * (gain - 1.0)) * p + 2.0 * eta**2 * at.sigma**2

    marks = instants(process)[::-1]
    for start, end in itertools.pairwise(marks):
        solved = integrate.solve_ivp(slope, (start.rho, end.rho), [0.0], rtol=1e-10, atol=1e-14, method="DOP853")
        expected = math.sqrt(solved.y[0, -1])
        actual = frame.noise_scale(start, end, eta)
        torch.testing.assert_close(actual, torch.full((3,), expected, dtype=F64), rtol=1e-7, atol=1e-10)
        assert bool((frame.decay(start, end, eta) == 1.0).all())


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@over_processes
def test_posterior_frame_with_a_direction_without_variance(process, dtype):
    """The flat direction is invisible in distances, yet decoded, and its law is that of the whitened frame exactly."""
    rows = np.concatenate([DATA.train[:, :2], np.full((400, 1), 2.0, np.float32)], axis=1)
    flat = Dataset("flat", rows, rows[:1], rows[:1])
    frame, whitened = PosteriorFrame(flat, CPU, dtype), WhitenedFrame(flat, CPU, dtype)
    eps = torch.finfo(dtype).eps
    marks = [marginal(process, process.t_max), *instants(process)[::-1], marginal(process, process.t_min)]
    for start, end in itertools.pairwise(marks):
        x = states(end).to(dtype)
        y = frame.encode(x, end)
        assert float(y[:, 2].abs().max()) < 1e-5 * float(y[:, :2].abs().max())
        assert_close(frame.decode(y, end), x, 1e2 * eps)
        for eta in ETAS:
            for name in ("decay", "noise_scale"):
                unit = frame.scale(end) / (frame.scale(start) if name == "decay" else 1.0)
                found, expected = (getattr(each, name)(start, end, eta) for each in (frame, whitened))
                torch.testing.assert_close(found / unit, expected, rtol=1e2 * eps, atol=0.0)


def test_rows_that_are_all_the_same_have_no_posterior_frame():
    rows = np.full((50, 3), 2.0, np.float32)
    with pytest.raises(CapabilityError, match="rows that differ"):
        PosteriorFrame(Dataset("one point", rows, rows[:1], rows[:1]), CPU, F64)


def test_whitened_frame_with_a_direction_without_variance():
    """Rows in a plane: the third direction is pure noise, and stays finite down to t_min."""
    rows = np.concatenate([DATA.train[:, :2], np.full((400, 1), 2.0, np.float32)], axis=1)
    flat = Dataset("flat", rows, rows[:1], rows[:1])
    process = PROCESSES["ve"]
    frame = WhitenedFrame(flat, CPU, F64)
    start, end = marginal(process, process.t_max), marginal(process, process.t_min)
    x = torch.as_tensor(rows[:5], dtype=F64) + 0.01
    y = frame.encode(x, end)
    assert bool(torch.isfinite(y).all())
    assert_close(frame.decode(y, end), x, 1e-12)
    # S_0 alpha_T^2 / (S_T alpha_0^2) = (sigma_0 / sigma_T)^2 along it
    assert float(frame.decay(start, end, 1.0)[-1]) == pytest.approx(end.sigma / start.sigma, rel=1e-3)
