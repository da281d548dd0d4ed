from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from kfpbench.runner.progress import LiveProgress, PlainProgress, describe
from kfpbench.store.records import CellRecord
from kfpbench.suite.cell import Cell

TIME = "2026-01-01T00:00:00+00:00"


def cell(label: str = "heun", axes: dict[str, Any] | None = None, repeat: int = 0) -> Cell:
    return Cell(0, "id0", "sample", label, axes or {}, repeat, repeat, {"data": {"name": "digits"}})


def record(status: str = "ok", reason: str = "") -> CellRecord:
    return CellRecord(
        cell="id0",
        index=0,
        label="heun",
        kind="sample",
        status=status,
        reason=reason,
        started=TIME,
        finished=TIME,
        seconds=1.25,
    )


def console(terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=100, color_system="standard" if terminal else None
    )


def printed(given: Console) -> str:
    assert isinstance(given.file, io.StringIO)
    return given.file.getvalue()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize(
    ("axes", "repeat", "text"),
    [
        ({}, 0, "digits: heun"),
        ({}, 2, "digits: heun #2"),
        ({"samplers.heun.steps": 9, "n_samples": 50}, 0, "digits: heun (steps 9, n_samples 50)"),
        ({"data.name": "digits", "score.name": "empirical"}, 0, "digits: heun (data digits, score empirical)"),
        ({"samplers.heun.kernel": {"name": "rbf", "factor": 0.2}}, 1, "digits: heun #1 (kernel rbf (factor 0.2))"),
        ({"samplers.heun.rank": None}, 0, "digits: heun (rank none)"),
    ],
)
def test_a_cell_in_words(axes: dict[str, Any], repeat: int, text: str) -> None:
    assert describe(cell(axes=axes, repeat=repeat)) == text


def test_plain_lines_count_on_from_earlier_cells() -> None:
    given = console()
    with PlainProgress(given) as progress:
        progress.begin(4, 2)
        progress.started(cell())
        assert printed(given) == "4 cells, 2 finished already\n"
        progress.finished(cell(), record())
        progress.started(cell(repeat=1))
        progress.finished(cell(repeat=1), record("failed", "ValueError: [bold]no[/bold] :smile:"))
    assert printed(given).splitlines()[1:] == [
        "[3/4] ok 1.2 s  digits: heun",
        "[4/4] failed 1.2 s  digits: heun #1  ValueError: [bold]no[/bold] :smile:",
    ]


@pytest.mark.parametrize(("make", "terminal"), [(PlainProgress, False), (LiveProgress, True)])
def test_a_message_cannot_steer_the_terminal(make: Any, terminal: bool) -> None:
    given = console(terminal)
    with make(given) as progress:
        progress.begin(1, 0)
        progress.started(cell())
        progress.finished(cell(), record("failed", "two\nlines\x1b]0;title\x07\tand \x9b31mred"))
    assert "two lines?]0;title? and ?31mred" in without_codes(printed(given))


def test_plain_lines_do_not_wrap() -> None:
    given = console()
    with PlainProgress(given) as progress:
        progress.begin(1, 0)
        progress.finished(cell(), record("skipped", "x" * 300))
    assert printed(given).splitlines()[0] == "1 cells"
    assert printed(given).splitlines()[1].endswith("x" * 300)


def test_the_bar_on_a_terminal() -> None:
    given = console(terminal=True)
    with LiveProgress(given) as progress:
        progress.begin(3, 1)
        progress.started(cell())
        progress.finished(cell(), record())
        progress.started(cell(repeat=1))
        progress.finished(cell(repeat=1), record("timeout", "ran longer than [red]5 s[/red]"))
    text = without_codes(printed(given))
    assert "1 of 3 cells are finished already and are not run again" in text
    assert re.search(r"ok +1\.2 s  digits: heun\n", text)
    assert re.search(r"timeout +1\.2 s  digits: heun #1  ran longer than \[red\]5 s\[/red\]\n", text)
    assert "2/2" in text
    assert "\x1b[32mok" in printed(given)  # green
    assert printed(given).count("\x1b[?25l") == printed(given).count("\x1b[?25h") == 1  # the cursor is back


def test_the_bar_shows_brackets_in_a_description_as_they_are() -> None:
    given = console(terminal=True)
    with LiveProgress(given) as progress:
        progress.begin(1, 0)
        progress.started(cell(axes={"metrics": [["frechet"], "kid"]}))
        progress.finished(cell(axes={"metrics": [["frechet"], "kid"]}), record())
    assert "digits: heun (metrics [[frechet], kid])" in without_codes(printed(given))


def test_the_bar_gives_the_terminal_back_after_an_error() -> None:
    given = console(terminal=True)

    def interrupted() -> None:
        with LiveProgress(given) as progress:
            progress.begin(1, 0)
            progress.started(cell())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert printed(given).count("\x1b[?25l") == printed(given).count("\x1b[?25h") == 1


def test_nothing_to_do_is_no_error() -> None:
    for make, terminal in ((LiveProgress, True), (PlainProgress, False)):
        given = console(terminal)
        with make(given) as progress:
            progress.begin(2, 2)
        assert "2" in printed(given)


@pytest.mark.parametrize("make", [LiveProgress, PlainProgress])
def test_a_note_is_a_line_without_control_characters(make: Any) -> None:
    given = console(terminal=make is LiveProgress)
    with make(given) as progress:
        progress.begin(1, 0)
        progress.note("timing in turns: heun,\n\x1b[2J euler")
    lines = without_codes(printed(given)).replace("\r", "\n").splitlines()
    assert "timing in turns: heun, ?[2J euler" in [line.strip() for line in lines]
