"""The times that were taken in turns: latency, throughput, speed-up over the anchor, images until a setup pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kfpbench.report.numbers import format_interval, format_significant, format_value
from kfpbench.report.payoff import BreakEven, break_even_of_saving, payoff_text
from kfpbench.runner.paired_times import Ratio
from kfpbench.runner.timing_record import TimedSet, TimingRecord
from kfpbench.suite.cell_name import own_names

_MANY = 12  # more samplers than this, and there is no table of all pairs


@dataclass(frozen=True)
class Comparison:
    """One sampler at one batch size, against the anchor; NaN where there is no interval or no value.

    ``seconds`` per image; ``speed_up`` is how many times as long the anchor takes; ``break_even`` the number of images
    from which on setup and sampling cost no more than the anchor's. ``note`` says what a reader must know.
    """

    cell: str
    label: str
    batch: int
    rounds: int
    seconds: float
    seconds_low: float
    seconds_high: float
    speed_up: float
    speed_up_low: float
    speed_up_high: float
    method: str
    break_even: float
    break_even_low: float
    break_even_high: float
    note: str = ""


@dataclass(frozen=True)
class SpeedRow:
    """A sampler: its setup, and for every batch size (text, interval) of time, speed-up and images to break even."""

    label: str
    is_anchor: bool
    setup: str
    times: tuple[tuple[str, str], ...]
    speed_ups: tuple[tuple[str, str], ...]
    break_evens: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PairTable:
    """At one batch size, how many times as fast the sampler of the row is as that of the column; (text, interval)."""

    batch: int
    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]


@dataclass
class SpeedSection:
    """What the template needs of one set of compared samplers."""

    name: str
    summary: str
    batches: list[int]
    anchor: str
    rows: list[SpeedRow]
    pairs: list[PairTable] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def build_speed(record: TimingRecord | None) -> list[SpeedSection]:
    """A section per set of samplers that were compared; none without a record."""
    return [] if record is None else [_section(timed, record) for timed in record.sets if timed.members]


def comparisons(timed: TimedSet) -> list[Comparison]:
    """Every timed sampler at every batch size, in plan order."""
    return [
        made
        for member in timed.timed()
        for batch in timed.batches()
        if (made := _compare(timed, member.cell, batch)) is not None
    ]


def _compare(timed: TimedSet, cell: str, batch: int) -> Comparison | None:
    own = timed.together(batch, cell)
    if own is None:
        return None
    seconds = own.per_image(cell)
    shared = timed.together(batch, cell, timed.anchor)
    pay = BreakEven(math.nan, math.nan, math.nan)
    if cell == timed.anchor:
        ratio = Ratio(1.0, math.nan, math.nan, seconds.n, "the anchor")
    elif not timed.are_compared(cell, timed.anchor, batch):
        ratio = Ratio(math.nan, math.nan, math.nan, seconds.n, "not timed together")
    else:
        ratio = timed.ratio(timed.anchor, cell, batch)
    if shared is not None and cell != timed.anchor:
        saved = shared.saved_per_image(cell, timed.anchor)
        setup = timed.members[cell].setup_seconds - timed.members[timed.anchor].setup_seconds
        pay = break_even_of_saving(setup, saved.centre, saved.low, saved.high)
    notes = dict.fromkeys(note for note in (own.load.note, own.note, seconds.note) if note)
    return Comparison(
        cell,
        timed.members[cell].label,
        batch,
        seconds.n,
        seconds.median,
        seconds.ci_low,
        seconds.ci_high,
        ratio.value,
        ratio.low,
        ratio.high,
        ratio.method,
        pay.images,
        pay.low,
        pay.high,
        "; ".join(notes),
    )


def _section(timed: TimedSet, record: TimingRecord) -> SpeedSection:
    names = _names(timed)
    batches = timed.batches()
    found = {(one.cell, one.batch): one for one in comparisons(timed)}
    rows = [
        SpeedRow(
            names[member.cell],
            member.cell == timed.anchor,
            "" if math.isnan(member.setup_seconds) else format_significant(member.setup_seconds),
            *_texts([found.get((member.cell, batch)) for batch in batches]),
        )
        for member in timed.timed()
    ]
    left_out = [(names[cell], reason) for cell, reason in timed.left_out.items()]
    left_out += dict.fromkeys(
        (names[cell], reason)
        for turn in timed.turns
        for times in turn.batches
        for cell, reason in times.left_out.items()
    )
    section = SpeedSection(
        timed.dataset, _summary(timed, record), batches, names[timed.anchor], rows, [], _warnings(timed), left_out
    )
    cells = [member.cell for member in timed.timed()]
    if 2 < len(cells) <= _MANY:
        section.pairs = [_pair_table(timed, cells, names, batch) for batch in batches]
    return section


def _texts(
    row: Sequence[Comparison | None],
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Times in ms, speed-ups and break-evens of one sampler."""
    blank = ("", "")
    times, speed_ups, pays = [], [], []
    for one in row:
        times.append(blank if one is None else _text(1e3 * one.seconds, 1e3 * one.seconds_low, 1e3 * one.seconds_high))
        speed_ups.append(blank if one is None else _text(one.speed_up, one.speed_up_low, one.speed_up_high))
        pay = None if one is None else BreakEven(one.break_even, one.break_even_low, one.break_even_high)
        pays.append(blank if pay is None else payoff_text(pay))
    return tuple(times), tuple(speed_ups), tuple(pays)


def _text(value: float, low: float, high: float) -> tuple[str, str]:
    if math.isnan(value):
        return "", ""
    # at least one digit however wide the interval: times and their ratios are never 0
    return format_value(value, min((high - low) / 2, value)), format_interval(low, high)


def _pair_table(timed: TimedSet, cells: Sequence[str], names: dict[str, str], batch: int) -> PairTable:
    rows = []
    for row in cells:
        entries = []
        for column in cells:
            if row == column or not timed.are_compared(row, column, batch):
                entries.append(("", ""))
            else:
                ratio = timed.ratio(column, row, batch)
                entries.append(_text(ratio.value, ratio.low, ratio.high))
        rows.append(tuple(entries))
    return PairTable(batch, tuple(names[cell] for cell in cells), tuple(rows))


def _summary(timed: TimedSet, record: TimingRecord) -> str:
    rounds = sorted({len(values) for turn in timed.turns for b in turn.batches for values in b.seconds.values()})
    parts = [f"{rounds[0]} rounds" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]} rounds"] if rounds else []
    threads = record.environment.get("threads", {}).get("torch")
    parts += [f"device {timed.device}", timed.dtype, f"{threads} thread(s)" if threads else ""]
    if timed.in_pairs:
        parts.append("in pairs with the anchor, for want of memory")
    return " · ".join(part for part in parts if part)


def _warnings(timed: TimedSet) -> list[str]:
    """What was noted of a batch size: other programs, fewer rounds."""
    found: dict[str, list[int]] = {}
    for turn in timed.turns:
        for times in turn.batches:
            for note in (times.load.note, times.note):
                if note:
                    found.setdefault(note, []).append(times.batch)
    lines = []
    for note, batches in found.items():
        sizes = ", ".join(map(str, dict.fromkeys(batches)))
        lines.append(f"Batch {sizes}: {note}.")
    return lines


def _names(timed: TimedSet) -> dict[str, str]:
    """Labels, with the axes on which they differ where several cells share one."""
    members = timed.members.values()
    names = own_names([member.label for member in members], [member.axes for member in members])
    return dict(zip(timed.members, names, strict=True))
