"""Tables of a study that are written from its records alone are what its storage says."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kfpbench.errors import StoreError
from kfpbench.publish.page import fill_page
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.command import work_on
from kfpbench.study.opened import Opened, existing
from kfpbench.study.options import StudyOptions
from kfpbench.study.rebuild import rebuilt
from kfpbench.study.results import Row, frame_of_rows, front_of, importances, rows_of, volume_history

SUITE = """\
name: small
data: {name: digits, reference: validation}
score: {name: empirical}
process: {name: ve, sigma_min: 0.05, sigma_max: 20.0}
samplers: [{name: jump, label: x, start: {name: gaussian}, refiner: {name: dpmpp_2m, steps: 2}, sigma_star: 2.0}]
metrics: [{name: frechet, features: identity}]
n_samples: 40
batch_size: 40
latency_repeats: 1
study:
  objectives: [frechet, nfe]
  constraints: [{metric: nfe, at_most: 5}]
  space:
    samplers.x.sigma_star: {low: 0.3, high: 10.0, log: true}
    samplers.x.refiner: [{name: dpmpp_2m}, {name: ddim, rho: 3.0}]
    samplers.x.refiner.steps: {low: 1, high: 6}
    samplers.x.start: [gaussian, gaussian_mixture]
    samplers.x.start.components: {low: 2, high: 6, when: {samplers.x.start: gaussian_mixture}}
  sampler: random
  stages: [20]
  budget: {trials: 40}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Forty trials, of which some are stopped at a stage and some break the constraint."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "suite.yaml").write_text(SUITE)
    options = StudyOptions(folder / "out", None, None, (), False)
    assert work_on(folder / "suite.yaml", options) == 0
    return existing(folder / "suite.yaml", options)


@pytest.fixture
def page(study: Opened, tmp_path: Path) -> Path:
    """A page beside a copy of the study's manifest and records."""
    (tmp_path / "data").mkdir()
    for name in ("manifest.json", "cells.jsonl"):
        shutil.copy(study.folder / name, tmp_path / "data" / name)
    return tmp_path / "page.md"


