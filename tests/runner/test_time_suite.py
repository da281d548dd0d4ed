"""A suite's samplers timed in turns, on a clock that passes only where the samplers say so."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from kfpbench import registry
from kfpbench.cli import main
from kfpbench.errors import StoreError, SuiteError
from kfpbench.noise import NoiseStream
from kfpbench.protocols import Problem, ProblemSize
from kfpbench.runner import time_suite as module
from kfpbench.runner.run_cell import lost_record
from kfpbench.runner.time_suite import time_suite
from kfpbench.runner.timing_record import FILE_NAME, read_timing
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.load import suite_from_mapping
from kfpbench.suite.loaded import Suite


@dataclass
class World:
    """The clock, and which samplers were fitted and called, by their seconds."""

    now: float = 100.0
    fitted: list[float] = field(default_factory=list)
    called: list[float] = field(default_factory=list)
    alive: set[float] = field(default_factory=set)
    most_alive: int = 0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(registry, "_local", dict(registry._local))
    world = World()
    monkeypatch.setattr(time, "perf_counter", lambda: world.now)
    monkeypatch.setattr(module, "describe_environment", lambda device: {"device": device, "threads": {"torch": 1}})

    class Fitted:
        def __init__(self, seconds: float, broken: bool) -> None:
            self.seconds, self.broken = seconds, broken
            world.alive.add(seconds)
            world.most_alive = max(world.most_alive, len(world.alive))

        def __del__(self) -> None:
            world.alive.discard(self.seconds)

        def sample(self, noise: NoiseStream) -> torch.Tensor:
            if self.broken:
                raise RuntimeError("cannot draw")
            world.called.append(self.seconds)
            world.now += self.seconds * len(noise.indices)
            return noise.normal(0)

        def describe(self) -> dict[str, Any]:
            return {}

    @registry.register("samplers", "paced")
    class Paced:
        """Takes ``seconds`` an image, and ten times that to fit."""

        def __init__(self, seconds: float, broken: bool = False, gibibytes: float = 0.0) -> None:
            self.seconds, self.broken, self.gibibytes = seconds, broken, gibibytes

        def fit(self, problem: Problem) -> Fitted:
            world.fitted.append(self.seconds)
            world.now += 10 * self.seconds
            return Fitted(self.seconds, self.broken)

        def working_memory(self, size: ProblemSize) -> int:
            return int(self.gibibytes * 2**30)

    return world


def suite(*samplers: dict[str, Any], **changes: Any) -> Suite:
    blocks = [{"name": "paced", **block} for block in samplers]
    return suite_from_mapping(
        {
            "name": "paces",
            "data": {"name": "gmm_ring", "train": 300, "validation": 100, "test": 200},
            "score": "mixture",
            "process": "ve",
            "samplers": blocks,
            "n_samples": 8,
            "batch_size": 4,
            "latency_repeats": 1,
            "device": "cpu",
            "timing": {"batches": [1, 4], "rounds": 6},
            **changes,
        }
    )


THREE = ({"seconds": 4.0, "label": "slow"}, {"seconds": 2.0, "label": "middle"}, {"seconds": 0.5, "label": "fast"})


def labels(made: Suite) -> dict[str, str]:
    return {cell.label: cell.id for cell in made.cells}


def test_all_samplers_are_timed_in_one_turn_with_their_setups(world: World, tmp_path: Path) -> None:
    made = suite(*THREE)
    record = time_suite(made, tmp_path)
    (timed,) = record.sets
    ids = labels(made)
    assert world.fitted == [4.0, 2.0, 0.5]
    assert timed.anchor == ids["slow"]
    assert not timed.in_pairs
    assert timed.batches() == [1, 4]
    assert [member.label for member in timed.timed()] == ["slow", "middle", "fast"]
    for batch in (1, 4):
        found = timed.ratio(ids["slow"], ids["fast"], batch)
        assert (found.low, found.value, found.high) == pytest.approx((8.0, 8.0, 8.0))
    assert timed.members[ids["middle"]].setup_seconds == pytest.approx(20.0)
    assert record.environment["device"] == "cpu"


def test_a_cell_that_failed_in_the_run_is_not_fitted_here(world: World, tmp_path: Path) -> None:
    """It may have killed the process that it had for itself."""
    made = suite(*THREE)
    ids = labels(made)
    folder = RunFolder.create(tmp_path / "run", {"suite": {"name": "paces"}})
    cell = made.cells[0]
    assert cell.label == "slow"
    folder.append(lost_record(cell, "failed", "its process died twice: signal 11", "2026-01-01T00:00:00+00:00", 1.0))
    (timed,) = time_suite(made, folder.path).sets
    assert world.fitted == [2.0, 0.5]
    assert timed.anchor == ids["middle"]
    assert timed.left_out == {ids["slow"]: "failed: its process died twice: signal 11"}
    assert [member.label for member in timed.timed()] == ["middle", "fast"]


def test_the_times_come_back_from_their_file(world: World, tmp_path: Path) -> None:
    record = time_suite(suite(*THREE), tmp_path)
    again = read_timing(tmp_path)
    assert again is not None
    assert again.as_plain() == record.as_plain()
    assert read_timing(tmp_path / "elsewhere") is None
    (tmp_path / FILE_NAME).write_text('{"schema_version": 1, "sets": [{}]}')
    with pytest.raises(StoreError, match="cannot be read"):
        read_timing(tmp_path)
    (tmp_path / FILE_NAME).write_text('{"schema_version": 99}')
    with pytest.raises(StoreError, match="newer"):
        read_timing(tmp_path)


def test_where_memory_does_not_allow_all_each_is_timed_with_the_anchor(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda device: 3 * 2**30)
    made = suite(
        *({**one, "gibibytes": 1.0} for one in THREE), timing={"batches": [1], "rounds": 6, "anchor": "middle"}
    )
    (timed,) = time_suite(made, tmp_path).sets
    ids = labels(made)
    assert timed.in_pairs
    assert [set(turn.cells) for turn in timed.turns] == [{ids["middle"], ids["slow"]}, {ids["middle"], ids["fast"]}]
    assert world.fitted == [2.0, 4.0, 0.5]  # the anchor once
    assert world.most_alive == 2
    through_the_anchor = timed.ratio(ids["slow"], ids["fast"], 1)
    assert through_the_anchor.value == pytest.approx(8.0)
    assert "anchor" in through_the_anchor.method
    assert timed.ratio(ids["middle"], ids["fast"], 1).value == pytest.approx(4.0)


def test_times_that_are_there_are_not_taken_again(world: World, tmp_path: Path) -> None:
    time_suite(suite(*THREE), tmp_path)
    before = len(world.called)
    said: list[str] = []
    record = time_suite(suite(*THREE), tmp_path, say=said.append)
    assert len(world.called) == before
    assert said == ["timed already: slow, middle, fast"]
    assert len(record.sets[0].timed()) == 3
    time_suite(suite(*THREE), tmp_path, force=True)
    assert len(world.called) == 2 * before
    time_suite(suite(*THREE, timing={"batches": [1, 4], "rounds": 7}), tmp_path)  # other settings
    assert len(world.called) > 3 * before


def test_a_selection_adds_to_the_times_that_are_there(world: World, tmp_path: Path) -> None:
    made = suite(*THREE)
    ids = labels(made)
    time_suite(made, tmp_path)
    before = len(world.called)
    (timed,) = time_suite(made, tmp_path, select=["label=fast"]).sets
    assert len(world.called) == before  # timed with the anchor already
    assert [member.label for member in timed.timed()] == ["slow", "middle", "fast"]
    assert timed.ratio(ids["slow"], ids["middle"], 4).value == pytest.approx(2.0)
    again = read_timing(tmp_path)
    assert again is not None
    assert [member.label for member in again.sets[0].timed()] == ["slow", "middle", "fast"]


def test_what_is_new_in_the_suite_is_timed_with_the_anchor_alone(world: World, tmp_path: Path) -> None:
    time_suite(suite(*THREE[:2]), tmp_path)
    world.called.clear()
    made = suite(*THREE)
    (timed,) = time_suite(made, tmp_path).sets
    assert set(world.called) == {4.0, 0.5}
    ids = labels(made)
    assert [set(turn.cells) for turn in timed.turns] == [{ids["slow"], ids["middle"]}, {ids["slow"], ids["fast"]}]
    assert timed.ratio(ids["middle"], ids["fast"], 1).value == pytest.approx(4.0)  # over the anchor
    assert not timed.in_pairs
    (timed,) = time_suite(suite(*THREE[1:], timing={"batches": [1], "rounds": 6, "anchor": "fast"}), tmp_path).sets
    assert [member.label for member in timed.timed()] == ["middle", "fast"]  # slow is no cell of this suite


def test_parts_of_a_suite_that_were_timed_one_by_one_come_together(world: World, tmp_path: Path) -> None:
    made = suite(*THREE)
    ids = labels(made)
    time_suite(made, tmp_path, select=["label=slow", "label=middle"])
    (timed,) = time_suite(made, tmp_path, select=["label=slow", "label=fast"]).sets
    assert [member.label for member in timed.timed()] == ["slow", "middle", "fast"]
    assert timed.ratio(ids["middle"], ids["fast"], 4).value == pytest.approx(4.0)
    called = len(world.called)
    time_suite(made, tmp_path)
    assert len(world.called) == called


def test_force_takes_the_selection_anew_and_keeps_the_rest(world: World, tmp_path: Path) -> None:
    made = suite(*THREE)
    ids = labels(made)
    first = time_suite(made, tmp_path).sets[0].turns[0]
    world.called.clear()
    (timed,) = time_suite(made, tmp_path, select=["label=middle"], force=True).sets
    assert set(world.called) == {2.0, 4.0}  # with the anchor
    assert [member.label for member in timed.timed()] == ["slow", "middle", "fast"]
    turns = {turn.cells: turn for turn in timed.turns}
    assert set(turns) == {(ids["slow"], ids["middle"]), (ids["slow"], ids["fast"])}
    assert turns[ids["slow"], ids["fast"]].started == first.started


class Stop(BaseException):
    """As a KeyboardInterrupt, which no test may mistake for its own."""


def test_an_interrupted_timing_keeps_what_was_taken_and_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = suite(*THREE[:2], grid={"data.train": [300, 200]})
    whole = module.interleaved_times

    def until_the_second(*args: Any, **kwargs: Any) -> Any:
        if len(taken) == 1:
            raise Stop
        taken.append(args[2])
        return whole(*args, **kwargs)

    taken: list[Any] = []
    monkeypatch.setattr(module, "interleaved_times", until_the_second)
    with pytest.raises(Stop):
        time_suite(made, tmp_path)
    kept = read_timing(tmp_path)
    assert kept is not None
    assert [(timed.batches(), len(timed.timed())) for timed in kept.sets] == [([1], 2), ([], 0)]
    (turn,) = kept.sets[0].turns

    # a later set is interrupted: the earlier one, finished long ago, stays
    taken = []
    with pytest.raises(Stop):
        time_suite(made, tmp_path)
    taken, world.called = [], []
    monkeypatch.setattr(module, "interleaved_times", whole)
    said: list[str] = []
    record = time_suite(made, tmp_path, say=said.append)
    assert [timed.batches() for timed in record.sets] == [[1, 4], [1, 4]]
    assert record.sets[0].turns[0].batches[0] == turn.batches[0]
    assert "timed already: slow, middle" in said
    assert "timing in turns at batch 1 (1 of 2): slow, middle" in said


def test_an_interruption_before_anything_is_timed_keeps_the_file(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time_suite(suite(*THREE[:2]), tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()

    def stop(*args: Any) -> None:
        raise Stop

    monkeypatch.setattr(module, "try_sampler", stop)
    with pytest.raises(Stop):
        time_suite(suite(*THREE, timing={"batches": [1, 4], "rounds": 7}), tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_broken_anchor_has_a_stand_in_and_nothing_is_timed_twice(world: World, tmp_path: Path) -> None:
    made = suite({"seconds": 9.0, "label": "bad", "broken": True}, *THREE)
    ids = labels(made)
    said: list[str] = []
    (timed,) = time_suite(made, tmp_path, say=said.append).sets
    assert timed.anchor == ids["slow"]
    assert "slow is the anchor instead" in said
    assert timed.left_out == {ids["bad"]: "RuntimeError: cannot draw"}
    world.called.clear()
    (timed,) = time_suite(made, tmp_path).sets
    assert len(timed.turns) == 1
    assert len(world.called) == 3  # one row each, to see that they can


def test_a_broken_sampler_is_left_out_and_harms_no_other(world: World, tmp_path: Path) -> None:
    made = suite(*THREE[:2], {"seconds": 9.0, "label": "bad", "broken": True})
    (timed,) = time_suite(made, tmp_path).sets
    assert [member.label for member in timed.timed()] == ["slow", "middle"]
    assert timed.left_out == {labels(made)["bad"]: "RuntimeError: cannot draw"}


def test_a_cell_over_its_memory_budget_is_left_out(world: World, tmp_path: Path) -> None:
    made = suite(*THREE[:2], {"seconds": 9.0, "label": "big", "gibibytes": 50.0}, budget={"memory_gib": 10.0})
    (timed,) = time_suite(made, tmp_path).sets
    assert 9.0 not in world.fitted
    assert "memory" in timed.left_out[labels(made)["big"]]
    assert len(timed.timed()) == 2


def test_a_device_that_is_not_there_is_the_reason(world: World, tmp_path: Path) -> None:
    (timed,) = time_suite(suite(*THREE, device="cuda:99"), tmp_path).sets
    assert timed.device == "cuda:99"
    assert set(timed.left_out) == set(labels(suite(*THREE, device="cuda:99")).values())
    assert all("CUDA" in reason for reason in timed.left_out.values())
    (timed,) = time_suite(suite(*THREE[:1], device="auto"), tmp_path).sets
    assert timed.device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_data_sets_are_not_compared_and_repeats_not_timed(world: World, tmp_path: Path) -> None:
    made = suite(*THREE[:2], grid={"data.train": [300, 200]}, repeats=3)
    record = time_suite(made, tmp_path)
    assert [len(timed.timed()) for timed in record.sets] == [2, 2]
    assert len(world.fitted) == 4


def test_an_anchor_or_a_selection_that_is_not_there_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"timing\.anchor: 'midle', which is no sampler .*'middle'"):
        suite(*THREE, timing={"anchor": "midle"})  # before a run, not after hours of it
    with pytest.raises(SuiteError):
        time_suite(suite(*THREE), tmp_path, select=["label=nobody"])
    assert world.fitted == []


def test_a_selection_without_the_anchor_is_timed_against_its_first_cell(world: World, tmp_path: Path) -> None:
    made = suite(*THREE, timing={"batches": [1], "rounds": 6, "anchor": "slow"})
    said: list[str] = []
    (timed,) = time_suite(made, tmp_path, select=["label=middle", "label=fast"], say=said.append).sets
    assert timed.anchor == labels(made)["middle"]
    assert "slow is not among the chosen samplers: middle is the anchor" in said


def test_the_timing_block_changes_no_cell(world: World) -> None:
    plain = suite(*THREE, timing=None)
    assert [cell.id for cell in plain.cells] == [cell.id for cell in suite(*THREE).cells]
    assert all("timing" not in cell.spec for cell in plain.cells)
    for wrong in ({"batches": []}, {"batches": [0]}, {"rounds": 0}, {"seconds": 0.0}, {"round": 3}):
        with pytest.raises(SuiteError, match="timing"):
            suite(*THREE, timing=wrong)
    with pytest.raises(SuiteError, match="cannot be an axis"):
        suite(*THREE, grid={"timing.rounds": [1, 2]})


SUITE = """
schema_version: 1
name: times
data: {name: gmm_ring, train: 60, validation: 20, test: 20}
score: mixture
process: ve
samplers:
  - {name: pf_ode_heun, steps: 20, label: heun_20}
  - {name: pf_ode_heun, steps: 1, label: heun_1}
