"""What the findings claim, and what they do not: thresholds against intervals, exclusions, and where they are told."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kfpbench.report.aggregate import group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.findings import RULES, findings, findings_as_json, findings_as_text, testable_rules
from kfpbench.report.html import render_report
from kfpbench.report.terminal import render_table

testable_rules.__test__ = False  # type: ignore[attr-defined]  # a function of the package, no test

# What samples of the data's own law score, with the half-widths of 250 rows.
QUIET = {
    "memorised_fraction": (0.01, 0.01),
    "copied_fraction": (0.01, 0.02),
    "blended_fraction": (0.0, 0.01),
    "nearest_train_ratio": (1.0, 0.06),
    "data_copying": (0.0, 0.7),
    "authenticity_loss": (0.0, 0.08),
    "density": (1.0, 0.15),
    "precision": (0.9, 0.05),
    "recall": (0.9, 0.05),
    "coverage": (0.97, 0.03),
    "effective_class_ratio": (1.0, 0.04),
    "missing_class_share": (0.08, 0.06),
}


def record(
    label: str = "cell", *, cell: str = "", dataset: str = "digits", **values: tuple[float, float | None]
) -> Any:
    """A cell with quiet numbers but for those given as (value, half-width)."""
    return {
        "cell": cell or f"{dataset}-{label}",
        "label": label,
        "kind": "sample",
        "status": "ok",
        "spec": {"data": {"name": dataset, "reference": "test"}, "sampler": {"name": label}},
        "measurements": [
            {
                "metric": metric,
                "value": value,
                "ci_low": None if half is None else value - half,
                "ci_high": None if half is None else value + half,
                "n": 250,
            }
            for metric, (value, half) in {**QUIET, **values}.items()
        ],
    }


def kinds(**values: tuple[float, float | None]) -> list[str]:
    return [one["kind"] for one in findings_as_json([record(**values)])]


def test_samples_of_the_law_have_no_finding() -> None:
    assert kinds() == []


@pytest.mark.parametrize(
    ("metric", "level", "side", "kind"),
    [
        ("memorised_fraction", 0.05, 1, "copies"),
        ("blended_fraction", 0.05, 1, "blends"),
        ("copied_fraction", 0.05, 1, "near_training"),
        ("data_copying", -3.0, -1, "near_training"),
        ("authenticity_loss", 0.1, 1, "near_training"),
        ("density", 0.8, -1, "off_data"),
        ("nearest_train_ratio", 1.25, 1, "off_data"),
        ("effective_class_ratio", 0.85, -1, "misses_classes"),
        ("coverage", 0.85, -1, "misses_data"),
    ],
)
def test_the_whole_interval_must_lie_beyond_the_threshold(metric: str, level: float, side: int, kind: str) -> None:
    half = 0.01
    assert kinds(**{metric: (level + side * (half + 1e-6), half)}) == [kind]
    assert kinds(**{metric: (level + side * (half - 1e-6), half)}) == []  # the interval crosses it
    assert kinds(**{metric: (level + side * 0.1, None)}) == []  # no interval, no claim


def test_precision_and_recall_are_compared_with_each_other() -> None:
    assert kinds(precision=(0.5, 0.05), recall=(0.5, 0.05)) == []  # low, but equal: n is small or d is large
    assert kinds(precision=(0.6, 0.05), recall=(0.82, 0.05)) == ["off_data"]
    assert kinds(precision=(0.82, 0.05), recall=(0.6, 0.05)) == ["misses_data"]
    assert kinds(precision=(0.66, 0.05), recall=(0.82, 0.05)) == []  # 0.71 is not below 0.77 - 0.1


def test_what_is_explained_is_not_told_again() -> None:
    copies = kinds(memorised_fraction=(1.0, 0.01), copied_fraction=(1.0, 0.01), data_copying=(-7, 0.3))
    assert copies == ["copies"]
    noise = {"nearest_train_ratio": (3.0, 0.2), "density": (0.0, 0.01), "coverage": (0.0, 0.01)}
    assert kinds(**noise, precision=(0.0, 0.01), effective_class_ratio=(0.2, 0.05)) == ["noise"]
    # the classes of samples off the data mean nothing
    assert kinds(density=(0.5, 0.1), effective_class_ratio=(0.6, 0.05)) == ["off_data"]
    # low coverage for want of samples on the data is no missing mode
    assert kinds(density=(0.3, 0.1), coverage=(0.5, 0.1)) == ["off_data"]


def test_noise_that_the_features_do_not_see() -> None:
    """In principal components white noise lies at the mean of the data: dense and precise, but far in pixels."""
    found = kinds(
        nearest_train_ratio=(1.64, 0.05),
        density=(8.9, 1.2),
        precision=(1.0, 0.01),
        recall=(0.0, 0.01),
        coverage=(0.34, 0.1),
    )
    assert found == ["noise"]


def test_evidence_names_number_interval_threshold_and_meaning() -> None:
    (found,) = findings_as_json([record(memorised_fraction=(0.4, 0.1), data_copying=(-5.0, 0.5))])
    main, support = found["evidence"]
    assert (main["metric"], main["value"], main["low"], main["high"]) == (
        "memorised_fraction",
        0.4,
        0.30000000000000004,
        0.5,
    )
    assert (main["side"], main["level"]) == ("above", 0.05)
    assert "held-out rows" in main["meaning"]
    assert support["metric"] == "data_copying"
    assert found["cells"] == ("digits-cell",)
    json.dumps(found)


def test_coverage_at_another_k_has_another_expectation() -> None:
    low = record(coverage=(0.7, 0.05))
    next(m for m in low["measurements"] if m["metric"] == "coverage")["details"] = {"k": 2}  # expected: 1 - 2^-2
    assert findings_as_json([low]) == []


def test_repeats_are_one_finding_with_the_interval_between_them() -> None:
    repeats = [record(cell=f"c{i}", memorised_fraction=(value, 0.01)) for i, value in enumerate((0.5, 0.52, 0.51))]
    for seed, one in enumerate(repeats):
        one["spec"]["seed"] = seed
    (found,) = findings_as_json(repeats)
    assert found["cells"] == ("c0", "c1", "c2")
    scattered = [record(cell=f"c{i}", memorised_fraction=(value, 0.01)) for i, value in enumerate((0.0, 0.9))]
    for seed, one in enumerate(scattered):
        one["spec"]["seed"] = seed
    assert findings_as_json(scattered) == []  # two repeats that disagree prove nothing


def test_failed_and_spectrum_cells_have_none() -> None:
    failed, spectrum = record(memorised_fraction=(1.0, 0.01)), record("other", memorised_fraction=(1.0, 0.01))
    failed.update(status="failed", reason="no")
    spectrum["kind"] = "spectrum"
    assert findings_as_json([failed, spectrum]) == []


def test_findings_come_by_data_set_then_rule_then_cell() -> None:
    records = [
        record("a", coverage=(0.5, 0.05)),
        record("b", memorised_fraction=(1.0, 0.01)),
        record("c", dataset="ring", memorised_fraction=(1.0, 0.01)),
        record("d", memorised_fraction=(1.0, 0.01)),
    ]
    told = [(one.dataset, one.kind, one.label) for one in findings(group_repeats(read_cells(records)))]
    assert told == [
        ("digits", "copies", "b"),
        ("digits", "copies", "d"),
        ("digits", "misses_data", "a"),
        ("ring", "copies", "c"),
    ]
    lines = findings_as_text(group_repeats(read_cells(records[:2])))
    assert [line.split(":")[0] for line in lines] == ["Copies of training rows", "Misses part of the data"]


def test_rules_without_their_numbers_are_not_testable() -> None:
    groups = group_repeats(read_cells([record()]))
    assert testable_rules(groups) == list(RULES)
    bare = record()
    bare["measurements"] = [m for m in bare["measurements"] if m["metric"] == "density"]
    assert [rule.kind for rule in testable_rules(group_repeats(read_cells([bare])))] == ["off_data"]


def text_of(page: str) -> str:
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_the_page_tells_findings_before_the_numbers(tmp_path: Path) -> None:
    records = [record("copier", memorised_fraction=(0.4, 0.1)), record("fine")]
    text = text_of(render_report({}, records, tmp_path))
    assert text.index("Copies of training rows") < text.index("All numbers")
    assert "memorised fraction 0.40 (0.30 to 0.50), above 0.05; it is at most 0.01 for held-out rows" in text
    assert "find nothing" not in text


def test_the_page_says_when_nothing_was_found_and_what_was_not_tested(tmp_path: Path) -> None:
    bare = record()
    bare["measurements"] = [m for m in bare["measurements"] if m["metric"] == "density"]
    text = text_of(render_report({}, [bare], tmp_path))
    assert "The rules below find nothing in this run." in text
    assert "copies (not tested: no cell has these numbers)" in text
    assert "off data (not tested" not in text


def test_of_many_cells_three_are_unfolded(tmp_path: Path) -> None:
    records = [record(f"cell-{i}", memorised_fraction=(1.0, 0.01)) for i in range(15)]
    page = render_report({}, records, tmp_path)
    section = page[page.index('<section id="findings"') :]
    section = section[: section.index("</section>")]
    unfolded, _, folded = section.partition("<details><summary>and 12 more</summary>")
    folded = folded[: folded.index("</details>")]
    assert (unfolded.count("memorised fraction 1.000"), folded.count("memorised fraction 1.000")) == (3, 12)
    assert [name in unfolded for name in ("cell-2", "cell-3")] == [True, False]
    assert "cell-14" in folded


def test_names_in_findings_are_text(tmp_path: Path) -> None:
    page = render_report({}, [record("<script>alert(1)</script>", memorised_fraction=(1.0, 0.01))], tmp_path)
    assert "<script>alert(1)" not in page


def test_the_terminal_tells_them_below_the_table() -> None:
    stream = io.StringIO()
    records = [record("copier", memorised_fraction=(0.4, 0.1), seconds_per_image=(0.1, 0.01)), record("fine")]
    render_table(records, Console(file=stream, width=300, color_system=None))
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "Copies of training rows: copier (memorised fraction 0.40 (0.30 to 0.50), above 0.05)"


def test_what_held_out_rows_score_is_said_for_few_rows_too() -> None:
    """The smallest of n < 100 distances lies below their interpolated 1 % quantile: one row of n, not 1 %."""
    copies = next(rule for rule in RULES if rule.kind == "copies")
    assert "one of them, where they are fewer than 100" in copies.meaning
    for condition in (*copies.any_of, *copies.support[:1]):
        assert "1/n where n is below 100" in condition.meaning
