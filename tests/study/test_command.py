"""`kfpbench study`: its verbs one after another on one small study, against what its journal holds."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from kfpbench.cli import main
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.load import load_suite

SUITE = """\
name: small
data: {name: digits, reference: validation}
score: {name: empirical}
process: {name: ve, sigma_min: 0.05, sigma_max: 20.0}
samplers: [{name: pf_ode_heun, label: heun}]
metrics: [{name: frechet, features: identity}]
n_samples: 20
batch_size: 20
latency_repeats: 1
study:
  objectives: [frechet, nfe]
  space:
    samplers.heun.steps: {low: 1, high: 6}
    samplers.heun.rho: {low: 1.0, high: 10.0}
  sampler: random
  budget: {trials: 8}
"""
STEPS, RHO = "samplers.heun.steps", "samplers.heun.rho"

Call = Callable[..., str]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def make(*arguments: str, code: int = 0) -> str:
        """Standard output of `kfpbench`, which must end with that code."""
        with pytest.raises(SystemExit) as end:
            main(arguments)
        shown = capsys.readouterr()
        assert int(end.value.code or 0) == code, shown.err
        return shown.out if code == 0 else shown.err

    return make


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The arguments that name the study, and its folder."""
    monkeypatch.chdir(tmp_path)
    Path("suite.yaml").write_text(SUITE)
    out = tmp_path / "out"
    return SimpleNamespace(out=out, names=("suite.yaml", "--out", str(out)))


def stored(out: Path) -> list[FrozenTrial]:
    """The trials as Optuna reads them from the journal."""
    storage = JournalStorage(JournalFileBackend(str(out / "study.journal")))
    return optuna.load_study(study_name="small", storage=storage).get_trials()


def dominates(one: FrozenTrial, other: FrozenTrial) -> bool:
    return one.values != other.values and all(a <= b for a, b in zip(one.values, other.values, strict=True))


def test_the_verbs_show_what_the_journal_holds(study: SimpleNamespace, call: Call) -> None:
    said = call("study", "run", *study.names, "--set", "study.budget.trials=20")
    assert "20 of 20 trials finished: 20 ok" in said
    trials = stored(study.out)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 20
    by_number = {trial.number: trial for trial in trials}

    best = json.loads(call("study", "best", *study.names, "--json"))
    assert set(best) == {"frechet", "nfe", "compromise"}
    for k, metric in enumerate(("frechet", "nfe")):
        assert best[metric]["values"][k] == min(trial.values[k] for trial in trials)
    assert all(row["values"] == by_number[row["number"]].values for row in best.values())
    assert f"best frechet: trial {best['frechet']['number']}\n" in call("study", "best", *study.names)

    wanted = {trial.number for trial in trials if not any(dominates(other, trial) for other in trials)}
    front = json.loads(call("study", "front", *study.names, "--json"))
    assert {row["number"] for row in front} == wanted
    assert all(row["params"] == by_number[row["number"]].params for row in front)
    assert best["compromise"]["number"] in wanted
    table = call("study", "front", *study.names)
    assert {int(number) for number in re.findall(r"^trial (\d+):", table, re.MULTILINE)} == wanted

    shares = json.loads(call("study", "importance", *study.names, "--json"))
    assert set(shares) == {"frechet", "nfe"}
    for of in shares.values():
        assert set(of) == {STEPS, RHO}
        assert math.fsum(of.values()) == pytest.approx(1)
    assert shares["nfe"][STEPS] > shares["nfe"][RHO]  # it is twice the steps, whatever rho; eight trials show it badly
    heading, *lines = (line.split() for line in call("study", "importance", *study.names).splitlines())
    assert heading == ["parameter", "frechet", "nfe"]
    assert {line[0]: (line[1], line[3]) for line in lines} == {
        path: tuple(f"{100 * shares[metric][path]:.0f}" for metric in ("frechet", "nfe")) for path in (STEPS, RHO)
    }

    (study.out / "study.html").unlink()
    assert call("study", "report", *study.names).strip() == str(study.out / "study.html")
    page = html.unescape((study.out / "study.html").read_text(encoding="utf-8"))
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert headings == ["The front", "Progress", "What matters", "Slices", "All trials", "Provenance"]
    table = page.partition('id="trials-table"')[2].partition("</table>")[0]
    assert [int(number) for number in re.findall(r">trial (\d+) ", table)] == list(by_number)


def test_what_is_exported_is_what_was_found_and_runs(study: SimpleNamespace, call: Call, tmp_path: Path) -> None:
    call("study", "run", *study.names)
    by_number = {trial.number: trial for trial in stored(study.out)}
    front = json.loads(call("study", "front", *study.names, "--json", "--suite", "front.yaml"))
    call("study", "export", *study.names, "best.yaml")
    assert Path("best.yaml").read_bytes() == Path("front.yaml").read_bytes()
    assert "the file exists" in call("study", "export", *study.names, "best.yaml", code=2)
    numbers = [row["number"] for row in front]

    call("run", "best.yaml", "--out", "run")
    records = RunFolder(tmp_path / "run").log.read().records
    assert [(record.label, record.status) for record in records] == [(f"heun_t{number}", "ok") for number in numbers]
    for number, record in zip(numbers, records, strict=True):
        sampler = record.spec["sampler"]
        assert {STEPS: sampler["steps"], RHO: sampler["rho"]} == by_number[number].params
        assert record.spec["data"]["reference"] == "test"  # not what it was tuned on
        assert record.seed == 1000

    # on the split and with the seed of the study, a trial's cell measures again what it measured in the study
    chosen = f"{numbers[0]}"
    call("study", "export", *study.names, "kept.yaml", "--keep-split", "--trials", chosen)
    assert [cell.label for cell in load_suite(Path("kept.yaml")).cells] == [f"heun_t{chosen}"]
    call("run", "kept.yaml", "--out", "kept")
    (record,) = RunFolder(tmp_path / "kept").log.read().records
    measured = {one["metric"]: one["value"] for one in record.measurements}
    assert [measured["frechet"], measured["nfe"]] == pytest.approx(by_number[numbers[0]].values)


def test_workers_of_one_command_share_its_trials(study: SimpleNamespace, call: Call) -> None:
    said = call("study", "run", *study.names, "--workers", "2")
    assert "8 of 8 trials finished: 8 ok" in said
    assert "worker " not in said  # each ended by itself, and well
    alone = study.out.with_name("alone")
    call("study", "run", "suite.yaml", "--out", str(alone))
    # the draws of a random search do not depend on the number of workers, nor do results on who has found them
    for trial, other in zip(stored(study.out), stored(alone), strict=True):
        assert trial.params == other.params
        assert trial.values == pytest.approx(other.values)


def test_a_study_that_is_not_there_is_said(study: SimpleNamespace, call: Call) -> None:
    for verb in ("best", "front", "importance", "report"):
        assert "study run" in call("study", verb, *study.names, code=2)
    assert not study.out.exists()
