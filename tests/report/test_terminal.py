"""The table in the terminal: what a narrow one drops, and that a pipe gets plain text."""

from __future__ import annotations

import io

import made_up_run as made_up
import numpy as np
import pytest
from rich.console import Console

from kfpbench.report.terminal import render_table


def rendered(records: list[dict], width: int, *, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    render_table(records, console)
    return stream.getvalue()


def test_a_pipe_gets_every_column_as_plain_text() -> None:
    text = rendered(made_up.records(), 40, terminal=False)
    assert "\x1b" not in text
    assert not set("─│┃━┏") & set(text)
    line = next(line for line in text.splitlines() if line.startswith("heun 18"))
    assert "0.933 ± 0.010" in line
    assert line.endswith("ok 3 of 3")
    assert "not shown" not in text
    assert "koopman <b>failed</b>" in text


@pytest.mark.parametrize("width", [120, 100, 80, 60])
def test_a_narrow_terminal_drops_columns_and_names_them(width: int) -> None:
    records = [record for record in made_up.records() if record["spec"]["data"]["name"] == "digits"]
    lines = rendered(records, width, terminal=True).splitlines()
    assert all(len(line) <= width for line in lines[:-1])
    assert "coverage" in lines[1]
    assert "status" in lines[1]
    assert lines[-1].startswith("not shown for want of width: evaluations, sigma_star, rank, steps, sampler")
    assert ("ms/image" in lines[1]) == (width > 60)


def test_axes_that_tell_cells_of_one_label_apart_stay() -> None:
    records = []
    for rank in (16, 64):
        made = made_up.sample_record(rank, "digits", "koopman rank 64", 0, np.random.default_rng(0))
        made.update(cell=f"c{rank}", label="koopman", axes={"samplers.koopman.rank": rank})
        made["spec"]["sampler"]["rank"] = rank
        records.append(made)
    assert "rank" in rendered(records, 40, terminal=True).splitlines()[1]


def test_control_characters_do_not_reach_the_terminal() -> None:
    record = made_up.records()[0]
    record["label"] = "name\x1b]0;title\x07[red]"
    text = rendered([record], 200, terminal=False)
    assert "name?]0;title?[red]" in text


def test_spectrum_cells_show_their_eigenvalues() -> None:
    text = rendered(made_up.records(), 200, terminal=False)
    assert "eigenvalue 2" in text
    assert "\N{MINUS SIGN}0.9987" in text
