"""Time the samplers of a suite in turns: fit those that are compared, and write their times into the run folder."""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kfpbench.data.shared_cost import billed
from kfpbench.errors import CapabilityError
from kfpbench.protocols import FittedSampler, Problem
from kfpbench.runner.budget import check_memory, time_budget
from kfpbench.runner.environment import describe_environment
from kfpbench.runner.interleaved_timing import interleaved_times, try_sampler
from kfpbench.runner.materials import Materials, choose_device, predict_memory, wake
from kfpbench.runner.memory import available_bytes
from kfpbench.runner.timing import Stopwatch
from kfpbench.runner.timing_record import TimedMember, TimedSet, TimingRecord, Turn, read_timing
from kfpbench.store.records import utc_now
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create
from kfpbench.suite.load import Suite
from kfpbench.suite.schema import Timing
from kfpbench.suite.select import select_cells

_SHARE = 0.8  # of the free memory, which predictions may fill
_GIB = 2**30


@dataclass(frozen=True)
class _Fitted:
    sampler: FittedSampler
    problem: Problem
    member: TimedMember


def time_suite(
    suite: Suite,
    folder: Path,
    *,
    select: Sequence[str] = (),
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> TimingRecord:
    """Time the sampler cells of a suite in turns, as its ``timing`` block says, and return what timing.json then holds.

    Cells are compared within one data set, device and dtype; of repeats the first is timed. Samplers are fitted again,
    and held together while their predicted memory fits into 80 % of what is free; otherwise each is timed with the
    anchor alone. Turns that timing.json has already, from the same machine and settings, are kept unless ``force``. A
    cell that cannot be fitted or timed is left out with its reason. Where a selection leaves the anchor out, the first
    cell that it chooses stands in. ``say`` is told what begins. Raises SuiteError for a selection that matches nothing.
    """
    settings = suite.model.timing or Timing.model_validate({})
    chosen = select_cells(suite.cells, select) if select else suite.cells
    cells = [cell for cell in chosen if cell.kind == "sample"]
    record = TimingRecord(settings.model_dump(mode="json"), describe_environment(_common_device(cells)))
    earlier = None if force else read_timing(folder)
    kept = _usable(earlier, record) if earlier is not None else {}
    for group in _comparable(cells):
        anchor = next((cell for cell in group if cell.label == settings.anchor), group[0])
        if say is not None and settings.anchor not in (None, anchor.label):
            say(f"{settings.anchor} is not among the chosen samplers: {anchor.label} is the anchor")
        spec = anchor.spec
        timed = TimedSet(spec["data"]["name"], _present(spec["device"]) or spec["device"], spec["dtype"], anchor.id)
        timed.members |= {cell.id: TimedMember(cell.id, cell.label, cell.axes) for cell in group}
        record.sets.append(timed)
        _Turns(timed, settings, kept, lambda: record.write(folder), say or (lambda line: None)).take(group)
        record.write(folder)
    return record


class _Turns:
    """The turns of one set of comparable cells."""

    def __init__(
        self,
        timed: TimedSet,
        settings: Timing,
        kept: dict[tuple[str, ...], tuple[Turn, dict[str, TimedMember]]],
        save: Callable[[], object],
        say: Callable[[str], None],
    ) -> None:
        self.timed = timed
        self.settings = settings
        self.kept = kept
        self.save = save
        self.say = say
        self.materials = Materials()

    def take(self, cells: list[Cell]) -> None:
        """Time the cells together, or, for want of memory, each with the anchor."""
        predicted = {cell.id: self._predict(cell) for cell in cells}
        cells = [cell for cell in cells if predicted[cell.id] is not None]
        try:
            free = available_bytes(choose_device(cells[0].spec["device"])) if cells else None
        except CapabilityError as error:
            self.timed.left_out |= dict.fromkeys((cell.id for cell in cells), str(error))
            return
        total = sum(size for size in predicted.values() if size is not None)
        if free is None or total <= _SHARE * free or len(cells) < 3:
            self._together(cells, {})
            return
        self.say(f"{total / _GIB:.1f} GiB predicted for all samplers, {free / _GIB:.1f} GiB free: timed in pairs")
        self.timed.in_pairs = True
        held: dict[str, _Fitted] = {}
        anchor = [cell for cell in cells if cell.id == self.timed.anchor]
        for cell in cells:
            if cell not in anchor and self.timed.anchor not in self.timed.left_out:
                self._together([*anchor, cell], held)
                held = {name: one for name, one in held.items() if name == self.timed.anchor}

    def _predict(self, cell: Cell) -> int | None:
        try:
            size, limit = predict_memory(cell), cell.spec["budget"]["memory_gib"]
            check_memory(size, None if limit is None else int(limit * _GIB), f"cell {cell.label}")
        except Exception as error:  # a plugin may fail in any way: the others are timed
            self.timed.left_out[cell.id] = _reason(error)
            return None
        return size

    def _together(self, cells: list[Cell], held: dict[str, _Fitted]) -> None:
        """One turn with these cells; what is fitted already is in ``held``, and what is fitted now is added."""
        gc.collect()
        if not cells:
            return
        turn = tuple(cell.id for cell in cells)
        if turn in self.kept:
            earlier, members = self.kept[turn]
            self.timed.turns.append(earlier)
            self.timed.members |= members
            self.say(f"timed already: {', '.join(cell.label for cell in cells)}")
            return
        for cell in cells:
            if cell.id not in held:
                self._fit(cell, held)
        ready = {cell.id: held[cell.id] for cell in cells if cell.id in held}
        self.timed.members |= {name: one.member for name, one in ready.items()}
        if not ready or (self.timed.in_pairs and len(ready) < 2):
            return
        self.say(f"timing in turns: {', '.join(one.member.label for one in ready.values())}")
        started = utc_now()
        try:
            batches = interleaved_times(
                {name: one.sampler for name, one in ready.items()},
                {name: one.problem for name, one in ready.items()},
                self.settings.batches,
                self.settings.rounds,
                seconds=self.settings.seconds,
            )
        except Exception as error:  # as in a run: one broken sampler does not end the work
            failed = [name for name in ready if not (self.timed.in_pairs and name == self.timed.anchor)]
            self.timed.left_out |= dict.fromkeys(failed, _reason(error))
            return
        self.timed.turns.append(Turn(tuple(ready), tuple(batches), started, utc_now()))
        self.save()

    def _fit(self, cell: Cell, held: dict[str, _Fitted]) -> None:
        self.say(f"fitting {cell.label}")
        try:
            with time_budget(cell.spec["budget"]["seconds"], f"cell {cell.label}"):
                problem = self.materials.problem(cell)
                wake(problem.device)
                watch = Stopwatch(problem.device)
                with watch.phase("setup"), billed() as reused:
                    sampler = create("samplers", cell.spec["sampler"]).fit(problem)
                # a sampler that cannot sample must not take the others down with it
                try_sampler(cell.label, sampler, problem)
        except (Exception, SystemExit) as error:
            self.timed.left_out[cell.id] = _reason(error)
            return
        setup = watch.seconds["setup"] + sum(reused.values())
        held[cell.id] = _Fitted(sampler, problem, TimedMember(cell.id, cell.label, cell.axes, setup))


def _comparable(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells by data set, device and dtype, in plan order; the first repeat of each."""

    def key(cell: Cell) -> str:
        return json.dumps([cell.spec["data"], cell.spec["device"], cell.spec["dtype"]], sort_keys=True)

    firsts = [cell for cell in cells if cell.repeat == 0]
    order = {name: number for number, name in enumerate(dict.fromkeys(map(key, firsts)))}
    ranked = sorted(firsts, key=lambda cell: order[key(cell)])
    return [list(group) for _, group in itertools.groupby(ranked, key=key)]


def _usable(earlier: TimingRecord, record: TimingRecord) -> dict[tuple[str, ...], tuple[Turn, dict[str, TimedMember]]]:
    """The turns of an earlier record by their cells, where settings and machine are the same."""
    names = ("kfpbench", "git", "torch", "blas", "cpu", "threads", "device", "gpu")
    same = all(earlier.environment.get(name) == record.environment.get(name) for name in names)
    if not same or earlier.settings != record.settings:
        return {}
    return {
        turn.cells: (turn, {cell: timed.members[cell] for cell in turn.cells})
        for timed in earlier.sets
        for turn in timed.turns
    }


def _common_device(cells: Sequence[Cell]) -> str:
    """The device of all cells; the CPU where they differ, or this machine has no such device."""
    names = {cell.spec["device"] for cell in cells}
    return (_present(names.pop()) if len(names) == 1 else None) or "cpu"


def _present(name: str) -> str | None:
    """The device that a suite means by the name; None where this machine does not have it."""
    try:
        return str(choose_device(name))
    except CapabilityError:
        return None


def _reason(error: BaseException) -> str:
    known = isinstance(error, CapabilityError)
    return str(error) if known else f"{type(error).__name__}: {error}"
