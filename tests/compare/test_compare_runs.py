"""Two runs against each other: what is matched, what is told apart, what is refused and why, and the gate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_up_cells import make_cell, make_run

from kfpbench.cli import main
from kfpbench.compare.compare_runs import compare_runs
from kfpbench.compare.gate import Limits, read_limits
from kfpbench.compare.tables import as_markdown, as_text
from kfpbench.errors import ParameterError, StoreError


def changes_of(comparison, metric="frechet"):
    return {change.label: change for change in comparison.changes if change.metric == metric}


def test_a_run_against_itself_is_equal(tmp_path) -> None:
    a = make_run(tmp_path / "a", [make_cell("x"), make_cell("y", 2.0)])
    made = compare_runs(a, a, limits=read_limits(["regression=0%,missing"]))
    assert made.counts == {"equal": 6}
    assert made.exit_code == 0


def test_a_paired_difference_is_told_where_the_intervals_overlap(tmp_path) -> None:
    a, b = make_run(tmp_path / "a", [make_cell("x", 1.00)]), make_run(tmp_path / "b", [make_cell("x", 1.02, rng=1)])
    (change,) = changes_of(compare_runs(a, b)).values()
    assert change.verdict == "worse"
    assert change.difference.paired
    assert change.difference.low <= 0.04 <= change.difference.high
    one, other = (make_cell("x", value).measurements[0] for value in (1.0, 1.02))
    assert one["ci_high"] > other["ci_low"]  # by themselves they could not be told apart


def test_what_is_worse_comes_first_and_the_largest_loss_before_others(tmp_path) -> None:
    a = make_run(
        tmp_path / "a",
        [make_cell("better", 1.0), make_cell("worse", 1.0), make_cell("worst", 1.0), make_cell("same", 1.0)],
    )
    b = make_run(
        tmp_path / "b",
        [make_cell("better", 0.5), make_cell("worse", 1.5), make_cell("worst", 3.0), make_cell("same", 1.0001, rng=1)],
    )
    made = [(one.label, one.verdict) for one in compare_runs(a, b, metrics=["frechet"]).changes]
    assert made == [("worst", "worse"), ("worse", "worse"), ("better", "better"), ("same", "cannot be told apart")]


def test_cells_are_matched_by_what_they_compute_whatever_they_are_called(tmp_path) -> None:
    a = make_run(tmp_path / "a", [make_cell("old", sampler={"name": "s"}), make_cell("other")])
    b = make_run(tmp_path / "b", [make_cell("other"), make_cell("new", sampler={"name": "s"})])
    matching = compare_runs(a, b).matching
    assert [(match.a.label, match.b.label, match.by) for match in matching.matches] == [
        ("old", "new", "identity"),
        ("other", "other", "identity"),
    ]


def test_the_rest_is_matched_by_label_and_axes_and_says_what_differs(tmp_path) -> None:
    a = make_run(tmp_path / "a", [make_cell("s", sampler={"name": "s", "rank": 16}), make_cell("gone")])
    b = make_run(
        tmp_path / "b", [make_cell("s", 1.5, sampler={"name": "s", "rank": 32, "eta": 0.5}), make_cell("fresh")]
    )
    made = compare_runs(a, b)
    (match,) = made.matching.matches
    assert match.by == "label and axes"
    assert match.differs == {"sampler.rank": (16, 32), "sampler.eta": ("absent", 0.5)}
    assert [group.label for group in made.matching.only_a] == ["gone"]
    assert [group.label for group in made.matching.only_b] == ["fresh"]
    assert any("sampler.rank 16 to 32" in line for line in as_text(made))


def test_a_label_that_several_cells_have_matches_nothing(tmp_path) -> None:
    a = make_run(tmp_path / "a", [make_cell("s", sampler={"rank": 1}), make_cell("s", sampler={"rank": 2})])
    b = make_run(tmp_path / "b", [make_cell("s", sampler={"rank": 3})])
    made = compare_runs(a, b)
    assert not made.matching.matches
    assert len(made.matching.only_a) == 2


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"n": 50}, "n"),
        ({"seed": 7}, "no seed in common"),
        ({"data": {"name": "digits", "reference": "validation"}}, "data"),
        ({"details": {"features": "pca"}}, "features"),
        ({"details": {"features_version": "2"}}, "features_version"),
        ({"details": {"reference": "digits/validation"}}, "reference"),
        ({"fingerprint": "f1"}, "another fingerprint"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(tmp_path, other, reason) -> None:
    made = compare_runs(
        make_run(tmp_path / "a", [make_cell("x")]), make_run(tmp_path / "b", [make_cell("x", 9.0, **other)])
    )
    change = changes_of(made)["x"]
    assert change.verdict == "not compared"
    assert reason in change.why
    assert any("not compared" in line and reason in line for line in as_text(made))


def test_times_of_different_machines_are_not_compared_and_counts_are(tmp_path) -> None:
    faster = {"cpu": {"model": "Faster", "usable_cores": 2}, "threads": {"torch": 2}}
    a, b = (
        make_run(tmp_path / "a", [make_cell("x")]),
        make_run(tmp_path / "b", [make_cell("x", seconds=0.001, nfe=12)], environment=faster),
    )
    made = compare_runs(a, b)
    time, count = changes_of(made, "seconds_per_image")["x"], changes_of(made, "nfe")["x"]
    assert (time.verdict, time.why) == ("not compared", "the machines differ: processor Example and Faster")
    assert (count.verdict, count.relative) == ("worse", pytest.approx(0.2))
    assert made.conditions["machine.processor"] == ("Example", "Faster")


def test_a_continued_run_has_the_machine_of_the_part_in_which_the_cell_began(tmp_path) -> None:
    slow = {"cpu": {"model": "Slow", "usable_cores": 1}}
    late = {"environment": slow, "started": "2026-01-02T00:00:00+00:00"}
    early = {"started": "2026-01-01T00:00:00+00:00", "environment": {"cpu": {"model": "Example", "usable_cores": 2}}}
    a = make_run(tmp_path / "a", [make_cell("x")], environment=early["environment"])
    b = make_run(tmp_path / "b", [make_cell("x")], earlier=[early], **late)
    assert changes_of(compare_runs(a, b), "seconds_per_image")["x"].verdict == "equal"


def test_repeats_are_compared_by_the_seeds_in_common(tmp_path) -> None:
    a = make_run(tmp_path / "a", [make_cell("x", 1.0 + 0.1 * seed, seed=seed) for seed in (0, 1, 2)])
    b = make_run(tmp_path / "b", [make_cell("x", 1.5 + 0.1 * seed, seed=seed) for seed in (1, 2, 3)])
    change = changes_of(compare_runs(a, b))["x"]
    assert change.difference.how == "paired t over 2 seeds"
    assert (change.a, change.b) == (pytest.approx(2.3), pytest.approx(3.3))


def test_the_gate(tmp_path) -> None:
    a = make_run(tmp_path / "a", [make_cell("x", 1.0), make_cell("y", 1.0)])
    b = make_run(tmp_path / "b", [make_cell("x", 1.04), make_cell("y", 1.20)])
    assert [one.label for one in compare_runs(a, b, limits=Limits(regression=0.05)).failures] == ["y"]
    assert [one.label for one in compare_runs(a, b, limits=Limits(regression=0.01)).failures] == ["y", "x"]
    assert not compare_runs(a, b, limits=Limits({"frechet": 0.25}, 0.01)).failures  # its own limit counts
    assert not compare_runs(b, a, limits=Limits(regression=0.0)).failures  # better is no regression


def test_the_gate_does_not_fail_by_chance(tmp_path) -> None:
    """100 cells whose half-samples are noise alone: some are told apart at 95 % each, the gate corrects for it."""
    a = make_run(tmp_path / "a", [make_cell(f"c{k}", 1.0 + d, own=0.1) for k, d in enumerate(np.zeros(100))])
    noise = 0.05 * np.sqrt(2) * np.random.default_rng(3).normal(size=100)
    b = make_run(tmp_path / "b", [make_cell(f"c{k}", 1.0 + noise[k], own=0.1, rng=1) for k in range(100)])
    made = compare_runs(a, b, metrics=["frechet"], limits=Limits(regression=0.05))
    assert made.counts.get("worse", 0) + made.counts.get("better", 0) >= 1
    assert not made.failures


def test_a_lost_cell_is_a_regression_and_a_missing_one_where_it_is_asked_for(tmp_path) -> None:
    a = make_run(tmp_path / "a", [make_cell("x"), make_cell("lost"), make_cell("gone")])
    b = make_run(tmp_path / "b", [make_cell("x"), make_cell("lost", status="failed")])
    assert [one.label for one in compare_runs(a, b, limits=Limits(regression=0.5)).failures] == ["lost"]
    assert [one.label for one in compare_runs(a, b, limits=Limits(missing=True)).failures] == ["gone"]


def test_a_gate_that_could_never_fail_is_an_error(tmp_path) -> None:
    a, b = make_run(tmp_path / "a", [make_cell("x")]), make_run(tmp_path / "b", [make_cell("y")])
    with pytest.raises(ParameterError, match="would never fail"):
        compare_runs(a, b, limits=Limits(regression=0.05))
    with pytest.raises(ParameterError, match="would never fail"):
        compare_runs(a, a, limits=Limits({"recall": 0.05}))


@pytest.mark.parametrize("text", ["5%", "regression", "regression=5", "regression=-5%", "frechet=", "a=1%,a=2%", ""])
def test_limits_that_are_none(text) -> None:
    with pytest.raises(ParameterError):
        read_limits([text])


def test_limits() -> None:
    assert read_limits([]) is None
    assert read_limits(["regression=5%,frechet=12.5 %", "missing"]) == Limits({"frechet": 0.125}, 0.05, True)


def test_the_command_line(capsys, tmp_path) -> None:
    a, b = str(make_run(tmp_path / "a", [make_cell("x", 1.0)])), str(make_run(tmp_path / "b", [make_cell("x", 1.2)]))
    for arguments, code in (([], 0), (["--fail-on", "regression=5%"], 1), (["--fail-on", "frechet=30%"], 0)):
        with pytest.raises(SystemExit) as ended:
            main(["compare", a, b, *arguments])
        assert ended.value.code == code
    assert "gate: passed" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["compare", a, b, "--json", "--fail-on", "regression=5%"])
    content = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1
    assert content["failures"][0]["metric"] == "frechet"
    assert content["changes"][0]["ci_low"] > 0
    with pytest.raises(SystemExit) as ended:
        main(["compare", a, str(tmp_path / "nothing")])
    assert ended.value.code == 2
    with pytest.raises(StoreError):
        compare_runs(a, tmp_path)


def test_markdown_shows_names_as_they_are(tmp_path) -> None:
    label = "<img src=x>|`a`\n*b*"
    a, b = make_run(tmp_path / "a", [make_cell(label, 1.0)]), make_run(tmp_path / "b", [make_cell(label, 1.2)])
    text = as_markdown(compare_runs(a, b))
    (row,) = [line for line in text.splitlines() if line.startswith("| worse")]
    assert "<" not in row
    assert row.replace("\\|", "").count("|") == 8  # seven columns