n_samples: 8
batch_size: 4
latency_repeats: 2
device: cpu
timing: {batches: [1, 4], rounds: 6, seconds: 10.0}
"""


def test_the_verb_times_a_run_and_writes_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("suite.yaml").write_text(SUITE)
    with pytest.raises(SystemExit) as ended:
        main(["time", "suite.yaml", "--out", "run"])
    assert ended.value.code == 2
    assert "Run the suite first" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["run", "suite.yaml", "--out", "run"])
    assert ended.value.code == 0
    assert "Speed: gmm_ring" in Path("run/report.html").read_text()  # the suite asks for it
    Path("run/timing.json").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["time", "suite.yaml", "--out", "run", "--json"])
    assert ended.value.code == 0
    captured = capsys.readouterr()
    (timed,) = json.loads(captured.out)["sets"]
    found = {(one["label"], one["batch"]): one for one in timed["compared"]}
    single = found["heun_1", 1]
    # 39 evaluations against 1; on a busy machine the interval is wide, but one side is sure
    assert 1.0 < single["speed_up_low"] < single["speed_up"] < single["speed_up_high"]
    report = Path("run/report.html").read_text()
    assert "Speed: gmm_ring" in report
    assert "times as fast as heun_20" in report
    with pytest.raises(SystemExit) as ended:  # taken already: shown again
        main(["time", "suite.yaml", "--out", "run"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "timed already: heun_20, heun_1" in shown
    Path("run/timing.json").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["run", "suite.yaml", "--out", "run"])
    assert ended.value.code == 0
    assert "timing in turns at batch 4 (2 of 2): heun_20, heun_1" in capsys.readouterr().out

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "interleaved_times", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["time", "suite.yaml", "--out", "run", "--force"])
    assert ended.value.code == 130
    assert "run the same command again" in capsys.readouterr().err
    assert "times as fast as heun_20" in Path("run/report.html").read_text()
    assert "times as fast, batch 4" in shown
