"""The table of a run against one cell: who is compared, the verdicts, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kfpbench.errors import ParameterError
from kfpbench.statistics.difference_table import compare_cells, difference_lines, print_differences
from kfpbench.statistics.paired_difference import paired_difference

SHARED = np.random.default_rng(0).normal(size=20) * 0.05


def record(label, value, *, better="higher", seed=0, n=100, status="ok", axes=None, sd=0.05, metric="coverage"):
    replicates = (value + SHARED + 0.001 * len(label) * np.cos(np.arange(20))).tolist()
    details = {"interval": "delete-half jackknife", "reference": "digits/test", "sd": float(np.std(replicates, ddof=1)),
               "replicate_values": replicates}  # fmt: skip
    return {
        "cell": f"{label}-{axes}-{seed}",
        "label": label,
        "kind": "sample",
        "status": status,
        "seed": seed,
        "axes": axes or {},
        "spec": {"data": {"name": "digits"}, "sampler": {"name": label, **(axes or {})}, "seed": seed},
        "measurements": [
            {
                "metric": metric,
                "value": value,
                "ci_low": value - 2 * sd,
                "ci_high": value + 2 * sd,
                "n": n,
                "better": better,
                "details": details,
            },
            {"metric": "nfe", "value": 9.0, "ci_low": None, "ci_high": None, "better": "lower", "details": {}},
        ],
    }


def test_every_other_cell_is_compared_with_the_anchor() -> None:
    records = [
        record("heun", 0.901),
        record("em", 0.9011),
        record("spectral", 0.6),
        record("bad", 0.9, status="failed"),
    ]
    made = compare_cells(records, "heun")
    assert [(one.label, one.metric, one.verdict) for one in made] == [
        ("em", "coverage", "cannot be told apart"),
        ("spectral", "coverage", "worse"),
    ]
    assert made[1].difference == paired_difference(records[2], records[0], "coverage")
    assert (made[1].value, made[1].anchor) == (0.6, 0.901)


def test_verdicts_follow_the_direction() -> None:
    for better, verdict in (("higher", "worse"), ("lower", "better"), ("neither", "lower")):
        (one,) = compare_cells([record("a", 0.91, better=better), record("b", 0.5, better=better)], "a")
        assert one.verdict == verdict


def test_cells_of_one_label_are_told_by_their_axes_and_named_by_id() -> None:
    records = [record("heun", 0.9, axes={"steps": steps}) for steps in (4, 9)] + [record("em", 0.8)]
    assert [one.label for one in compare_cells(records, "em")] == ["heun (steps 4)", "heun (steps 9)"]
    assert len(compare_cells(records, "heun (steps 4)")) == 2
    assert len(compare_cells(records, records[0]["cell"])) == 2
    with pytest.raises(ParameterError, match="several cells"):
        compare_cells(records, "heun")
    with pytest.raises(ParameterError, match="no cell"):
        compare_cells(records, "ddim")


def test_repeats_are_one_row() -> None:
    values = {"a": 0.5, "b": 0.6}
    records = [record(label, value + 0.01 * seed, seed=seed) for label, value in values.items() for seed in range(3)]
    (one,) = compare_cells(records, "a")
    assert one.difference is not None
    assert one.difference.how == "paired t over 3 seeds"
    assert one.value == pytest.approx(0.61)


def test_what_may_not_be_compared_is_listed_with_its_reason(capsys) -> None:
    records = [record("a", 0.5), record("b", 0.6, n=50), record("c", 0.6)]
    first, second = compare_cells(records, "a")
    assert first.difference is None
    assert "differ in n" in first.why
    assert second.verdict == "better"
    print_differences(records, "a")
    printed = capsys.readouterr().out.splitlines()
    assert printed == difference_lines([first, second], "a")
    assert len(printed) == 4
    assert "not compared" in printed[1]
    assert printed[-1].startswith("1 comparisons at 95 % each")


def test_metrics_can_be_chosen_and_have_no_verdict_without_an_interval() -> None:
    records = [record("a", 0.5), record("b", 0.6)]
    (one,) = compare_cells(records, "a", ["nfe"])
    assert one.difference is not None
    assert math.isnan(one.difference.low)
    assert one.verdict == ""