def rows(text: str) -> list[list[str]]:
    return [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def table(page: Path, kind: str, options: str = "run: data") -> list[list[str]]:
    page.write_text(f"<!-- kfpbench {kind}\n{options}\n-->\n<!-- end -->\n")
    return rows(fill_page(page).text)


def test_the_study_is_the_one_that_was_run(study: Opened, page: Path) -> None:
    definition, again = rebuilt(RunFolder.open(page.parent / "data"))
    assert definition.digest() == study.definition.digest()
    stored = {row.number: row for row in rows_of(study.study, study.definition)}
    assert {row.what for row in stored.values()} == {"ok", "infeasible", "stopped"}
    found = [row for row in rows_of(again, definition) if row.what in ("ok", "infeasible")]
    assert {row.number for row in found} == {row.number for row in stored.values() if row.what in ("ok", "infeasible")}
    for row in found:
        same = stored[row.number]
        assert (row.what, row.params, row.values, row.low, row.high) == (
            same.what,
            same.params,
            same.values,
            same.low,
            same.high,
        )
    assert importances(again, definition) == importances(study.study, study.definition)


def test_the_front_is_that_of_the_storage(study: Opened, page: Path) -> None:
    head, _, *body = table(page, "study-front")
    assert head == ["trial", "Fréchet distance", "NFE / image", "sigma_star", "refiner", "steps", "start", "components"]
    front = front_of(study.study, study.definition)
    assert [line[0] for line in body] == [f"trial {row.number}" for row in front]
    for line, row in zip(body, front, strict=True):
        assert row.values is not None
        assert row.low is not None
        assert row.high is not None
        shown = [float(re.match(r"[\d.]+", text)[0]) for text in line[1:3]]
        assert abs(shown[0] - row.values[0]) <= (row.high[0] - row.low[0]) / 20 + 1e-9  # two digits of the interval
        assert shown[1] == row.values[1]
        assert line[4].startswith(row.params["samplers.x.refiner"]["name"])
        assert (line[7] == "") == (row.params["samplers.x.start"] == "gaussian")


def test_progress_and_importances_are_those_of_the_storage(study: Opened, page: Path) -> None:
    stored = rows_of(study.study, study.definition)
    good = [row for row in stored if row.what == "ok"]
    history = volume_history(stored, frame_of_rows(good, study.definition.objectives))
    head, _, *body = table(page, "study-progress", "run: data\nafter: [10, 20, 40]")
    assert head == ["trials", "hypervolume"]
    assert body == [[str(count), f"{100 * history[count - 1]:.1f} %"] for count in (10, 20, 40)]
    with pytest.raises(StoreError, match="has not so many trials; got 41; allowed: up to 40"):
        table(page, "study-progress", "run: data\nafter: [41]")

    found = importances(study.study, study.definition)
    head, _, *body = table(page, "study-importances")
    assert head == ["parameter", "Fréchet distance", "NFE / image"]
    paths = {path.rpartition(".")[2]: path for path in study.definition.space.parameters}
    assert {line[0]: line[1:] for line in body} == {
        name: [f"{100 * shares[path]:.0f} %" for shares in found.values()] for name, path in paths.items()
    }
    largest = [max(float(text.removesuffix(" %")) for text in line[1:]) for line in body]
    assert largest == sorted(largest, reverse=True)


def planted(page: Path, change: Callable[[list[dict[str, Any]]], None]) -> list[Row]:
    """The trials of the page's study after its records were changed."""
    path = page.parent / "data" / "cells.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    definition, study = rebuilt(RunFolder.open(page.parent / "data"))
    return rows_of(study, definition)


def test_what_is_no_result_in_the_storage_is_none_on_a_page(page: Path) -> None:
    whole = {row.number: row.what for row in planted(page, lambda records: None)}

    def spoil(records: list[dict[str, Any]]) -> None:
        records[0] |= {"status": "failed", "reason": "planted"}
        records[1]["measurements"] = [one for one in records[1]["measurements"] if one["metric"] != "frechet"]

    numbers = {row.number: row.what for row in planted(page, spoil)}
    assert numbers == {**whole, 0: "stopped", 1: "stopped"}  # which stands for whatever else became of them


def test_repeats_of_a_trial_that_was_begun_anew_are_one_result(page: Path) -> None:
    """The first attempt recorded one of two repeats before its worker died, the second one the other."""
    manifest = page.parent / "data" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("n_samples: 40", "repeats: 2\\nn_samples: 40"))

    def double(records: list[dict[str, Any]]) -> None:
        records[5:] = []  # the last of the five has one repeat alone
        for record in records[:4]:
            again = copy.deepcopy(record) | {"cell": record["cell"] + "b", "repeat": 1, "seed": 1}
            (entry,) = (one for one in again["measurements"] if one["metric"] == "frechet")
            for key in ("value", "ci_low", "ci_high"):
                entry[key] += 2.0
            records.append(again)
        records[-1]["details"]["trial"] += 10

    path = page.parent / "data" / "cells.jsonl"
    before = [json.loads(line) for line in path.read_text().splitlines()]
    found = {row.number: row for row in planted(page, double) if row.what in ("ok", "infeasible")}
    first, moved = before[0]["details"]["trial"], before[3]["details"]["trial"]
    assert len(found) == 4
    assert moved not in found
    assert found[moved + 10].values[0] == pytest.approx(frechet(before[3]) + 1.0)
    assert found[first].values[0] == pytest.approx(frechet(before[0]) + 1.0)


def frechet(record: dict[str, Any]) -> float:
    return next(one["value"] for one in record["measurements"] if one["metric"] == "frechet")


def test_a_run_is_no_study_and_few_trials_have_no_importances(page: Path) -> None:
    data = page.parent / "data"
    lines = (data / "cells.jsonl").read_text().splitlines(keepends=True)
    (data / "cells.jsonl").write_text("".join(lines[:15]))
    with pytest.raises(StoreError, match="fewer than 20 trials"):
        table(page, "study-importances")
    manifest = (data / "manifest.json").read_text()
    (data / "manifest.json").write_text(manifest.replace('"study":', '"other":', 1))
    assert '"other":' in (data / "manifest.json").read_text()
    with pytest.raises(StoreError, match="holds a run, not a study"):
        table(page, "study-front")


def test_a_study_of_included_files_cannot_be_shown(page: Path) -> None:
    manifest = page.parent / "data" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["suite"]["included"] = {"part.yaml": "seed: 1"}
    manifest.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="the study's suite includes files"):
        table(page, "study-front")


def test_a_front_without_a_trial_and_a_disturbed_time(page: Path) -> None:
    def disturb(records: list[dict[str, Any]]) -> None:
        for record in records:
            for one in record["measurements"]:
                if one["metric"] == "nfe":
                    one["details"]["load"] = "taken under load"

    planted(page, disturb)
    _, _, *body = table(page, "study-front")
    assert body
    assert all(line[2].endswith(", under load") and "under load" not in line[1] for line in body)

    def break_all(records: list[dict[str, Any]]) -> None:
        for record in records:
            for one in record["measurements"]:
                if one["metric"] == "nfe":
                    one["value"] = 6.0

    planted(page, break_all)
    with pytest.raises(StoreError, match="no trial has a result that keeps the constraints"):
        table(page, "study-front")
