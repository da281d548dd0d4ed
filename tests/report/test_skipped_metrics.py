"""A blank entry says why: in the report below the table and on the entry itself, in the terminal below the table."""

from __future__ import annotations

import io
import re
from html import unescape
from pathlib import Path
from typing import Any

import made_up_run as made_up
import numpy as np
import pytest
from rich.console import Console

from kfpbench.report.aggregate import group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.html import render_report
from kfpbench.report.skipped_metrics import skipped_metrics, why_blank
from kfpbench.report.terminal import render_table

NOISE = "the sampler adds noise on its way; got 'draw 1'. Take eta = 0 <or> Gaussian data."
CHOICE = "the sampler chooses at random among components"


def record(label: str, seed: int = 0, reason: str | None = None) -> dict[str, Any]:
    """A good cell with the numbers of exact_w2, or without them and with the reason."""
    made = made_up.sample_record(seed, "digits", label, seed, np.random.default_rng(seed))
    if reason is None:
        made["measurements"].append(made_up.measurement("exact_w2_data", 0.01, None, "lower"))
    else:
        made["details"]["skipped_metrics"] = {"exact_w2": reason}
    return made


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return [
        record("heun 18"),
        record("euler-maruyama 200", reason=NOISE),
        record("jump sigma 2, 3 evaluations", reason=CHOICE),
        *(record("ddim 10", seed, NOISE) for seed in range(3)),
    ]


def printed(records: list[dict[str, Any]], *, terminal: bool = False, width: int = 200) -> list[str]:
    stream = io.StringIO()
    render_table(records, Console(file=stream, width=width, force_terminal=terminal, color_system=None))
    return stream.getvalue().splitlines()


def test_cells_with_one_reason_are_named_together(records: list[dict[str, Any]]) -> None:
    found = skipped_metrics(group_repeats(read_cells(records)))
    assert [(one.metric, one.reason, one.labels) for one in found] == [
        ("exact_w2", NOISE, ("euler-maruyama 200", "ddim 10")),  # three repeats are one cell
        ("exact_w2", CHOICE, ("jump sigma 2, 3 evaluations",)),
    ]


def test_many_cells_are_counted() -> None:
    made = []
    for steps in range(20):
        one = record("heun 18", steps, NOISE)
        one.update(cell=f"c{steps}", label="heun", axes={"samplers.heun.steps": steps})
        one["spec"]["sampler"]["steps"] = steps
        made.append(one)
    (found,) = skipped_metrics(group_repeats(read_cells(made)))
    assert len(found.labels) == 20
    assert found.cells.startswith("heun (steps 0); heun (steps 1); ")
    assert found.cells.endswith("heun (steps 11) and 8 more")


def test_a_failed_cell_and_a_measured_one_left_nothing_out() -> None:
    failed = record("ddim 10", reason=NOISE)
    failed.update(status="failed", reason="no memory")
    assert skipped_metrics(group_repeats(read_cells([failed, record("heun 18")]))) == []


def test_a_blank_quality_says_why_and_a_blank_cost_does_not(records: list[dict[str, Any]]) -> None:
    groups = group_repeats(read_cells(records))
    assert why_blank(groups[1], "exact_w2_data") == f"not measured; exact_w2 was left out: {NOISE}"
    assert why_blank(groups[1], "peak_memory_mib") == why_blank(groups[0], "kid") == "not measured"


def test_the_report_says_it_below_the_table_and_on_the_entry(records: list[dict[str, Any]], tmp_path: Path) -> None:
    page = render_report({}, records, tmp_path)
    titles = [unescape(title) for title in re.findall(r'class="value missing" title="([^"]*)"', page)]
    assert titles.count(f"not measured; exact_w2 was left out: {NOISE}") == 2
    assert titles.count(f"not measured; exact_w2 was left out: {CHOICE}") == 1
    notes = [unescape(note) for note in re.findall(r'<p class="key"><strong>(.*?)</p>', page)]
    assert notes == [
        f"exact_w2</strong> was left out of euler-maruyama 200; ddim 10: {NOISE}",
        f"exact_w2</strong> was left out of jump sigma 2, 3 evaluations: {CHOICE}",
    ]
    assert "<or>" not in page  # a reason is text, not markup


def test_a_metric_that_no_cell_could_take_is_named_too(tmp_path: Path) -> None:
    alone = [record("heun 18", reason=NOISE)]
    assert "exact_w2</strong> was left out of heun 18" in render_report({}, alone, tmp_path)
    assert printed(alone)[-1] == f"exact_w2 left out of heun 18: {NOISE}"


@pytest.mark.parametrize("terminal", [False, True])
def test_the_terminal_says_it_below_the_table(records: list[dict[str, Any]], terminal: bool) -> None:
    lines = printed(records, terminal=terminal)
    assert f"exact_w2 left out of euler-maruyama 200; ddim 10: {NOISE}" in lines
    assert f"exact_w2 left out of jump sigma 2, 3 evaluations: {CHOICE}" in lines
    assert lines.index(next(line for line in lines if line.startswith("ddim 10"))) < len(lines) - 2


def test_a_run_without_skipped_metrics_has_no_note(tmp_path: Path) -> None:
    whole = [record("heun 18")]
    assert "left out" not in "".join(printed(whole))
    assert "was left out of" not in render_report({}, whole, tmp_path)


def test_details_of_another_form_are_passed_over() -> None:
    odd = record("heun 18")
    odd["details"]["skipped_metrics"] = "none"
    assert skipped_metrics(group_repeats(read_cells([odd]))) == []
