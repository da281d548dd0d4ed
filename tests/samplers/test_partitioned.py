"""Partitioned fits: the law of a mixture of closed-form Gaussians, exact shares, and parts that do not mix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.data.mixtures import PlanarMixture
from kfpbench.data.moments import training_moments
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.noise import NoiseStream
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import ProblemSize
from kfpbench.samplers.jump import Jump
from kfpbench.samplers.koopman import Koopman
from kfpbench.samplers.partitioned import Partitioned, class_members, cluster_members, restricted
from kfpbench_baselines.gaussian import ClosedFormGaussian
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun

CPU, F64 = torch.device("cpu"), torch.float64
PROCESS = VarianceExploding(0.05, 10.0)
COUNT = 20_000
MEANS = np.array([[-6.0, 0.0], [6.0, 2.0]])
FACTORS = np.array([[[1.0, 0.0], [0.5, 0.4]], [[0.3, 0.0], [0.0, 1.5]]])
SIZES = (500, 1500)


def stream(count: int, seed: int = 5) -> NoiseStream:
    return NoiseStream.of_range(seed, 0, count, 2, CPU, F64)


@pytest.fixture(scope="module")
def pair() -> Dataset:
    """Two Gaussians 12 apart, a quarter and three quarters of the rows, in random order; labels 3 and 7."""
    rng = np.random.default_rng(8)
    rows = np.concatenate(
        [
            mean + rng.standard_normal((size, 2)) @ factor.T
            for mean, factor, size in zip(MEANS, FACTORS, SIZES, strict=True)
        ]
    )
    order = rng.permutation(len(rows))
    labels = np.repeat([3, 7], SIZES)[order]
    law = Mixture(np.array(SIZES) / sum(SIZES), MEANS, FACTORS @ FACTORS.transpose(0, 2, 1))
    rows = rows[order].astype(np.float32)
    return Dataset("pair", rows, rows[:0], rows[:0], train_labels=labels, law=law, fingerprint="pair of Gaussians")


@pytest.mark.parametrize("by", ["class", "kmeans"])
def test_the_law_is_the_mixture_of_the_parts_gaussians(make_problem, pair, by):
    """Each part's rows are N(mu_k, S_k A_k), A_k the closed form's exact response to a start that is not quite p_T.

    The map of the closed form is affine, x_0 = mu + G (x_T - mu), G = (S_0 / S_T)^(1/2): from x_T ~ N(0, sigma_T^2)
    the mean is mu - G mu and the covariance sigma_T^2 G G^T. Allowed: 4 standard errors of a mean and of a variance.
    """
    problem = make_problem(pair, PROCESS)
    fitted = Partitioned("gaussian", by=by, parts=2).fit(problem)
    noise = stream(COUNT)
    rows, part = fitted.sample(noise).numpy(), fitted.part_of(noise).numpy()
    sizes = np.array([told["rows"] for told in fitted.describe()["parts"]])
    assert sorted(sizes) == sorted(SIZES)  # 12 apart: k-means finds them exactly
    for index in range(2):
        share, exact = (part == index).mean(), sizes[index] / sum(SIZES)
        assert abs(share - exact) < 4 * np.sqrt(exact * (1 - exact) / COUNT)
        label = {500: 3, 1500: 7}[int(sizes[index])]
        moments = training_moments(restricted(pair, class_members(pair)[label]))
        gain = (moments.basis * np.sqrt((moments.variances + 0.05**2) / (moments.variances + 100.0))) @ moments.basis.T
        mean, covariance = moments.mean - gain @ moments.mean, 100.0 * gain @ gain.T
        own = rows[part == index]
        deviation = np.sqrt(np.diag(covariance))
        np.testing.assert_array_less(np.abs(own.mean(0) - mean), 4 * deviation / np.sqrt(len(own)))
        error = np.abs(np.cov(own.T) - covariance) / np.outer(deviation, deviation)
        assert error.max() < 4 * np.sqrt(2 / len(own))
    # one Gaussian for all puts rows where there are no data
    whole = ClosedFormGaussian().fit(problem).sample(noise).numpy()
    assert np.mean(np.abs(whole[:, 0]) < 2.0) > 0.1
    assert np.mean(np.abs(rows[:, 0]) < 2.0) < 1e-3


def test_rows_are_those_of_the_parts_samplers(make_problem, pair):
    """Selecting, sampling and writing back moves no row: each is what its part's sampler makes of its own noise."""
    problem = make_problem(pair, PROCESS)
    fitted = Partitioned("gaussian", by="class").fit(problem)
    noise = stream(200)
    rows, part = fitted.sample(noise), fitted.part_of(noise)
    for index, label in enumerate((3, 7)):
        own = restricted(pair, class_members(pair)[label])
        alone = ClosedFormGaussian().fit(replace(problem, dataset=own)).sample(noise)
        torch.testing.assert_close(rows[part == index], alone[part == index], rtol=1e-12, atol=1e-12)
        assert float((rows[part != index] - alone[part != index]).abs().min()) > 0.0


