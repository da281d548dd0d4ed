"""Runs of a suite with a `claim`: the file, the report, times in turns, a run that goes on, and the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from kfpbench.claim import take_turns as take_turns_module
from kfpbench.claim.interleaved import read_times
from kfpbench.cli import app
from kfpbench.errors import SuiteError
from kfpbench.runner.execute import RunResult, run
from kfpbench.suite.json_schema import suite_json_schema
from kfpbench.suite.load import load_suite, suite_from_mapping

SHIPPED = Path(__file__).parents[2] / "suites" / "claim_cifar10.yaml"
SUITE: dict[str, Any] = {
    "schema_version": 1,
    "name": "claim_ring",
    "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
    "score": "mixture",
    "process": {"name": "ve", "sigma_min": 0.05, "sigma_max": 10.0},
    "samplers": [
        {"name": "koopman", "operator": {"eta": 0.0, "time": "piecewise", "segments": 4, "points": 60}},
        {"name": "gaussian"},
        {"name": "ddim"},
        {"name": "euler_maruyama", "steps": 60},
    ],
    "grid": {"samplers.ddim.steps": [2, 12]},
    "metrics": ["frechet", "precision_recall", "density_coverage", {"name": "vendi", "kernel": "rbf"}, "nearest_train"],
    "claim": {"spectral": "koopman", "reference": "euler_maruyama", "few_step": ["ddim"], "control": "gaussian"},
    "n_samples": 100,
    "batch_size": 50,
    "latency_repeats": 4,
    "device": "cpu",
}


def content(result: RunResult) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((result.folder / "claim.json").read_text())
    return made


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(SUITE, out=tmp_path_factory.mktemp("claim") / "run")


def test_the_run_leaves_a_card(done: RunResult) -> None:
    assert done.exit_code == 0
    assert done.claim is not None
    card = content(done)
    verdicts = {one["part"]: one["verdict"] for one in card["answers"][0]["parts"]}
    assert list(verdicts) == ["seconds", "reference_speed", "few_step_speed", "diversity", "memorisation"]
    assert verdicts["seconds"] == "holds"  # two dimensions take well below 0.29 s
    assert any("The data are gmm_ring" in one for one in card["limits"])
    assert 'id="claim"' in done.report.read_text()


def test_the_compared_samplers_were_timed_in_turns(done: RunResult) -> None:
    card = content(done)
    speed = next(one for one in card["answers"][0]["parts"] if one["part"] == "reference_speed")
    assert re.match(r"taken in turns, \d+ rounds", speed["number"]["how"])  # fewer than 12 on a loaded machine
    assert speed["number"]["ci_low"] <= speed["number"]["value"] <= speed["number"]["ci_high"]
    assert read_times(done.folder).has(speed["cells"]["reference"], speed["cells"]["spectral"])


def test_a_run_that_goes_on_times_nothing_again_and_takes_new_thresholds(
    done: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(take_turns_module, "_time", lambda pairs: pytest.fail("timed again"))
    before = (done.folder / "claim_times.json").read_bytes()
    again = run({**SUITE, "claim": {**SUITE["claim"], "seconds": 1e-9}}, out=done.folder)
    assert [one.cell for one in again.records] == [one.cell for one in done.records]
    assert content(again)["answers"][0]["parts"][0]["verdict"] == "does not hold"
    assert (done.folder / "claim_times.json").read_bytes() == before


def test_times_that_cannot_be_taken_are_noted_and_harm_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("the machine has gone")

    monkeypatch.setattr(take_turns_module, "_time", broken)
    result = run(SUITE, out=tmp_path / "run", select=["label=koopman"])
    assert result.claim is not None
    parts = {one.key: one for one in result.claim.answers[0].parts}
    assert parts["seconds"].verdict == "holds"
    assert parts["reference_speed"].reason == "the cell euler_maruyama has not been run"
    assert not (tmp_path / "run" / "claim_times.json").exists()  # there was no pair to time
    whole = run(SUITE, out=tmp_path / "run")
    assert whole.claim is not None
    part = whole.claim.answers[0].parts[1]
    assert part.number is not None
    assert "not taken in turns" in part.number.how
    assert "the machine has gone" in " ".join(part.notes)


def test_the_command_line_prints_the_card_and_report_writes_it_again(done: RunResult, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(json.dumps(SUITE))  # JSON is YAML
    shown = CliRunner().invoke(app, ["run", str(suite), "--out", str(done.folder)])
    assert shown.exit_code == 0, shown.output
    assert "Claim: 0.29 s per CIFAR-10 image" in shown.output
    assert "1. seconds per image, batch 1" in shown.output
    (done.folder / "claim.json").unlink()
    assert CliRunner().invoke(app, ["report", str(done.folder)]).exit_code == 0
    assert content(done)["schema_version"] == 1


class TestSuite:
    """The `claim:` block of a suite."""

    def test_it_does_not_change_any_cell(self) -> None:
        without = {key: value for key, value in SUITE.items() if key != "claim"}
        ids, others = ([cell.id for cell in suite_from_mapping(one).cells] for one in (SUITE, without))
        assert ids == others

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"spectral": "kopman"}, "spectral names 'kopman', which is no sampler of this suite"),
            ({"spectral": "kopman"}, "Did you mean 'koopman'?"),
            ({"few_step": ["ddim", "heun"]}, "few_step names 'heun'"),
            ({"reference": "ddim"}, "reference names 'ddim', of which the grid makes several cells"),
            ({"few_step": []}, "few_step"),
            ({"slight": 0.0}, "more than 0"),
            ({"slihgt": 0.1}, "Did you mean 'slight'?"),
            ({"seconds": "0.29"}, "Remove the quotes"),
        ],
    )
    def test_what_is_wrong_is_told_before_anything_runs(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(SuiteError) as caught:
            suite_from_mapping({**SUITE, "claim": {**SUITE["claim"], **change}})
        assert words in str(caught.value)
        assert "claim" in str(caught.value)

    def test_a_common_axis_makes_several_cells_and_a_seed_does_not(self) -> None:
        with pytest.raises(SuiteError, match="several cells"):
            suite_from_mapping({**SUITE, "grid": {**SUITE["grid"], "n_samples": [50, 100]}})
        assert suite_from_mapping({**SUITE, "grid": {**SUITE["grid"], "seed": [0, 1]}}).model.claim is not None

    def test_the_json_schema_knows_it(self) -> None:
        validator = jsonschema.Draft202012Validator(suite_json_schema())
        validator.validate(SUITE)
        alone = {key: value for key, value in SUITE.items() if key != "grid"}
        alone["claim"] = {"spectral": ["koopman"], "reference": "euler_maruyama"}
        assert not validator.is_valid(alone)  # few_step is needed where nothing can come from elsewhere
        assert validator.is_valid({**alone, "include": ["other.yaml"]})
        assert not validator.is_valid({**SUITE, "claim": {**SUITE["claim"], "slihgt": 0.1}})

    def test_the_shipped_suite_answers_the_sentence(self) -> None:
        suite = load_suite(SHIPPED)
        claim = suite.model.claim
        assert claim is not None
        assert claim.seconds == 0.29
        specs = {cell.label: cell.spec for cell in suite.cells}
        assert specs[claim.reference]["sampler"]["steps"] == 1000
        assert specs[claim.reference]["n_samples"] == 500
        assert {json.dumps(spec["score"]) for spec in specs.values()} == {json.dumps(specs["koopman"]["score"])}
        assert {block["name"] for block in specs["koopman"]["metrics"]} >= {
            "frechet",
            "precision_recall",
            "density_coverage",
            "vendi",
            "nearest_train",
        }
