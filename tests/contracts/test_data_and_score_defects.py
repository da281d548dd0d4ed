"""The contracts of data sets, processes and scores find the defects that are planted here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kfpbench.data.mixtures import RingMixture
from kfpbench.errors import DataError
from kfpbench.processes.ou import OrnsteinUhlenbeck
from kfpbench.processes.vp import VariancePreserving
from kfpbench.scores.gaussian import BoundGaussianScore, GaussianScore
from kfpbench.testing import report


class SmallRing(RingMixture):
    def __init__(self):
        super().__init__(train=400, validation=60, test=80)

    def altered(self, dataset):
        return dataset

    def load(self):
        return self.altered(super().load())


class Double(SmallRing):
    def altered(self, dataset):
        return replace(dataset, train=dataset.train.astype(np.float64))


class Shares(SmallRing):
    def altered(self, dataset):
        return replace(dataset, test=dataset.train[:80].copy())


class Displaced(SmallRing):
    def altered(self, dataset):
        return replace(dataset, train=dataset.train + np.float32(2.0))


class Wider(SmallRing):
    def altered(self, dataset):
        return replace(dataset, train=dataset.train * np.float32(1.5))


class WrongSize(SmallRing):
    def size(self, reference="validation"):
        return self.train, 2


class OneName(SmallRing):
    def altered(self, dataset):
        return replace(dataset, fingerprint="ring")


class Restless(SmallRing):
    def altered(self, dataset):
        return replace(dataset, train=np.random.default_rng().permutation(dataset.train))


class HalfLabelled(SmallRing):
    def altered(self, dataset):
        return replace(dataset, train_labels=np.zeros(400, dtype=np.int64))


class WrongDrift(OrnsteinUhlenbeck):
    def drift_rate(self, t):
        return -super().drift_rate(t)


class RootOfDiffusion(VariancePreserving):
    def squared_diffusion(self, t):
        return super().squared_diffusion(t) ** 0.5

    def drift_rate(self, t):
        return -0.5 * super().squared_diffusion(t)


class Squared(VariancePreserving):
    def log_ratio(self, t):
        return 2.0 * super().log_ratio(t)


class Late(OrnsteinUhlenbeck):
    def time_of(self, log_ratio):
        return 1.001 * super().time_of(log_ratio)


class FromZero(OrnsteinUhlenbeck):
    def __init__(self):
        super().__init__()
        self.t_min = 0.0


class Altered(GaussianScore):
    bound: type[BoundGaussianScore]

    def bind(self, dataset, device, dtype):
        found = super().bind(dataset, device, dtype)
        return self.bound(found.mean, found.basis, found.variances)


class PredictsNoise(Altered):
    class bound(BoundGaussianScore):
        def _denoise(self, x, alpha, sigma):
            return (x - alpha * super()._denoise(x, alpha, sigma)) / sigma


class ForgetsAlpha(Altered):
    class bound(BoundGaussianScore):
        def _denoise(self, x, alpha, sigma):
            return super()._denoise(x, 1.0, sigma)


class WrongSign(Altered):
    class bound(BoundGaussianScore):
        def score(self, x, alpha, sigma):
            return -super().score(x, alpha, sigma)


class CountsCalls(Altered):
    class bound(BoundGaussianScore):
        def denoise(self, x, alpha, sigma):
            self.evaluations += 1
            return self._denoise(x, alpha, sigma)


class SeesTheBatch(Altered):
    class bound(BoundGaussianScore):
        def _denoise(self, x, alpha, sigma):
            return super()._denoise(x - 0.01 * x.mean(0), alpha, sigma)


class InPlace(Altered):
    class bound(BoundGaussianScore):
        def _denoise(self, x, alpha, sigma):
            return super()._denoise(x.mul_(1.001), alpha, sigma)


DEFECTS = [
    ("datasets", Double, "rows_have_the_declared_shape", "not float32"),
    ("datasets", Shares, "splits_share_no_rows", "test rows are train rows"),
    ("datasets", Displaced, "rows_follow_the_law", "the mean of the train rows"),
    ("datasets", Wider, "rows_follow_the_law", "the variance of the train rows"),
    ("datasets", WrongSize, "size_is_that_of_the_rows", "size('test') is wrong"),
    ("datasets", OneName, "fingerprint_names_the_rows", "same fingerprint"),
    ("datasets", Restless, "loads_alike_every_time", "other train rows"),
    ("datasets", HalfLabelled, "labels_belong_to_rows", "validation has no labels"),
    ("processes", WrongDrift, "drift_rate_belongs_to_alpha", "not the derivative"),
    ("processes", RootOfDiffusion, "diffusion_belongs_to_alpha_and_sigma", "does not belong"),
    ("processes", Squared, "log_ratio_increases", "not log(sigma / alpha)"),
    ("processes", Late, "time_of_inverts_the_log_ratio", "not the inverse"),
    ("processes", FromZero, "has_an_interval_of_time", "starts at 0"),
    ("scores", PredictsNoise, "keeps_rows_that_are_hardly_noised", "does not come back"),
    ("scores", ForgetsAlpha, "depends_on_the_ratio_alone", "x / alpha"),
    ("scores", WrongSign, "score_is_tweedies", "sigma^2"),
    ("scores", CountsCalls, "counts_its_rows", "does not count"),
    ("scores", SeesTheBatch, "rows_do_not_depend_on_the_batch", "depends on its batch"),
    ("scores", InPlace, "denoises_to_finite_rows", "changes x"),
]


@pytest.mark.parametrize(
    ("kind", "component"),
    [
        ("datasets", SmallRing),
        ("processes", VariancePreserving),
        ("processes", OrnsteinUhlenbeck),
        ("scores", GaussianScore),
    ],
)
def test_sound_components_pass(failures, kind, component):
    assert not failures(kind, component)


@pytest.mark.parametrize(
    ("kind", "defect", "check", "words"), DEFECTS, ids=lambda part: getattr(part, "__name__", None)
)
def test_defects_are_found(failures, kind, defect, check, words):
    found = failures(kind, defect)
    assert words in found[check].what


def test_missing_files_are_a_skip_with_their_reason():
    class Missing(SmallRing):
        def load(self):
            raise DataError("no such file")

    outcomes = {finding.check: finding for finding in report("datasets", Missing)}
    assert outcomes["loads_alike_every_time"].outcome == "skipped"
    assert "no such file" in outcomes["loads_alike_every_time"].what