def test_the_part_of_a_row_depends_on_its_index_alone(make_problem, pair):
    fitted = Partitioned("gaussian", by="class").fit(make_problem(pair, PROCESS))
    part = fitted.part_of(stream(50))
    shuffled = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fitted.part_of(stream(50).select(shuffled)), part[shuffled])
    assert not torch.equal(fitted.part_of(stream(50, seed=6)), part)


def test_parts_cover_the_rows_once(pair):
    for members in (list(class_members(pair).values()), cluster_members(pair, 7, seed=2**63)):
        joined = np.concatenate(members)
        assert np.array_equal(np.sort(joined), np.arange(len(pair.train)))
    again = cluster_members(pair, 7, seed=2**63)
    assert all(np.array_equal(one, other) for one, other in zip(members, again, strict=True))


def test_parts_of_equal_size_do_not_share_their_moments(pair):
    """Moments are kept by fingerprint and number of rows: two parts of 400 rows must not be taken for one another."""
    halves = [restricted(pair, rows[:400]) for rows in class_members(pair).values()]
    assert len({half.fingerprint for half in halves} | {pair.fingerprint}) == 3
    means = [training_moments(half).mean for half in halves]
    np.testing.assert_allclose(means, [half.train.mean(0) for half in halves], atol=1e-5)
    assert restricted(replace(pair, fingerprint=""), np.arange(5)).fingerprint == ""


def test_a_part_that_is_parted_again_chooses_anew(make_problem, pair):
    """Classes, each parted in two clusters: within a class, shares are those of its own clusters.

    Planted defect: with the outer choice's number again, a class would take its rows from one end of its own list.
    """
    nested = Partitioned(Partitioned("gaussian", by="kmeans", parts=2), by="class").fit(make_problem(pair, PROCESS))
    noise = stream(COUNT)
    outer = nested.part_of(noise)
    for index, inner in enumerate(nested.parts):
        own = noise.select(outer == index)
        chosen = inner.part_of(own)
        exact = torch.diff(inner.ends, prepend=inner.ends.new_zeros(1)).double() / int(inner.ends[-1])
        shares = torch.bincount(chosen, minlength=2).double() / own.size
        assert float((shares - exact).abs().max()) < 4 * float((exact[0] * exact[1] / own.size).sqrt())
        again = replace(own, first_draw=0).uniform_integers((1 << 20) + len(pair.train), int(inner.ends[-1]))
        repeated = torch.bincount(torch.searchsorted(inner.ends, again, right=True), minlength=2).double() / own.size
        assert float((repeated - exact).abs().max()) > 0.1


class ClassScore:
    """A score with classes that notes which are asked for; its denoiser returns the class's mean."""

    def __init__(self) -> None:
        self.evaluations = 0
        self.asked: list[int] = []

    def denoise(self, x, alpha, sigma):
        raise AssertionError("the common score was asked")

    def score(self, x, alpha, sigma):
        raise AssertionError("the common score was asked")

    def of_class(self, label):
        outer = self
        outer.asked.append(label)

        class One:
            evaluations = 0

            def denoise(self, x, alpha, sigma):
                outer.evaluations += len(x)
                return torch.as_tensor(MEANS[[3, 7].index(label)]).expand_as(x)

            def score(self, x, alpha, sigma):
                return (alpha * self.denoise(x, alpha, sigma) - x) / sigma**2

        return One()


