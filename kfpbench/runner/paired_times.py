"""What was timed in turns: times by sampler and round, and the ratios of two samplers with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfpbench.errors import ParameterError
from kfpbench.runner.machine_load import MachineLoad
from kfpbench.runner.timing import SeriesInterval, TimingSummary, series_interval, summarise_times


@dataclass(frozen=True)
class Ratio:
    """How many times as long one sampler takes as another, with its 95 % interval (NaN for a single round)."""

    value: float
    low: float
    high: float
    rounds: int
    method: str
    note: str = ""


@dataclass(frozen=True)
class BatchTimes:
    """Times at one batch size. ``seconds`` of a whole batch by sampler, one value a round, in the order of the rounds.

    ``calls`` is the number of calls in a visit, ``warm_up`` the seconds of the untimed calls before (the first may have
    compiled), ``load`` what other programs took meanwhile, ``note`` why there are fewer rounds than were asked for,
    ``left_out`` why a sampler has no times at this batch size.
    """

    batch: int
    seconds: dict[str, tuple[float, ...]]
    calls: dict[str, int]
    warm_up: dict[str, tuple[float, ...]]
    load: MachineLoad
    note: str = ""
    left_out: dict[str, str] = field(default_factory=dict)

    def per_image(self, name: str) -> TimingSummary:
        """Seconds per image of one sampler, over the rounds."""
        return summarise_times([seconds / self.batch for seconds in self._of(name)])

    def ratio(self, numerator: str, denominator: str) -> Ratio:
        """Time of one sampler over that of another, paired by round. The median and the interval's ends of
        ratio(a, b) are one over those of ratio(b, a).
        """
        above, below = self._of(numerator), self._of(denominator)
        logs = [math.log(a / b) for a, b in zip(above, below, strict=True)]
        return _ratio(series_interval(logs))

    def saved_per_image(self, name: str, baseline: str) -> SeriesInterval:
        """Seconds per image that ``name`` saves against ``baseline``, paired by round; negative when it is slower."""
        slow, fast = self._of(baseline), self._of(name)
        return series_interval([(b - a) / self.batch for a, b in zip(fast, slow, strict=True)])

    def _of(self, name: str) -> tuple[float, ...]:
        if name not in self.seconds:
            raise ParameterError("this sampler was not timed", got=name, allowed=", ".join(self.seconds))
        return self.seconds[name]

    def as_plain(self) -> dict[str, Any]:
        """For a record."""
        return {
            "batch": self.batch,
            "seconds": {name: list(values) for name, values in self.seconds.items()},
            "calls": dict(self.calls),
            "warm_up": {name: list(values) for name, values in self.warm_up.items()},
            "load": self.load.as_plain(),
            "note": self.note,
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> BatchTimes:
        """The times that ``as_plain`` wrote."""
        return cls(
            content["batch"],
            {name: tuple(values) for name, values in content["seconds"].items()},
            dict(content["calls"]),
            {name: tuple(values) for name, values in content["warm_up"].items()},
            MachineLoad.from_plain(content["load"]),
            content["note"],
            dict(content["left_out"]),
        )


def through(first: Ratio, second: Ratio) -> Ratio:
    """ratio(a, c) out of ratio(a, b) and ratio(b, c) that were timed apart: the product, and on the logarithms the
    root of the sum of the squared distances to the ends of the two intervals.
    """
    value = first.value * second.value
    down = math.hypot(math.log(first.value / first.low), math.log(second.value / second.low))
    up = math.hypot(math.log(first.high / first.value), math.log(second.high / second.value))
    method = "two ratios to a common anchor, timed apart"
    note = "; ".join(part for part in (first.note, second.note) if part)
    return Ratio(value, value * math.exp(-down), value * math.exp(up), min(first.rounds, second.rounds), method, note)


def _ratio(interval: SeriesInterval) -> Ratio:
    """The ratio of an interval of its logarithm, of which there are as many values as rounds."""
    return Ratio(
        math.exp(interval.centre),
        math.exp(interval.low),
        math.exp(interval.high),
        interval.n,
        interval.method,
        interval.note,
    )
