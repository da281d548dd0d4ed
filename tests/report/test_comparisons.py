"""The comparisons of the report: best sets in pairs, the front's classes, the anchor, effects, and their words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import made_up_run as made_up
import numpy as np
import pytest

from kfpbench.errors import ParameterError
from kfpbench.report.aggregate import Group, best_set, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.columns import Column, quality_columns
from kfpbench.report.comparison_section import TIMES, build_comparison, choose_anchor, difference_entry, signed
from kfpbench.report.effects_section import build_effects
from kfpbench.report.front_classes import family_class, front_classes, leading_pair
from kfpbench.report.html import render_report, write_report
from kfpbench.report.statistics_lines import statistics_lines
from kfpbench.statistics.observation import observe
from kfpbench.statistics.paired_difference import Difference, paired_difference

COVERAGE = Column("coverage", "coverage", "higher")
RNG = np.random.default_rng(0)
SHARED = 0.05 * RNG.normal(size=20)


def record(label, coverage, seconds, *, nfe=9, setup_nfe=0, n=100, own=0.002, axes=None, index=0):
    """A cell whose half-sample values share most of their noise with every other cell's."""
    replicates = coverage + SHARED + own * RNG.normal(size=20)
    sd = float(np.std(replicates, ddof=1))
    half = 2.093 * sd
    quality = {
        "metric": "coverage", "value": coverage, "ci_low": coverage - half, "ci_high": coverage + half, "n": n,
        "better": "higher",
        "details": {"interval": "delete-half jackknife", "sd": sd, "replicate_values": replicates.tolist(),
                    "reference": "digits/test"},
    }  # fmt: skip
    time = {"metric": "seconds_per_image", "value": seconds, "ci_low": 0.9 * seconds, "ci_high": 1.1 * seconds, "n": 5}
    counts = [{"metric": "nfe", "value": nfe}, {"metric": "setup_nfe", "value": setup_nfe}]
    return {
        "cell": f"{label}-{axes}",
        "index": index,
        "label": label,
        "kind": "sample",
        "status": "ok",
        "seed": 0,
        "axes": axes or {},
        "spec": {"data": {"name": "digits"}, "sampler": {"name": label, **(axes or {})}, "seed": 0},
        "measurements": [quality, *({**one, "better": "lower"} for one in (time, *counts))],
    }


def groups_of(*records) -> list[Group]:
    return group_repeats(read_cells([{**one, "index": i} for i, one in enumerate(records)]))


def test_the_report_compares_what_the_records_say() -> None:
    one = record("heun", 0.9, 0.01)
    (group,) = groups_of(one)
    assert group.estimates["coverage"].observations == (observe(one, "coverage"),)


def test_the_best_of_a_column_is_chosen_in_pairs() -> None:
    groups = groups_of(record("a", 0.9003, 1.0), record("b", 0.8804, 1.0), record("c", 0.8999, 1.0))
    estimates = {group.label: group.estimates["coverage"] for group in groups}
    assert all(one.bounds[0] < other.bounds[1] for one in estimates.values() for other in estimates.values())
    made = best_set(estimates, "higher")  # every interval overlaps every other; in pairs b is worse
    assert made.members == {"a", "c"}
    assert not made.alone


def test_a_cell_of_another_n_is_never_beaten() -> None:
    groups = groups_of(record("a", 0.90, 1.0), record("b", 0.10, 1.0, n=50))
    made = best_set({group.label: group.estimates["coverage"] for group in groups}, "higher")
    assert made.members == {"a", "b"}


def test_classes_of_the_front() -> None:
    groups = groups_of(
        record("fast", 0.5, 0.001), record("good", 0.9, 0.1), record("beaten", 0.4, 0.05), record("close", 0.9005, 0.12)
    )
    assert front_classes(groups, "seconds_per_image", COVERAGE) == {
        0: "surely",
        1: "possibly",  # the times of good and close overlap, and so do their qualities
        2: "not",
        3: "possibly",
    }
    assert front_classes(groups, "seconds_per_image", Column("coverage", "", "neither")) == {}


def test_a_family_is_judged_against_the_others_only() -> None:
    groups = groups_of(
        record("fast", 0.5, 0.001), record("good", 0.9, 0.1), record("close", 0.9, 0.1), record("beaten", 0.4, 0.05)
    )
    speed = "seconds_per_image"
    assert family_class(groups, [1, 2], speed, COVERAGE) == "surely"  # they only rival each other
    assert family_class(groups, [2], speed, COVERAGE) == "possibly"
    assert family_class(groups, [3], speed, COVERAGE) == "not"


def test_the_anchor_is_the_best_few_step_baseline() -> None:
    groups = groups_of(
        record("em", 0.99, 1.0, nfe=1000),
        record("heun", 0.80, 0.1, nfe=18),
        record("ddim", 0.85, 0.1, nfe=10),
        record("jump", 0.90, 0.01, nfe=3, setup_nfe=5000),
        record("gaussian", 0.86, 0.001, nfe=0),
    )
    anchor, why = choose_anchor(groups, COVERAGE)
    assert groups[anchor].label == "ddim"
    assert "few-step baseline" in why
    only, why = choose_anchor([groups[0], groups[3]], COVERAGE)
    assert (only, why) == (0, "the best cell in coverage")
    assert choose_anchor(groups, Column("coverage", "", "neither")) is None