def test_classes_get_their_own_score(make_problem, pair):
    """With E[x_0 | x, class] = the class's mean, the flow ends there: x_0 - mu = (sigma_0 / sigma_T) (x_T - mu)."""
    score = ClassScore()
    problem = replace(make_problem(pair, PROCESS), score=score)
    fitted = Partitioned(ProbabilityFlowHeun(steps=40), by="class").fit(problem)
    assert score.asked == [3, 7]
    noise = stream(100)
    rows, part = fitted.sample(noise), fitted.part_of(noise)
    assert float((rows - torch.as_tensor(MEANS)[part]).norm(dim=1).max()) < 0.5
    assert score.evaluations > 0


def test_clusters_get_the_common_score(make_problem, pair):
    problem = replace(make_problem(pair, PROCESS), score=ClassScore())
    fitted = Partitioned(ProbabilityFlowHeun(steps=2), by="kmeans", parts=2).fit(problem)
    with pytest.raises(AssertionError, match="common score"):
        fitted.sample(stream(5))


def test_a_fit_a_part_counts_its_evaluations(make_problem, pair):
    problem = make_problem(pair, PROCESS)
    sampler = Partitioned(Koopman(operator=GeneratorOptions(segments=3, points=40)), parts=2)
    fitted = sampler.fit(problem)
    assert problem.score.evaluations == 2 * 3 * 40
    assert torch.isfinite(fitted.sample(stream(60))).all()
    assert problem.score.evaluations == 2 * 3 * 40
    assert [len(told["sampler"]["segments"]) for told in fitted.describe()["parts"]] == [3, 3]


def test_as_a_start_it_is_better_than_one_gaussian(make_problem, pair):
    """Jump at sigma* = 2, where two modes 12 apart are separate: from one Gaussian, rows start between them."""
    problem = make_problem(pair, PROCESS)
    noise = stream(2000)
    means = torch.as_tensor(MEANS)
    lost, shares = [], []
    for start in (Partitioned("gaussian", by="class"), ClosedFormGaussian()):
        rows = Jump(start, ProbabilityFlowHeun(steps=8), sigma_star=2.0).fit(problem).sample(noise)
        offset = torch.cdist(rows, means)
        lost.append(float((offset.amin(1) > 5.0).double().mean()))
        shares.append(float((offset.argmin(1) == 0).double().mean()))
    assert lost[0] < 0.01
    # a quarter of the rows belong to mode 0: within 4 standard errors from the parts, off by far more from one Gaussian
    assert abs(shares[0] - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)
    assert abs(shares[1] - 0.25) > 0.04


def test_rows_without_labels_have_no_classes(make_problem):
    data = PlanarMixture(train=100, validation=10, test=10).load()
    with pytest.raises(CapabilityError, match="labels"):
        Partitioned(by="class").fit(make_problem(data, PROCESS))


def test_more_parts_than_rows(make_problem):
    data = PlanarMixture(train=20, validation=10, test=10).load()
    with pytest.raises(ParameterError, match="training rows"):
        Partitioned(parts=21).fit(make_problem(data, PROCESS))


@pytest.mark.parametrize(("keywords", "match"), [({"parts": 0}, "parts"), ({"by": "colour"}, "part the rows")])
def test_impossible_parameters(keywords, match):
    with pytest.raises(ParameterError, match=match):
        Partitioned(**keywords)


def test_memory_grows_with_the_parts():
    size = ProblemSize(50_000, 3072, 100, 4)
    one, ten = (Partitioned("gaussian", parts=parts).working_memory(size) for parts in (1, 10))
    # nine more matrices and batches, not nine more sets of moments
    assert 9 * 4 * 3072**2 <= ten - one < 9 * 2 * 4 * 3072**2
