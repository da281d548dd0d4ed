"""The times that a run took of the claim's samplers in turns, and their file in the run folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfpbench.claim.evidence import Sampled
from kfpbench.errors import StoreError
from kfpbench.store.atomic import write_bytes
from kfpbench.store.json_values import dumps, loads

if TYPE_CHECKING:
    from kfpbench.runner.interleaved_timing import BatchTimes

FILE_NAME = "claim_times.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TurnRatio:
    """A ratio of times taken in turns: value and ends of its 95 % interval, over ``rounds`` rounds."""

    interval: tuple[float, float, float]
    rounds: int
    how: str


@dataclass(frozen=True)
class InterleavedRatios:
    """Times at batch 1, samplers by the id of their cell; ``note`` says why there are none where some were wanted."""

    times: tuple[BatchTimes, ...] = ()
    note: str = ""

    def find(self, slow: Sampled, fast: Sampled) -> TurnRatio | None:
        """The time of one sampler over that of another; None where they were not timed together."""
        timed = self._of(slow, fast)
        if timed is None:
            return None
        ratio = timed.ratio(slow.cell, fast.cell)
        if not (math.isfinite(ratio.low) and math.isfinite(ratio.high)):
            return None
        how = f"taken in turns, {ratio.rounds} rounds: {ratio.method}"
        return TurnRatio((ratio.value, ratio.low, ratio.high), ratio.rounds, how)

    def has(self, *cells: str) -> bool:
        """Whether the cells of these ids were timed together."""
        return any(set(cells) <= timed.seconds.keys() for timed in self.times)

    def load(self, slow: Sampled, fast: Sampled) -> tuple[str, ...]:
        """The note on a machine that was loaded while the two were timed."""
        timed = self._of(slow, fast)
        return (timed.load.note,) if timed is not None and timed.load.note else ()

    def _of(self, slow: Sampled, fast: Sampled) -> BatchTimes | None:
        return next((timed for timed in self.times if {slow.cell, fast.cell} <= timed.seconds.keys()), None)


def write_times(ratios: InterleavedRatios, folder: Path) -> None:
    """Write the file, atomically."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "times": [timed.as_plain() for timed in ratios.times],
        "note": ratios.note,
    }
    write_bytes(folder / FILE_NAME, (dumps(content, indent=2) + "\n").encode("ascii"))


def read_times(folder: Path) -> InterleavedRatios:
    """What ``write_times`` wrote; nothing where there is no file. Raises StoreError for a file of another schema."""
    path = folder / FILE_NAME
    if not path.is_file():
        return InterleavedRatios()
    from kfpbench.runner.interleaved_timing import BatchTimes

    content = loads(path.read_bytes())
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise StoreError(
            "the file of the claim's times has another schema", got=version, allowed=SCHEMA_VERSION, where=str(path)
        )
    times: Sequence[BatchTimes] = [BatchTimes.from_plain(one) for one in content["times"]]
    return InterleavedRatios(tuple(times), str(content.get("note") or ""))
