"""The 95 % intervals of every metric, on simulated data: how often do they hold the truth?

The truth is the metric's expectation at this n, estimated by the mean over the repeats (known to a fourteenth of one
standard deviation); for kid, energy_distance and frechet_infinity it is the population value, from the laws' moments
where there is a formula. Two laws: Gaussians in 10 dimensions that differ in mean and scale, and mixtures of 5
Gaussians in 8 dimensions that differ in weights and spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from kfpbench.data.dataset import Dataset, Mixture
from kfpbench.metrics.frechet import frechet_distance, frechet_gaussian
from kfpbench.protocols import MetricInput
from kfpbench.registry import available, find

RUNS = 200
WITHOUT_INTERVAL = {"exact_w2"}  # looks at the sampler itself: no sampling error
KEYWORDS = {  # by law and metric, what is not the default; rows are their own features
    ("mixtures", "vendi"): {"kernel": "rbf"},
    ("gaussians", "class_entropy"): {"labelled_rows": 500},
    ("mixtures", "class_entropy"): {"labelled_rows": 500},
}
FEW_ROWS = 5  # a fraction that expects fewer has an exact binomial interval, which covers more than 95 %, by much
NAMES = sorted(set(available("metrics")) - WITHOUT_INTERVAL)


@dataclass(frozen=True)
class Simulation:
    """Samples of one law against a reference of another, n rows each; training rows of the reference's law."""

    n: int
    samples: Mixture
    reference: Mixture

    def dataset(self) -> Dataset:
        rng = np.random.default_rng(99)
        train = self.reference.sample(1000, rng)
        cuts = np.quantile(train[:, 0], [0.25, 0.5, 0.75])  # four classes by the first coordinate
        labels = np.searchsorted(cuts, train[:, 0]).astype(np.int64)
        return Dataset("simulated", train, train[:0], train[:0], train_labels=labels, fingerprint=f"sim {self.n}")

    def draw(self, dataset: Dataset, run: int) -> MetricInput:
        rng = np.random.default_rng([run, self.n])
        samples, reference = self.samples.sample(self.n, rng), self.reference.sample(self.n, rng)
        return MetricInput(samples, reference, dataset.train, dataset, "test", run)


def gaussians() -> Simulation:
    d = 10
    shift, scales = np.zeros(d), np.linspace(0.9, 1.3, d)
    shift[:2] = 0.4
    one = np.ones(1)
    return Simulation(
        400, Mixture(one, shift[None], np.diag(scales**2)[None]), Mixture(one, np.zeros((1, d)), np.eye(d)[None])
    )


def mixtures() -> Simulation:
    d, modes = 8, 5
    means = 2.0 * np.random.default_rng(5).standard_normal((modes, d))
    weights = np.array([0.3, 0.3, 0.2, 0.1, 0.1])
    wide, narrow = (np.tile(scale * np.eye(d), (modes, 1, 1)) for scale in (1.0, 0.8))
    return Simulation(300, Mixture(weights, means, narrow), Mixture(np.full(modes, 0.2), means, wide))


LAWS = {"gaussians": gaussians, "mixtures": mixtures}


def moments(law: Mixture) -> tuple[NDArray, NDArray, NDArray]:
    """First three raw moments of a mixture: (d,), (d, d), (d, d, d)."""
    first = law.weights @ law.means
    outer = np.einsum("ki,kj->kij", law.means, law.means)
    second = np.einsum("k,kij->ij", law.weights, law.covariances + outer)
    mixed = np.einsum("k,ki,kjl->ijl", law.weights, law.means, law.covariances)
    third = np.einsum("k,ki,kj,kl->ijl", law.weights, law.means, law.means, law.means)
    return first, second, third + mixed + mixed.transpose(1, 0, 2) + mixed.transpose(1, 2, 0)


