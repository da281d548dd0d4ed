"""Time the samplers of a suite in turns: fit those that are compared, and write their times into the run folder."""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kfpbench.data.shared_cost import billed
from kfpbench.errors import CapabilityError
from kfpbench.protocols import FittedSampler, Problem
from kfpbench.runner.budget import check_memory, time_budget
from kfpbench.runner.environment import describe_environment
from kfpbench.runner.interleaved_timing import interleaved_times, try_sampler
from kfpbench.runner.kept_times import carry_over, same_conditions, without
from kfpbench.runner.materials import Materials, choose_device, predict_memory, wake
from kfpbench.runner.memory import available_bytes
from kfpbench.runner.paired_times import BatchTimes
from kfpbench.runner.timing import Stopwatch
from kfpbench.runner.timing_record import TimedMember, TimedSet, TimingRecord, Turn, read_timing
from kfpbench.store.cell_log import latest
from kfpbench.store.records import utc_now
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create
from kfpbench.suite.loaded import Suite
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
    anchor alone. Times that timing.json has already, from the same code, machine and settings, stay in it, those of
    cells outside the selection too, and are not taken again; ``force`` takes those of the selection anew. What is
    missing is timed in turns with the anchor, and written after every batch size, so that an interrupted timing goes on
    where it was. A cell that failed in the run, or cannot be fitted or timed, is left out with its reason. Where a
    selection leaves out an anchor that has no times, the first cell that it chooses stands in. ``say`` is told what
    begins. Raises SuiteError for a selection that matches nothing.
    """
    settings = suite.model.timing or Timing.model_validate({})
    say = say or (lambda line: None)
    everyone = [cell for cell in suite.cells if cell.kind == "sample"]
    chosen = {cell.id for cell in (select_cells(suite.cells, select) if select else everyone)}
    record = TimingRecord(settings.model_dump(mode="json"), describe_environment(_common_device(everyone)))
    earlier = _earlier(folder, record, say)
    if earlier is not None and force:
        earlier = without(earlier, chosen, [timed.anchor for timed in earlier.sets])
    # what a cell did to a process of its own (`isolate: true`), it would do to this one
    records = latest(RunFolder(folder).log.read().records)
    broken = {one.cell: one for one in records if one.status in ("failed", "timeout")}
    begun = []
    for group in _comparable(everyone):
        sound = [cell for cell in group if cell.id not in broken]
        timed = _set_of(sound or group, settings, earlier, chosen, say)
        lost = [cell for cell in group if cell.id in broken]
        timed.members |= {cell.id: TimedMember(cell.id, cell.label, cell.axes) for cell in lost}
        timed.left_out |= {cell.id: f"{broken[cell.id].status}: {broken[cell.id].reason}" for cell in lost}
        wanted = [cell for cell in sound if cell.id in chosen]
        if wanted or timed.turns:
            record.sets.append(timed)
            begun.append((timed, sound, wanted))
    for timed, group, wanted in begun:  # when all are in the record: it is written after every batch size
        _Turns(timed, group, settings, lambda: record.write(folder), say, anew=force).take(wanted)
    record.write(folder)
    return record


def _earlier(folder: Path, record: TimingRecord, say: Callable[[str], None]) -> TimingRecord | None:
    earlier = read_timing(folder)
    if earlier is not None and not same_conditions(earlier, record):
        say("the times of before are of other settings, code or machine, and are replaced")
        return None
    return earlier


def _set_of(
    group: list[Cell],
    settings: Timing,
    earlier: TimingRecord | None,
    chosen: Collection[str],
    say: Callable[[str], None],
) -> TimedSet:
    """A set of these cells with the times that are there, and its anchor."""
    anchor = next((cell for cell in group if cell.label == settings.anchor), group[0])
    spec = anchor.spec
    timed = TimedSet(spec["data"]["name"], _present(spec["device"]) or spec["device"], spec["dtype"], anchor.id)
    timed.members |= {cell.id: TimedMember(cell.id, cell.label, cell.axes) for cell in group}
    if earlier is not None:
        carry_over(earlier, timed, settings.batches, chosen)
    known = {member.cell for member in timed.timed()}
    if anchor.id not in {*chosen, *known}:
        stand_in = next((cell for cell in group if cell.id in chosen or cell.id in known), anchor)
        timed.anchor = stand_in.id
        if settings.anchor is not None and stand_in.id in chosen:
            say(f"{settings.anchor} is not among the chosen samplers: {stand_in.label} is the anchor")
    return timed


class _Turns:
    """The turns of one set of comparable cells. ``anew`` takes times that are there again, and puts them first."""

    def __init__(
        self,
        timed: TimedSet,
        group: list[Cell],
        settings: Timing,
        save: Callable[[], object],
        say: Callable[[str], None],
        *,
        anew: bool,
    ) -> None:
        self.timed = timed
        self.cells = {cell.id: cell for cell in group}
        self.settings = settings
        self.save = save
        self.say = say
        self.kept = list(timed.turns)
        self.taken: list[Turn] = []
        self.anew = anew
        self.materials = Materials()

    def take(self, wanted: list[Cell]) -> None:
        """Time those of the cells that have no times beside the anchor, together with it; or, for want of memory, each
        with the anchor.
        """
        cells = [cell for cell in wanted if any(self._lacks(cell.id, batch) for batch in self.settings.batches)]
        if done := [cell.label for cell in wanted if cell not in cells]:
            self.say(f"timed already: {', '.join(done)}")
        if not cells:
            return
        anchor = self.cells[self.timed.anchor]
        cells = [cell for cell in self.cells.values() if cell in cells or cell is anchor]  # in plan order
        predicted = {cell.id: self._predict(cell) for cell in cells}
        cells = [cell for cell in cells if predicted[cell.id] is not None]
        try:
            free = available_bytes(choose_device(cells[0].spec["device"])) if cells else None
        except CapabilityError as error:
            self.timed.left_out |= dict.fromkeys((cell.id for cell in cells), str(error))
            return
        total = sum(size for size in predicted.values() if size is not None)
        held: dict[str, _Fitted] = {}
        if free is None or total <= _SHARE * free or len(cells) < 3:
            self._together(cells, held)
            return
        self.say(f"{total / _GIB:.1f} GiB predicted for all samplers, {free / _GIB:.1f} GiB free: timed in pairs")
        self.timed.in_pairs = True
        for cell in cells:
            if cell is not anchor and self.timed.anchor not in self.timed.left_out:
                self._together([anchor, cell] if anchor in cells else [cell], held)
                held = {name: one for name, one in held.items() if name == self.timed.anchor}

    def _lacks(self, cell: str, batch: int) -> bool:
        """Whether the cell was not timed at that batch in a turn with the anchor; anew, where that is asked for."""
        there = self.taken if self.anew else self.timed.turns
        return not any(turn.tried(batch, *{cell, self.timed.anchor}) for turn in there)

    def _predict(self, cell: Cell) -> int | None:
        try:
            size, limit = predict_memory(cell), cell.spec["budget"]["memory_gib"]
            check_memory(size, None if limit is None else int(limit * _GIB), f"cell {cell.label}")
        except Exception as error:  # a plugin may fail in any way: the others are timed
            self.timed.left_out[cell.id] = _reason(error)
            return None
        return size

    def _together(self, cells: list[Cell], held: dict[str, _Fitted]) -> None:
        """A turn with these cells at the batch sizes that they lack; what is fitted already is in ``held``, and what is
        fitted now is added.
        """
        gc.collect()
        for cell in cells:
            if cell.id not in held:
                self._fit(cell, held)
        ready = {cell.id: held[cell.id] for cell in cells if cell.id in held}
        self.timed.members |= {name: one.member for name, one in ready.items()}
        if not ready or (self.timed.in_pairs and len(ready) < 2):
            return
        if self.timed.anchor not in ready:
            self.timed.anchor = next(iter(ready))
            self.say(f"{self.cells[self.timed.anchor].label} is the anchor instead")
        for number, batch in enumerate(self.settings.batches, start=1):
            due = {name: one for name, one in ready.items() if name == self.timed.anchor or self._lacks(name, batch)}
            if len(due) == 1 and not self._lacks(self.timed.anchor, batch):
                continue
            labels = ", ".join(one.member.label for one in due.values())
            self.say(f"timing in turns at batch {batch} ({number} of {len(self.settings.batches)}): {labels}")
            started = utc_now()
            try:
                (times,) = interleaved_times(
                    {name: one.sampler for name, one in due.items()},
                    {name: one.problem for name, one in due.items()},
                    [batch],
                    self.settings.rounds,
                    seconds=self.settings.seconds,
                )
            except Exception as error:  # as in a run: one broken sampler does not end the work
                failed = [name for name in due if not (self.timed.in_pairs and name == self.timed.anchor)]
                self.timed.left_out |= dict.fromkeys(failed, _reason(error))
                return
            self._keep(tuple(due), times, started)

    def _keep(self, cells: tuple[str, ...], times: BatchTimes, started: str) -> None:
        """Add the times of a batch size to the turn of these cells, and write them down."""
        if self.taken and self.taken[-1].cells == cells:
            last = self.taken[-1]
            self.taken[-1] = replace(last, batches=(*last.batches, times), finished=utc_now())
        else:
            self.taken.append(Turn(cells, (times,), started, utc_now()))
        self.timed.turns = [*self.taken, *self.kept] if self.anew else [*self.kept, *self.taken]
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
