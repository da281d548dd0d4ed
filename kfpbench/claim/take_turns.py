"""Time the claim's samplers in turns at batch 1, after their cells have run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfpbench.claim.card import build_card
from kfpbench.claim.evidence import LATENCY
from kfpbench.claim.interleaved import InterleavedRatios, read_times, write_times
from kfpbench.store.records import CellRecord
from kfpbench.suite.cell import Cell

if TYPE_CHECKING:
    from kfpbench.runner.interleaved_timing import BatchTimes

_log = logging.getLogger(__name__)

_SECONDS = 30.0  # of timed rounds of one pair; a slow sampler has at least three rounds
_LONGEST_VISIT = 15.0  # a sampler of more seconds an image is not timed anew: eight calls of it or more would be needed


def take_turns(
    manifest: Mapping[str, Any],
    cells: Sequence[Cell],
    records: Sequence[CellRecord],
    folder: Path,
    *,
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> None:
    """Write the times of the pairs of samplers that the card compares, where the folder does not have them yet.

    ``force`` takes all of them anew. ``say`` is told what begins.

    Every pair is timed by itself: a reference of 1000 steps between the two visits of two fast samplers would let the
    machine drift. The samplers are fitted anew. What goes wrong is noted, and the card then goes by the cells' own
    times: it is the times of a finished run that are to be improved, not its result.
    """
    card = build_card(manifest, records)
    if card is None:
        return
    ratios = InterleavedRatios() if force else read_times(folder)
    by_id = {cell.id: cell for cell in cells}
    latency = {record.cell: _latency(record) for record in records}
    missing = [
        pair
        for pair in dict.fromkeys(_pairs(card.answers))
        if set(pair) <= by_id.keys() and not ratios.has(*pair) and max(latency[one] for one in pair) <= _LONGEST_VISIT
    ]
    if not missing:
        return
    say = say or _log.info
    note = ""
    taken = list(ratios.times)
    try:
        for times in _time([[by_id[one] for one in pair] for pair in missing], say):
            taken.append(times)
            write_times(InterleavedRatios(tuple(taken)), folder)  # what is taken stays, should the next be interrupted
    except (Exception, SystemExit) as error:  # a sampler may fail in any way, plugins above all
        note = f"the samplers could not be timed in turns: {type(error).__name__}: {error}"
    write_times(InterleavedRatios(tuple(taken), note), folder)


def _pairs(answers: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """The ids of the cells that the parts on speed compare, the slower sampler first."""
    for answer in answers:
        for part in answer.parts:
            for role in ("reference", "few_step"):
                if role in part.cells and part.key.endswith("_speed"):
                    yield part.cells[role], part.cells["spectral"]


def _latency(record: CellRecord) -> float:
    found = [entry["value"] for entry in record.measurements if entry["metric"] == LATENCY]
    return float(found[0]) if found else float("inf")


def _time(pairs: Sequence[Sequence[Cell]], say: Callable[[str], None]) -> Iterator[BatchTimes]:
    from kfpbench.runner.interleaved_timing import interleaved_times
    from kfpbench.runner.materials import Materials
    from kfpbench.suite.components import create

    materials = Materials()
    problems = {cell.id: materials.problem(cell) for pair in pairs for cell in pair}
    say(f"claim: fitting {len(problems)} samplers")
    fitted = {
        cell.id: create("samplers", cell.spec["sampler"]).fit(problems[cell.id])
        for cell in {cell.id: cell for pair in pairs for cell in pair}.values()
    }
    for number, pair in enumerate(pairs, start=1):
        ids = [cell.id for cell in pair]
        say(f"claim: timing in turns, pair {number} of {len(pairs)}: {' and '.join(cell.label for cell in pair)}")
        yield from interleaved_times(
            {one: fitted[one] for one in ids}, {one: problems[one] for one in ids}, [1], seconds=_SECONDS
        )
