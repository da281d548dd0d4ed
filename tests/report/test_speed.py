"""What the report and the terminal show of times taken in turns, and of a machine that was loaded."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kfpbench.report.aggregate import Estimate, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.html import render_report
from kfpbench.report.load_notes import load_notes, under_load
from kfpbench.report.payoff import break_even, break_even_of_saving, payoff_text
from kfpbench.report.speed_section import build_speed, comparisons
from kfpbench.report.speed_terminal import render_speed
from kfpbench.report.terminal import render_table
from kfpbench.runner.machine_load import MachineLoad
from kfpbench.runner.paired_times import BatchTimes
from kfpbench.runner.timing_record import TimedMember, TimedSet, TimingRecord, Turn

DRIFT = (1.0, 1.3, 1.1, 0.9, 1.6, 1.2, 1.0, 0.8, 1.4)
WOBBLE = (1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 0.99, 1.01, 1.0)


def times(batch: int, pace: dict[str, float], others: float = 0.0, note: str = "", **left_out: str) -> BatchTimes:
    """Nine rounds on a machine that drifts by a factor of two; the first sampler wobbles by 1 %."""
    first = next(iter(pace))
    seconds = {
        name: tuple(batch * base * d * (w if name == first else 1.0) for d, w in zip(DRIFT, WOBBLE, strict=True))
        for name, base in pace.items()
    }
    calls, warm = dict.fromkeys(pace, 1), dict.fromkeys(pace, (1.0, 1.0))
    return BatchTimes(batch, seconds, calls, warm, MachineLoad(others, 0.5, 9.0, 2, 1), note, left_out)


def turn(*batches: BatchTimes) -> Turn:
    moment = "2026-01-31T12:00:00+00:00"
    return Turn(tuple(batches[0].seconds), batches, moment, moment)


def record(
    *turns: Turn, in_pairs: bool = False, setups: dict[str, float] | None = None, **left_out: str
) -> TimingRecord:
    setups = setups or {"em": 0.5, "heun": 0.5, "koopman": 60.5}
    members = {name: TimedMember(name, name, {}, seconds) for name, seconds in setups.items()}
    timed = TimedSet("digits", "cpu", "float32", "em", members, in_pairs, list(turns), left_out)
    return TimingRecord({"anchor": "em"}, {"threads": {"torch": 2}}, [timed])


@pytest.fixture
def together() -> TimingRecord:
    pace = {"em": 0.4, "heun": 0.04, "koopman": 0.001}
    return record(turn(times(1, pace), times(16, {name: base / 8 for name, base in pace.items()}, others=0.43)))


def test_the_speed_up_is_known_far_better_than_the_times(together: TimingRecord) -> None:
    found = {(one.label, one.batch): one for one in comparisons(together.sets[0])}
    one = found["koopman", 1]
    assert one.speed_up == pytest.approx(400.0)
    assert (one.speed_up_high - one.speed_up_low) / one.speed_up < 0.05
    assert (one.seconds_high - one.seconds_low) / one.seconds > 0.3  # drift is in the times
    assert one.rounds == 9
    assert found["em", 1].speed_up == 1.0
    assert math.isnan(found["em", 1].speed_up_low)  # the anchor is not compared with itself
    assert "taken under load" in found["koopman", 16].note
    assert found["koopman", 1].note == ""


def test_a_speed_up_is_never_zero_however_wide_its_interval() -> None:
    rounds = {"em": (0.4, 4.0, 400.0, 0.04, 4.0), "heun": (1.0, 400.0, 4.0, 4.0, 10.0)}
    wild = BatchTimes(
        1, rounds, dict.fromkeys(rounds, 1), dict.fromkeys(rounds, (1.0, 1.0)), MachineLoad(0.0, 0.5, 9.0, 2, 1), "", {}
    )
    (section,) = build_speed(record(turn(wild), setups={"em": 0.5, "heun": 0.5}))
    assert section.rows[1].speed_ups[0][0] == "0.4"


def test_a_setup_pays_for_itself_by_what_is_saved_in_a_round(together: TimingRecord) -> None:
    found = {(one.label, one.batch): one for one in comparisons(together.sets[0])}
    one = found["koopman", 1]
    saved = sorted((0.4 * w - 0.001) * d for d, w in zip(DRIFT, WOBBLE, strict=True))[4]
    assert one.break_even == pytest.approx(60.0 / saved)
    assert one.break_even_low < one.break_even < one.break_even_high
    assert found["heun", 1].break_even == 0.0  # no more setup than the anchor's, and faster


def test_the_tables_have_a_row_a_sampler_and_a_column_a_batch(together: TimingRecord) -> None:
    (section,) = build_speed(together)
    assert section.batches == [1, 16]
    assert [row.label for row in section.rows] == ["em", "heun", "koopman"]
    assert [row.is_anchor for row in section.rows] == [True, False, False]
    assert section.rows[2].speed_ups[0][0].startswith(("39", "40"))
    assert " to " in section.rows[2].speed_ups[0][1]
    assert section.rows[2].setup == "60.5"
    assert section.warnings == [
        "Batch 16: taken under load: other programs had 43% of 2 processor(s); the times may be too long."
    ]
    (single, _) = section.pairs
    assert single.rows[0][0] == ("", "")
    assert single.rows[2][1][0].startswith(("39", "40"))  # koopman against heun: 40 times as fast
    assert float(single.rows[1][2][0]) == pytest.approx(0.025, rel=0.02)


def test_pairs_that_were_timed_apart_are_compared_through_the_anchor() -> None:
    one = turn(times(1, {"em": 0.4, "heun": 0.04}))
    other = turn(times(1, {"em": 0.4, "koopman": 0.001}, note="9 of 12 rounds"))
    made = record(one, other, in_pairs=True)
    (section,) = build_speed(made)
    assert "in pairs" in section.summary
    assert float(section.pairs[0].rows[2][1][0]) == pytest.approx(40.0, rel=0.02)
    assert section.warnings == ["Batch 1: 9 of 12 rounds."]


def test_what_was_left_out_is_told_with_its_reason() -> None:
    made = record(turn(times(250, {"em": 0.4}, koopman="one call takes 300 s")), heun="RuntimeError: no")
    (section,) = build_speed(made)
    assert section.left_out == [("heun", "RuntimeError: no"), ("koopman", "one call takes 300 s")]
    assert [row.label for row in section.rows] == ["em"]
    assert build_speed(None) == []


def printed(draw: Any, *arguments: Any) -> str:
    stream = io.StringIO()
    draw(*arguments, Console(file=stream, width=200))
    return stream.getvalue()


def test_the_terminal_shows_ratios_with_intervals_and_the_load(together: TimingRecord) -> None:
    text = printed(render_speed, together)
    (line,) = [line for line in text.splitlines() if line.startswith("koopman")]
    assert "60.5" in line
    assert line.count("(") == 2  # an interval at either batch size
    assert "em (anchor)" in text
    assert "taken under load: other programs had 43%" in text


def test_the_report_has_a_section_of_its_own(together: TimingRecord, tmp_path: Path) -> None:
    without = render_report({}, [], tmp_path)
    assert 'id="speed-1"' not in without
    together.write(tmp_path)
    text = render_report({}, [], tmp_path)
    assert 'id="speed-1"' in text
    assert "times as fast as em" in text
    assert "taken under load" in text


def cell(label: str, others: float | None) -> dict[str, Any]:
    load = MachineLoad(others, 0.4, 5.0, 2, 1).as_plain()
    return {
        "cell": label,
        "index": 0,
        "label": label,
        "kind": "sample",
        "status": "ok",
        "spec": {"data": {"name": "digits"}, "sampler": {"name": label}},
        "measurements": [{"metric": "seconds_per_image", "value": 0.01, "better": "lower"}],
        "details": {"timing": {"torch_threads": 1, "load": load}},
    }


def test_cells_that_were_timed_under_load_are_marked_everywhere(tmp_path: Path) -> None:
    records = [cell("calm", 0.02), cell("busy", 0.55), cell("unknown", None)]
    groups = group_repeats(read_cells(records))
    assert [under_load(group) for group in groups] == [None, 0.55, None]
    (line,) = load_notes(groups)
    assert "busy (55%)" in line
    assert "calm" not in line
    assert line in printed(render_table, records)
    text = render_report({}, records, tmp_path)
    assert line in text
    assert text.count(">under load<") == 1
    assert load_notes(groups[:1]) == []


def test_the_setups_of_both_and_their_intervals_enter_the_break_even() -> None:
    made = break_even(
        Estimate(60.0, 50.0, 70.0), Estimate(0.01, 0.009, 0.011), Estimate(0.11, 0.10, 0.12), Estimate(10.0, 8.0, 12.0)
    )
    assert made.images == pytest.approx(50.0 / 0.1)
    assert made.low == pytest.approx((50.0 - 12.0) / (0.12 - 0.009))
    assert made.high == pytest.approx((70.0 - 8.0) / (0.10 - 0.011))


def test_a_saving_that_may_be_none_may_never_pay() -> None:
    made = break_even_of_saving(10.0, 0.02, -0.01, 0.05)
    assert (made.images, made.low, made.high) == (pytest.approx(500.0), pytest.approx(200.0), math.inf)
    assert payoff_text(made) == ("500", "200 to never")
    assert payoff_text(break_even_of_saving(10.0, 0.02)) == ("500", "")
    assert payoff_text(break_even_of_saving(10.0, -0.02, -0.03, -0.01)) == ("never", "")
    assert break_even_of_saving(-1.0, 0.02, 0.01, 0.03).images == 0.0
    assert payoff_text(break_even_of_saving(math.nan, 0.02)) == ("", "")
