"""What the metrics are called, which come first, and which are costs rather than qualities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kfpbench.report.aggregate import Estimate, Group

ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}
ADVICE = {"lower": "lower is better", "higher": "higher is better", "neither": "neither direction is better"}


@dataclass(frozen=True)
class Column:
    """How one metric is shown: values are multiplied by ``scale`` before they are printed."""

    metric: str
    title: str
    better: str
    scale: float = 1.0

    @property
    def arrow(self) -> str:
        """An arrow towards better, '' for neither."""
        return ARROWS[self.better]

    @property
    def advice(self) -> str:
        """The direction in words."""
        return ADVICE[self.better]


# In order. A cost is lower-is-better whatever the record says of it.
COSTS = (
    Column("seconds_per_image", "ms / image", "lower", 1e3),
    Column("seconds_per_image_batch1", "ms / image, batch 1", "lower", 1e3),
    Column("nfe", "NFE / image", "lower"),
    Column("setup_seconds", "setup, s", "lower"),
    Column("setup_nfe", "setup NFE", "lower"),
    Column("peak_memory_mib", "peak memory, MiB", "lower"),
)
COST_METRICS = frozenset(column.metric for column in COSTS)

# What the figure may have on its x axis, and the words for it.
SPEEDS = {
    "seconds_per_image": "time per image at the stated batch",
    "seconds_per_image_batch1": "time per image at batch 1",
    "nfe": "score evaluations per image",
}

# Diversity first: that is what the method is said to lose. Then distances between distributions.
PREFERRED = (
    "coverage",
    "recall",
    "frechet",
    "energy_distance",
    "sliced_wasserstein",
    "kid",
    "vendi",
    "density",
    "precision",
    "max_eigenvalue_error",
)
_TITLES = {
    "frechet": "Fréchet distance",
    "kid": "KID",
    "energy_distance": "energy distance",
    "sliced_wasserstein": "sliced Wasserstein",
    "frechet_infinity": "Fréchet distance, n to infinity",
    "vendi": "Vendi score",
    "vendi_ratio": "Vendi ratio",
    "data_copying": "data-copying C_T",
    "max_eigenvalue_error": "largest error of 3 modes",
}
_SPECTRUM = re.compile(r"(eigenvalue|residual|eigenvalue_error)_\d+(_re|_im)?")


def quality_columns(groups: Iterable[Group]) -> list[Column]:
    """A column per metric that some group has and that is no cost: the preferred ones first, then by name."""
    better: dict[str, str] = {}
    for group in groups:
        for metric, estimate in group.estimates.items():
            if metric not in COST_METRICS and not _SPECTRUM.fullmatch(metric):
                better.setdefault(metric, estimate.better)
    rank = {metric: position for position, metric in enumerate(PREFERRED)}
    names = sorted(better, key=lambda name: (rank.get(name, len(rank)), name))
    return [Column(name, title_of(name), better[name]) for name in names]


def cost_columns(groups: Sequence[Group]) -> list[Column]:
    """The cost columns that some group has a value for."""
    return [column for column in COSTS if any(column.metric in group.estimates for group in groups)]


def title_of(metric: str) -> str:
    """Name for a column head or an axis."""
    for column in COSTS:
        if column.metric == metric:
            return column.title
    return _TITLES.get(metric, metric.replace("_", " "))


def scaled(estimate: Estimate, scale: float) -> tuple[float, float, float]:
    """Value and interval ends in the column's unit."""
    return estimate.value * scale, estimate.low * scale, estimate.high * scale
