"""The times of a suite's samplers, taken in turns, as they are kept in a run folder: timing.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfpbench.errors import ParameterError, StoreError
from kfpbench.runner.paired_times import BatchTimes, Ratio, through
from kfpbench.store.atomic import write_bytes
from kfpbench.store.json_values import dumps, loads
from kfpbench.store.records import check_schema_version

FILE_NAME = "timing.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TimedMember:
    """A cell: its label, the grid's values, and seconds of its fit, what it shares included (NaN without a fit)."""

    cell: str
    label: str
    axes: dict[str, Any]
    setup_seconds: float = math.nan


@dataclass(frozen=True)
class Turn:
    """Samplers that were in memory together and were timed in turns. ``batches`` have their times by cell."""

    cells: tuple[str, ...]
    batches: tuple[BatchTimes, ...]
    started: str
    finished: str

    def tried(self, batch: int, *cells: str) -> bool:
        """Whether all these cells were timed at that batch, or left out of it with a reason."""
        return any(
            times.batch == batch and all(cell in times.seconds or cell in times.left_out for cell in cells)
            for times in self.batches
        )


@dataclass
class TimedSet:
    """Cells that are compared in time: one data set, device and dtype.

    ``anchor`` is the cell that the others are compared with. All were timed in one turn; or ``in_pairs``, for want of
    memory: each in a turn with the anchor alone; or in several turns, as they were asked for. ``members`` are all
    cells, ``left_out`` gives the reason for those that were not timed, both by cell.
    """

    dataset: str
    device: str
    dtype: str
    anchor: str
    members: dict[str, TimedMember] = field(default_factory=dict)
    in_pairs: bool = False
    turns: list[Turn] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def batches(self) -> list[int]:
        """The batch sizes, in the order of the suite."""
        return list(dict.fromkeys(times.batch for turn in self.turns for times in turn.batches))

    def timed(self) -> list[TimedMember]:
        """The cells that have times at some batch size."""
        found = {cell for turn in self.turns for times in turn.batches for cell in times.seconds}
        return [member for cell, member in self.members.items() if cell in found]

    def together(self, batch: int, *cells: str) -> BatchTimes | None:
        """The first turn at that batch in which all these cells were timed; None where there is none."""
        for turn in self.turns:
            for times in turn.batches:
                if times.batch == batch and all(cell in times.seconds for cell in cells):
                    return times
        return None

    def ratio(self, numerator: str, denominator: str, batch: int) -> Ratio:
        """Time of one cell over that of another; where the two were timed apart, over the anchor, or else another cell
        that was timed with both.

        Raises ParameterError where there is none.
        """
        shared = self.together(batch, numerator, denominator)
        if shared is not None:
            return shared.ratio(numerator, denominator)
        for link in (self.anchor, *self.members):
            above, below = self.together(batch, numerator, link), self.together(batch, link, denominator)
            if above is not None and below is not None:
                return through(above.ratio(numerator, link), below.ratio(link, denominator))
        raise ParameterError("not timed together", got=(numerator, denominator, batch))

    def are_compared(self, a: str, b: str, batch: int) -> bool:
        """Whether there is a ``ratio`` of the two cells."""
        return any(
            self.together(batch, a, link) is not None and self.together(batch, link, b) is not None
            for link in (self.anchor, *self.members)
        )


@dataclass
class TimingRecord:
    """All sets of a suite, with the settings (batches, rounds, seconds, anchor) and the machine."""

    settings: dict[str, Any]
    environment: dict[str, Any]
    sets: list[TimedSet] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write timing.json into a run folder, atomically."""
        path = folder / FILE_NAME
        write_bytes(path, (dumps(self.as_plain(), indent=1) + "\n").encode("ascii"))
        return path

    def as_plain(self) -> dict[str, Any]:
        """For the file."""
        return {
            "schema_version": SCHEMA_VERSION,
            "settings": self.settings,
            "environment": self.environment,
            "sets": [_set_as_plain(timed) for timed in self.sets],
        }


def read_timing(folder: Path) -> TimingRecord | None:
    """The times in a run folder; None where there are none. Raises StoreError for a damaged file or a newer schema."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    content = loads(path.read_bytes())
    check_schema_version(content.get("schema_version") if isinstance(content, dict) else None, "timing", str(path))
    try:
        return TimingRecord(content["settings"], content["environment"], [_read_set(one) for one in content["sets"]])
    except (KeyError, TypeError, AttributeError) as error:
        remedy = "Take the times again with --force."
        raise StoreError("the times cannot be read", got=repr(error), where=str(path), remedy=remedy) from error


def _set_as_plain(timed: TimedSet) -> dict[str, Any]:
    return {
        "dataset": timed.dataset,
        "device": timed.device,
        "dtype": timed.dtype,
        "anchor": timed.anchor,
        "in_pairs": timed.in_pairs,
        "members": [vars(member) for member in timed.members.values()],
        "turns": [
            {
                "cells": list(turn.cells),
                "started": turn.started,
                "finished": turn.finished,
                "batches": [times.as_plain() for times in turn.batches],
            }
            for turn in timed.turns
        ],
        "left_out": timed.left_out,
    }


def _read_set(content: Mapping[str, Any]) -> TimedSet:
    members = [TimedMember(**member) for member in content["members"]]
    turns = [
        Turn(
            tuple(turn["cells"]),
            tuple(BatchTimes.from_plain(times) for times in turn["batches"]),
            turn["started"],
            turn["finished"],
        )
        for turn in content["turns"]
    ]
    return TimedSet(
        content["dataset"],
        content["device"],
        content["dtype"],
        content["anchor"],
        {member.cell: member for member in members},
        content["in_pairs"],
        turns,
        dict(content["left_out"]),
    )