def test_differences_and_their_words() -> None:
    groups = groups_of(
        record("heun", 0.9, 0.1),
        record("same", 0.9003, 0.1),
        record("worse", 0.80, 0.02),
        record("other", 0.8, 0.1, n=50),
    )
    columns = [Column("seconds_per_image", "ms", "lower", 1e3), COVERAGE, Column("nfe", "NFE", "lower")]
    made = build_comparison(groups, 0, "chosen", columns, [0, 1, 2, 3])
    assert [column.title for column in made.columns] == ["time / image, factor", "coverage"]  # NFE has no interval
    same, worse, other = (row.entries for row in made.rows)
    assert [entry.verdict for entry in same] == ["cannot be told apart"] * 2
    assert [entry.verdict for entry in worse] == ["better", "worse"]
    assert worse[0].text == "\N{MULTIPLICATION SIGN} 0.20"
    assert worse[1].text.startswith("\N{MINUS SIGN}0.10")
    assert "differ in n" in other[1].note
    assert other[1].text == ""
    assert made.count == 5
    assert {one["verdict"] for one in made.as_json["differences"]} == {"cannot be told apart", "better", "worse", ""}
    assert build_comparison(groups[:1], 0, "chosen", columns, [0]) is None


def test_a_factor_is_never_zero_however_wide_its_interval() -> None:
    made = Difference(math.log(0.4), math.log(1e-6), math.log(1e6), "paired t over 2 seeds")
    text = difference_entry(made, TIMES["seconds_per_image"], "").text
    assert float(text.split()[-1]) == pytest.approx(0.4)


def test_effects_are_averages_over_matched_cells() -> None:
    cells = [
        record("s", 0.5 + 0.1 * (rank == 64), 0.01 * (1 + (rank == 64)), axes={"rank": rank, "kernel.name": kernel})
        for rank in (32, 64)
        for kernel in ("rbf", "matern52")
    ]
    groups = groups_of(*cells, record("other", 0.9, 1.0))
    made = build_effects(groups, quality_columns(groups))
    rank, kernel = made.rows
    assert (rank.axis, rank.level, rank.pairs) == ("rank", "64 instead of 32", "2")
    assert [entry.verdict for entry in rank.entries] == ["better", "worse"]
    assert rank.entries[1].text == "\N{MULTIPLICATION SIGN} 2.0"
    assert (kernel.axis, kernel.level) == ("kernel", "matern52 instead of rbf")
    assert [entry.verdict for entry in kernel.entries] == ["cannot be told apart"] * 2
    told = {(one["axes"][0], one["metric"]): one["verdict"] for one in made.as_json}
    assert told["rank", "log seconds_per_image"] == "worse"
    assert all(one["holm_p"] <= 1 for one in made.as_json)
    assert build_effects(groups[-1:], quality_columns(groups)) is None


def test_no_zero_has_a_sign() -> None:
    assert signed(0.0004, 0.2) == "0.00"
    assert signed(-0.0004, 0.2) == "0.00"
    assert signed(0.31, 0.2) == "+0.31"
    assert signed(-0.31, 0.2) == "\N{MINUS SIGN}0.31"


def test_terminal_lines_claim_what_is_told_and_count_the_rest() -> None:
    cells = [record("s", 0.5 + 0.1 * (rank == 64), 0.01, axes={"rank": rank}) for rank in (32, 64)]
    lines = statistics_lines(groups_of(*cells, record("slow", 0.4, 1.0)))
    assert lines[0].startswith("surely on the front of coverage and time per image at the stated batch: s (rank 64")
    text = "\n".join(lines)
    assert "rank 64 instead of 32: coverage +0.1" in text
    assert "better, 1 pair" in text
    assert "1 effects of axes cannot be told apart from none" in text
    assert "slow" not in text
    assert statistics_lines([]) == []


def test_the_leading_pair_prefers_diversity_and_time() -> None:
    groups = groups_of(record("a", 0.9, 1.0))
    assert leading_pair(groups, quality_columns(groups)) == ("seconds_per_image", quality_columns(groups)[0])
    assert leading_pair(groups, []) is None


@pytest.fixture(scope="module")
def page() -> str:
    cells = [record("spectral", 0.5 + 0.1 * (r == 64), 0.01, nfe=0, axes={"rank": r}) for r in (32, 64)]
    cells += [record("heun", 0.9, 0.1), record("em", 0.9005, 0.12, nfe=1000)]
    return render_report({"suite": {"name": "s"}}, [{**one, "index": i} for i, one in enumerate(cells)], Path())


def test_the_page_has_every_comparison(page: str) -> None:
    for heading in (
        "On the front",
        "What each family of cells adds to the front",
        "Against heun",
        "What each axis changes",
    ):
        assert f"<h3>{heading}</h3>" in page
    assert "64 instead of 32" in page
    assert "cannot be told" in page
    assert "surely adds" in page
    assert "not corrected for their number" in page
    assert "Holm" in page
    assert "significant" not in page.split("<script")[0]