def population_kid(p: Mixture, q: Mixture) -> float:
    """E k(x,x') + E k(y,y') - 2 E k(x,y) of k = (x.y / d + 1)^3, with E (x.y)^j = <m_j(x), m_j(y)>."""
    d = p.means.shape[1]
    gaps = [a - b for a, b in zip(moments(p), moments(q), strict=True)]
    return sum(factor * float((gap * gap).sum()) for factor, gap in zip((3 / d, 3 / d**2, 1 / d**3), gaps, strict=True))


def population_frechet(p: Mixture, q: Mixture) -> float:
    (m1, s1, _), (m2, s2, _) = moments(p), moments(q)
    return frechet_gaussian(m1, s1 - np.outer(m1, m1), m2, s2 - np.outer(m2, m2))


POPULATION = {"kid": population_kid, "frechet_infinity": population_frechet}


def simulate(law: str, name: str, runs: int) -> dict[str, NDArray]:
    """(low, value, high) of each output over the runs, (runs, 3)."""
    simulation = LAWS[law]()
    metric = find("metrics", name).load()(features="identity", **KEYWORDS.get((law, name), {}))
    dataset = simulation.dataset()
    found = [metric.evaluate(simulation.draw(dataset, run)) for run in range(runs)]
    return {
        output: np.array([[row[i].ci_low, row[i].value, row[i].ci_high] for row in found])
        for i, output in enumerate(metric.outputs)
    }


def truth_of(law: str, output: str, rows: NDArray) -> float:
    """The population value where there is a formula, else the mean over the runs."""
    if output in POPULATION:
        simulation = LAWS[law]()
        return POPULATION[output](simulation.samples, simulation.reference)
    return float(rows[:, 1].mean())


def coverage(rows: NDArray, truth: float) -> float:
    """Share of the intervals that hold the truth."""
    return float(((rows[:, 0] <= truth) & (truth <= rows[:, 2])).mean())


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", NAMES)
def test_intervals_cover_in_90_to_99_percent(name, law):
    for output, rows in simulate(law, name, RUNS).items():
        truth = truth_of(law, output, rows)
        share = coverage(rows, truth)
        print(f"{law} {output}: {share:.3f}")
        few = output.endswith("_fraction") and truth * LAWS[law]().n < FEW_ROWS
        most = 1.0 if few else 0.99
        assert 0.90 <= share <= most, f"{output} on {law}: {share:.1%} of {RUNS}"


@pytest.mark.parametrize("name", ["pairwise_diversity", "density_coverage"])
def test_a_planted_short_interval_is_found(name):
    """At 40 runs fewer than ``least`` covering intervals have probability 1e-5 at 95 %."""
    runs = 40
    least = binom.ppf(1e-5, runs, 0.95) / runs
    for output, rows in simulate("mixtures", name, runs).items():
        truth = truth_of("mixtures", output, rows)
        assert coverage(rows, truth) >= least, output
        planted = rows[:, 1:2] + (rows - rows[:, 1:2]) / 4.0  # four times too short: holds the truth in 40 %
        assert coverage(planted, truth) < least, output


def test_population_values_are_those_of_many_rows():
    """The formulas against one large draw: kid by its moments up to the third, Frechet by the first two."""
    simulation = mixtures()
    rng = np.random.default_rng(7)
    x, y = (law.sample(200_000, rng).astype(np.float64) for law in (simulation.samples, simulation.reference))
    for law, rows in ((simulation.samples, x), (simulation.reference, y)):
        first, second, third = moments(law)
        assert first == pytest.approx(rows.mean(axis=0), abs=0.03)
        assert second == pytest.approx(rows.T @ rows / len(rows), abs=0.2)
        assert third[0, 1, 2] == pytest.approx((rows[:, 0] * rows[:, 1] * rows[:, 2]).mean(), abs=0.5)
        assert third[3, 3, 4] == pytest.approx((rows[:, 3] ** 2 * rows[:, 4]).mean(), abs=0.5)
    assert population_frechet(simulation.samples, simulation.reference) == pytest.approx(
        frechet_distance(x, y), rel=0.05
    )
