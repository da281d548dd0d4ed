from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from kfpbench import registry
from kfpbench.errors import CapabilityError, SuiteError
from kfpbench.protocols import ProblemSize
from kfpbench.runner.dry_run import plan_as_json, plan_as_text
from kfpbench.runner.materials import Materials, predict_memory
from kfpbench.suite.components import create
from kfpbench.suite.load import suite_from_mapping
from kfpbench.suite.loaded import Suite


def suite(**changes: Any) -> Suite:
    base = {"name": "dry", "data": "unreadable", "score": "gaussian", "process": "ve", "samplers": ["gaussian"]}
    return suite_from_mapping({**base, "n_samples": 100, "device": "cpu", **changes})


@pytest.fixture(autouse=True)
def _unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set that must not be read, and samplers that cannot say what they need."""
    monkeypatch.setattr(registry, "_local", dict(registry._local))

    @registry.register("datasets", "unreadable")
    class Unreadable:
        def load(self) -> None:
            raise AssertionError("a dry run has read data")

        def size(self, reference: str = "validation") -> tuple[int, int]:
            return 2**20, 1024

    @registry.register("samplers", "unable")
    class Unable:
        def __init__(self) -> None:
            raise CapabilityError("not on this machine")

        def fit(self, problem: object) -> None: ...

        def working_memory(self, size: ProblemSize) -> int:
            return 0

    @registry.register("samplers", "clumsy")
    class Clumsy:
        def fit(self, problem: object) -> None: ...

        def working_memory(self, size: ProblemSize) -> int:
            return {}["memory"]


def test_one_line_a_cell_with_its_memory() -> None:
    loaded = suite(samplers=["gaussian", {"name": "pf_ode_heun", "steps": 2}], repeats=2)
    lines = plan_as_text(loaded).splitlines()
    assert lines[0] == "4 cells; predicted peak memory of each:"
    for cell, line in zip(loaded.cells, lines[1:], strict=True):
        ident, gib, unit, rest = line.split(maxsplit=3)
        assert (ident, unit) == (cell.id, "GiB")
        assert float(gib) == pytest.approx(predict_memory(cell) / 2**30, abs=0.006)
        assert rest == f"unreadable: {cell.label}" + (f" #{cell.repeat}" if cell.repeat else "")
    assert float(lines[1].split()[1]) > 4.0  # the data alone


def test_json_has_the_specs() -> None:
    loaded = suite(grid={"samplers.h.steps": [2, 3]}, samplers=[{"name": "pf_ode_heun", "label": "h"}])
    plan = json.loads(plan_as_json(loaded))["cells"]
    assert [one["axes"] for one in plan] == [{"samplers.h.steps": 2}, {"samplers.h.steps": 3}]
    for cell, one in zip(loaded.cells, plan, strict=True):
        assert (one["id"], one["label"], one["seed"], one["spec"]) == (cell.id, "h", 0, cell.spec)
        assert (one["predicted_memory_bytes"], one["reason"]) == (predict_memory(cell), "")


def test_select_lists_a_part() -> None:
    loaded = suite(samplers=["gaussian", {"name": "pf_ode_heun", "steps": 2}])
    assert len(plan_as_text(loaded, ["label=pf_ode_heun"]).splitlines()) == 2
    assert [one["label"] for one in json.loads(plan_as_json(loaded, ["label=gaussian"]))["cells"]] == ["gaussian"]
    with pytest.raises(SuiteError):
        plan_as_text(loaded, ["label=absent"])


def test_a_cell_that_cannot_tell_does_not_hide_the_others() -> None:
    loaded = suite(samplers=["unable", "clumsy", "gaussian"])
    unable, clumsy, gaussian = plan_as_text(loaded).splitlines()[1:]
    assert unable.endswith("? GiB  unreadable: unable  not on this machine")
    assert clumsy.endswith("? GiB  unreadable: clumsy  KeyError: 'memory'")
    assert gaussian.endswith("unreadable: gaussian")
    plan = json.loads(plan_as_json(loaded))["cells"]
    assert [one["predicted_memory_bytes"] is None for one in plan] == [True, True, False]
    assert plan[0]["reason"] == "not on this machine"


KOOPMAN: dict[str, Any] = {
    "name": "memory",
    "data": "digits",
    "score": "empirical",
    "process": "ve",
    "samplers": [{"name": "koopman", "operator": {"points": 700, "segments": 2}}],
    "n_samples": 500,
    "batch_size": 250,
    "latency_repeats": 1,
    "device": "cpu",
}


def tensor_bytes(holder: object, seen: set[int]) -> int:
    """Bytes of all distinct tensors that an object holds, at any depth."""
    if isinstance(holder, torch.Tensor):
        storage = holder.untyped_storage()
        if storage.data_ptr() in seen:
            return 0
        seen.add(storage.data_ptr())
        return storage.nbytes()
    if isinstance(holder, list | tuple):
        return sum(tensor_bytes(item, seen) for item in holder)
    if type(holder).__module__.startswith("kfpbench") and hasattr(holder, "__dict__"):
        return sum(tensor_bytes(item, seen) for item in vars(holder).values())
    return 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_prediction_covers_what_a_koopman_cell_holds(dtype: str) -> None:
    koopman = [{"name": "koopman", "operator": {"points": 100, "segments": 12}}]
    (cell,) = suite_from_mapping({**KOOPMAN, "samplers": koopman, "dtype": dtype}).cells
    problem = Materials().problem(cell)
    fitted = create("samplers", cell.spec["sampler"]).fit(problem)
    seen: set[int] = set()
    steps = tensor_bytes(fitted, seen)
    size = 8 if dtype == "float64" else 4
    assert steps >= 12 * 2 * 100 * 64 * size  # centres and weights of every segment: the count is not empty
    held = steps + tensor_bytes(problem.score, seen) + problem.dataset.train.nbytes + 500 * 64 * 4
    assert predict_memory(cell) >= held


MEASURE = """
import json, sys
from kfpbench.protocols import Problem
from kfpbench.runner.budget import Deadline
from kfpbench.runner.materials import Materials, predict_memory
from kfpbench.runner.memory import PeakMemory
from kfpbench.runner.sample_cell import Outcome, run_sample_cell
from kfpbench.suite.load import suite_from_mapping

def cell_of(points):
    suite = json.loads(sys.argv[1])
    suite["samplers"][0]["operator"]["points"] = points
    return suite_from_mapping(suite).cells[0]

run_sample_cell(cell_of(20), Materials(), Deadline(None), Outcome())  # libraries and their buffers
cell = cell_of(700)
with PeakMemory() as memory:
    run_sample_cell(cell, Materials(), Deadline(None), Outcome())
print(json.dumps([predict_memory(cell), memory.result.increase, memory.result.source]))
"""


def test_the_prediction_is_near_the_measured_increase() -> None:
    """Within a factor of three, libraries aside. In a fresh process: it has no freed memory that it could use again."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(KOOPMAN)], capture_output=True, text=True, timeout=120, check=True
    )
    predicted, increase, source = json.loads(done.stdout)
    if source != "VmHWM":
        pytest.skip(f"this platform measures no increase of the resident set: {source}")
    assert 1 / 3 < increase / predicted < 3, (predicted, increase)
