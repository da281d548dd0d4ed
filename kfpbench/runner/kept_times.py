"""What an earlier timing.json holds for the cells of a suite: the turns that were taken under the same conditions."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from kfpbench.runner.paired_times import BatchTimes
from kfpbench.runner.timing_record import TimedSet, TimingRecord, Turn

_MACHINE = ("kfpbench", "git", "torch", "blas", "cpu", "threads", "device", "gpu")
_SETTINGS = ("rounds", "seconds")


def same_conditions(earlier: TimingRecord, now: TimingRecord) -> bool:
    """Whether code, machine, rounds and limit are the same; another anchor or batch size changes no time."""
    return all(earlier.environment.get(name) == now.environment.get(name) for name in _MACHINE) and all(
        earlier.settings.get(name) == now.settings.get(name) for name in _SETTINGS
    )


def carry_over(earlier: TimingRecord, timed: TimedSet, batches: Collection[int], chosen: Collection[str] = ()) -> None:
    """Add to ``timed`` what the earlier record has of its members at these batch sizes: turns, setups, and the reasons
    of cells that were left out, but for the ``chosen`` ones, which are tried again.
    """
    for old in earlier.sets:
        kept = [part for turn in old.turns if (part := _part(turn, timed.members, batches))]
        timed.turns += kept
        timed.in_pairs = timed.in_pairs or (old.in_pairs and bool(kept))
        for cell, member in old.members.items():
            if cell in timed.members and not math.isnan(member.setup_seconds):
                timed.members[cell] = replace(timed.members[cell], setup_seconds=member.setup_seconds)
        for cell, reason in old.left_out.items():
            if cell in timed.members and cell not in chosen:
                timed.left_out[cell] = reason


def without(earlier: TimingRecord, cells: Collection[str], anchors: Collection[str]) -> TimingRecord:
    """The record without the times of these cells. An anchor's stay in the turns that it shares with other cells: the
    ratios of these to it are not in doubt.
    """
    sets = []
    for old in earlier.sets:
        gone = set(cells) - set(anchors)
        parts = [_part(turn, [cell for cell in turn.cells if cell not in gone], old.batches()) for turn in old.turns]
        turns = [turn for turn in parts if turn and not set(turn.cells) <= set(cells)]
        sets.append(replace(old, turns=turns))
    return replace(earlier, sets=sets)


def _part(turn: Turn, cells: Collection[str], batches: Collection[int]) -> Turn | None:
    """The turn with these cells and batch sizes alone; None where nothing is left."""
    kept = tuple(cell for cell in turn.cells if cell in cells)
    parts = [_times_of(times, kept) for times in turn.batches if times.batch in batches]
    found = tuple(times for times in parts if times.seconds or times.left_out)
    return replace(turn, cells=kept, batches=found) if found else None


def _times_of(times: BatchTimes, cells: Collection[str]) -> BatchTimes:
    return replace(
        times,
        seconds={name: values for name, values in times.seconds.items() if name in cells},
        calls={name: count for name, count in times.calls.items() if name in cells},
        warm_up={name: values for name, values in times.warm_up.items() if name in cells},
        left_out={name: reason for name, reason in times.left_out.items() if name in cells},
    )