def test_the_json_beside_the_report_holds_the_same(tmp_path: Path) -> None:
    manifest, records = made_up.write_run(tmp_path)
    write_report(manifest, records, tmp_path)
    content = json.loads((tmp_path / "statistics.json").read_text(encoding="utf-8"))
    assert content["schema_version"] == 1
    assert set(content["datasets"]) == {"digits", "gmm_ring"}
    digits = content["datasets"]["digits"]
    assert {own for front in digits["fronts"] for own in front["classes"].values()} <= {"surely", "possibly", "not"}
    assert digits["comparison"]["anchor"] in made_up.SAMPLERS
    share = digits["hypervolume"]["families"]["pf_ode_heun"]["alone"]
    assert 0 <= share["low"] <= share["value"] <= share["high"]


class TestUnlikeMeasurements:
    """Coverage at k = 5 and at k = 3 are two numbers: no table may set one against the other."""

    @pytest.fixture
    def cells(self) -> list[dict]:
        made = [record("heun", 0.9, 0.01), record("koopman", 0.5, 0.001), record("euler", 0.4, 0.02)]
        for one, k in zip(made, (5, 3, 3), strict=True):
            one["measurements"][0]["details"]["k"] = k
        return made

    def test_their_differences_are_refused_and_named(self, cells: list[dict]) -> None:
        made = build_comparison(groups_of(*cells), 0, "it is", [COVERAGE, TIMES["seconds_per_image"]], [0, 1, 2])
        assert made is not None
        (no_column,) = {column.metric for column in made.columns} ^ {"coverage", "seconds_per_image"}
        assert no_column == "coverage"  # no pair of cells in it can be compared
        whys = {one["metric"]: one["why"] for one in build_comparison(
            groups_of(*cells), 1, "it is", [COVERAGE], [0, 1, 2]).as_json["differences"] if "why" in one}  # fmt: skip
        assert whys == {"coverage": "cells that differ in k cannot be compared in coverage"}

    def test_none_of_them_is_surely_better_or_worse_than_an_unlike_one(self, cells: list[dict]) -> None:
        groups = groups_of(*cells)
        best = best_set({group.label: group.estimates["coverage"] for group in groups}, "higher")
        assert best.members == {"heun", "koopman"}  # euler is surely worse than koopman, which nothing is told of
        alike = groups_of(*(record(label, value, 0.01) for label, value in (("heun", 0.9), ("koopman", 0.5))))
        assert best_set({one.label: one.estimates["coverage"] for one in alike}, "higher").members == {"heun"}

    def test_the_report_says_so_and_gives_no_volume(self, cells: list[dict], tmp_path: Path) -> None:
        text = render_report({}, cells, tmp_path)
        assert "Measured with different k (5, 3): coverage." in text
        assert "hypervolume, %" not in text
        for one in cells:
            one["measurements"][0]["details"]["k"] = 5
        text = render_report({}, cells, tmp_path)
        assert "Measured with different" not in text
        assert "hypervolume, %" in text

    @pytest.mark.parametrize("name", ["kernel", "order", "degree", "gamma", "neighbours", "cells_asked", "resize"])
    def test_every_parameter_of_a_metric_has_to_agree(self, name: str) -> None:
        one, other = record("heun", 0.9, 0.01), record("koopman", 0.5, 0.01)
        one["measurements"][0]["details"][name] = 3
        other["measurements"][0]["details"][name] = 4
        with pytest.raises(ParameterError, match=f"differ in {name} "):
            paired_difference(one, other, "coverage")

    def test_a_bandwidth_may_differ_in_its_last_digits(self) -> None:
        one, other = record("heun", 0.9, 0.01), record("koopman", 0.5, 0.01)
        one["measurements"][0]["details"]["bandwidth"] = 1 / 3
        other["measurements"][0]["details"]["bandwidth"] = 1 / 3 + 1e-14
        assert paired_difference(one, other, "coverage").value == pytest.approx(0.4)

    def test_different_batch_sizes_are_said(self, tmp_path: Path) -> None:
        cells = [record("heun", 0.9, 0.01), record("koopman", 0.5, 0.01)]
        for one, size in zip(cells, (50, 250), strict=True):
            one["spec"]["batch_size"] = size
        assert "different batch sizes (50, 250)" in render_report({}, cells, tmp_path)


def test_the_volume_says_what_it_is_a_share_of_and_long_lists_are_folded(tmp_path: Path) -> None:
    cells = [record("heun", 0.9, 0.01), record("koopman", 0.5, 0.001)]
    ids = [f"{number:016x}" for number in range(60)]
    text = render_report({"plan": ids, "executor": "serial"}, cells, tmp_path)
    assert "hypervolume, % of the box" in text
    assert "from the best values of all cells to the reference point" in text
    folded = text[text.index("<dt>plan</dt>") :]
    assert folded.index("<details>") < folded.index(ids[-1]) < folded.index("</details>")
    assert "<dd>serial</dd>" in text
