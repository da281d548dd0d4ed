"""What fails a comparison in continuous integration: ``--fail-on regression=5%,frechet=10%,missing``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kfpbench.compare.changes import COUNTS, EQUAL, Change
from kfpbench.errors import ParameterError

REGRESSION, MISSING = "regression", "missing"
ERROR = 0.05  # of all claims of one gate together
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*%")


@dataclass(frozen=True)
class Limits:
    """By what share each named metric may get worse, and all others by ``regression`` (None: they are not judged).

    ``missing``: a cell of A without a counterpart in B, or with one that cannot be compared in any metric, fails too.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    regression: float | None = None
    missing: bool = False

    def of(self, metric: str) -> float | None:
        """The limit of a metric; None when it is not judged."""
        return self.metrics.get(metric, self.regression)


@dataclass(frozen=True)
class Failure:
    """One thing that fails the gate; ``metric`` is '' for a cell as a whole."""

    label: str
    metric: str
    text: str


def read_limits(texts: Sequence[str]) -> Limits | None:
    """The limits of all ``--fail-on`` texts, which may be lists with commas; None when there are none.

    Raises ParameterError for what is none of ``regression=5%``, ``METRIC=5%`` and ``missing``, and for a name twice.
    """
    if not texts:
        return None
    metrics: dict[str, float] = {}
    missing = False
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, equals, share = (piece.strip() for piece in part.partition("="))
        if name == MISSING and not equals:
            missing = True
            continue
        found = _SHARE.fullmatch(share)
        if not name or found is None:
            raise ParameterError(
                "not a limit",
                got=part,
                allowed="regression=5%, METRIC=5% or missing, with commas between them",
                remedy="A share is written with its percent sign." if name else None,
                where="--fail-on",
            )
        if name in metrics:
            raise ParameterError("the limit is given twice", got=name, where="--fail-on")
        metrics[name] = float(found.group(1)) / 100
    regression = metrics.pop(REGRESSION, None)
    return Limits(metrics, regression, missing)


def judge(
    limits: Limits, changes: Sequence[Change], lost: Sequence[tuple[str, str]], missing: Sequence[str]
) -> list[Failure]:
    """What fails, in the order of the changes.

    A metric fails when it is worse in B by more than its limit (a share of A's value), and surely so: its interval
    leaves 0 out, and Holm's p over all changes of the comparison is below 0.05. So a comparison without any true change
    fails with probability at most 5 %, however many cells and metrics it has. A count (score evaluations) is exact. A
    metric that is named and has no interval is judged by its value alone. A metric without a better direction
    fails when it changes either way, but only where it is named.

    ``lost``: label and reason of the cells that ended well in A and have no result in B; they fail with any limit but
    a bare ``missing``. ``missing``: labels of the cells of A that were not compared at all. Raises ParameterError when
    there was nothing to judge, or for a limit on a metric that was not compared: such a gate would always pass.
    """
    compared = [change for change in changes if change.difference is not None]
    for name in limits.metrics:
        if not any(change.metric == name for change in compared):
            raise ParameterError(
                "no cell was compared in that metric: the limit would never fail",
                got=name,
                allowed=", ".join(dict.fromkeys(change.metric for change in compared)) or "none was compared",
                where="--fail-on",
            )
    judged = limits.regression is not None or bool(limits.metrics)
    if judged and not compared and not lost:
        raise ParameterError(
            "no cell of the two runs was compared: the gate would never fail",
            remedy="See the reasons in the comparison; a gate needs two runs of one suite.",
            where="--fail-on",
        )
    failures = [Failure(label, "", f"has a result in A and none in B: {why}") for label, why in lost if judged]
    if limits.missing:
        failures += [Failure(label, "", "is in A and was not compared with any cell of B") for label in missing]
    for change in compared:
        limit = limits.of(change.metric)
        if limit is not None and _fails(change, limit, change.metric in limits.metrics):
            failures.append(Failure(change.label, change.metric, _words(change, limit)))
    return failures


def _fails(change: Change, limit: float, named: bool) -> bool:
    if not change.loss > limit or change.verdict == EQUAL or (change.better == "neither" and not named):
        return False
    if change.metric in COUNTS:
        return True
    if math.isnan(change.adjusted_p):
        return named
    assert change.difference is not None  # only compared ones come here
    return change.difference.told_apart and change.adjusted_p < ERROR


def _words(change: Change, limit: float) -> str:
    size = f"{change.loss:.3g} times A's value" if change.loss > 10 else f"{100 * change.loss:.3g} %"
    how = "different" if change.better == "neither" else "worse"
    certain = "" if math.isnan(change.adjusted_p) else f", Holm's p {change.adjusted_p:.2g}"
    return f"{change.a:.5g} to {change.b:.5g}: {how} by {size}, limit {100 * limit:g} %{certain}"
