"""The mean of a metric over repeats with other seeds, with a 95 % interval that stays within the metric's range."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kfpbench.statistics.mean_interval import mean_interval
from kfpbench.statistics.observation import Observation

SHARE = (0.0, 1.0)
# What the runner measures of every cell: times, memory, evaluations of the score.
_COSTS = frozenset(
    {"seconds_per_image", "seconds_per_image_batch1", "setup_seconds", "peak_memory_mib", "nfe", "setup_nfe"}
)


def repeats_interval(repeats: Sequence[Observation]) -> tuple[float, float, float]:
    """Mean, low and high of two or more finite repeats of one metric.

    Student's interval between the repeats (``mean_interval``), with what a metric's values make of it:

    - A share of n rows moves in steps of 1/n, so that repeats may agree, as shares near 0 or 1 do, and a spread of zero
      is no proof that there is no error. The interval is widened, where needed, to hold the exact binomial one of
      Clopper and Pearson of all repeats' rows together. Rows with unequal probabilities do not break it: their count
      strays less than a binomial one of the same mean (Hoeffding, Annals of Mathematical Statistics 27:713, 1956).
    - Other values that agree exactly although each has an interval of its own (a difference of two shares) are known
      no better than one of them: the interval holds all of theirs.
    - It is cut to the metric's range (``range_of``): what no value of the metric can be, its expectation cannot be
      either, so the cut leaves out nothing that is true.

    Values without an interval of their own that agree (evaluations per image) are exact: low = high. Raises
    ParameterError for fewer than two repeats, or one that is not finite.
    """
    from kfpbench.metrics.intervals import clopper_pearson

    mean, low, high = mean_interval([one.value for one in repeats])
    least, most = limits = range_of(repeats[0])
    rows = sum(one.n or 0 for one in repeats)
    if all(one.fraction for one in repeats) and limits == SHARE and rows:
        exact_low, exact_high = clopper_pearson(mean, rows)
        low, high = min(low, exact_low), max(high, exact_high)
    elif low == high and all(one.has_interval for one in repeats):
        low, high = min(one.low for one in repeats), max(one.high for one in repeats)
    return mean, min(max(low, least), mean), max(min(high, most), mean)


def range_of(one: Observation) -> tuple[float, float]:
    """The least and the largest value that the metric can take, -inf and inf where nothing says so.

    The metric's own word (``details["range"]``); for what the runner measures itself (times, memory, evaluations) 0 and
    above; for a share of n rows in a record that says nothing, [0, 1].
    """
    if one.limits is not None:
        return one.limits
    if one.metric in _COSTS:
        return 0.0, math.inf
    return SHARE if one.fraction and one.value >= 0 else (-math.inf, math.inf)
