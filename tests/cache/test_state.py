"""States: what is told of an object makes an equal one; nothing from elsewhere is made, and nothing is called."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from kfpbench.cache.entry_file import About, decode, encode
from kfpbench.cache.state import NotKept, State, rebuild, tell
from kfpbench.data.digits import Digits
from kfpbench.noise import NoiseStream
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import Problem
from kfpbench.registry import find
from kfpbench.scores.empirical import EmpiricalScore

HERE = frozenset({__name__, "kfpbench"})
SMALL = GeneratorOptions(segments=2, points=60)


@dataclass(frozen=True)
class Leaf:
    """A class of this module."""

    rows: Any
    more: dict[str, Any] = field(default_factory=dict)


def _through_a_file(value: Any, given: dict[str, object] | None = None, packages: frozenset[str] = HERE) -> Any:
    about = About("k", "n", 1.0, "", {}, {})
    return rebuild(decode(encode(about, tell(value, given, packages)))[1], given, packages)


def test_values_of_every_kind_come_back_with_their_types() -> None:
    value = {
        "numbers": [1, 2.5, True, None, 1 + 2j, float("inf"), np.float32(0.1), np.int64(3)],
        "pairs": ((1, 2), [3]),
        4: torch.float64,
        "on": torch.device("cpu"),
    }
    made = _through_a_file(value)
    assert made == value
    assert [type(part) for part in made["numbers"]] == [type(part) for part in value["numbers"]]
    assert isinstance(made["pairs"][0], tuple)


def test_arrays_lie_in_memory_as_they_lay_and_stay_locked() -> None:
    transposed = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).T
    locked = np.arange(6.0).reshape(2, 3)[:, ::-1].T.copy(order="F")
    locked.setflags(write=False)
    made = _through_a_file(Leaf([transposed, locked, np.ones(3)]))
    assert made.rows[0].stride() == transposed.stride()
    assert torch.equal(made.rows[0], transposed)
    assert made.rows[1].strides == locked.strides
    assert not made.rows[1].flags.writeable
    assert made.rows[2].flags.writeable
    np.testing.assert_array_equal(made.rows[1], locked)


def test_what_occurs_twice_is_one_object_again_in_any_order_of_names() -> None:
    shared = Leaf(np.ones(3))
    made = _through_a_file({"z": shared, "a": [shared, shared], "m": Leaf(1, {"y": shared, "b": shared})})
    assert made["z"] is made["a"][0] is made["a"][1] is made["m"].more["y"] is made["m"].more["b"]


def test_what_is_given_is_not_told() -> None:
    data = np.zeros((1000, 10))
    state = tell(Leaf([data, np.ones(2)]), {"train": data}, HERE)
    assert [array.size for array in state.arrays.values()] == [2]
    assert rebuild(state, {"train": data}, HERE).rows[0] is data


@pytest.mark.parametrize(
    "value",
    [
        lambda: 1,
        threading.Lock(),
        torch.nn.Linear(2, 2),
        np.array([object()]),
        {1, 2},
        Leaf,
        torch.ones(2, requires_grad=True),
        open,
    ],
)
def test_what_cannot_be_told_is_refused(value: Any) -> None:
    with pytest.raises(NotKept):
        tell(Leaf([value]), {}, HERE)


def test_an_object_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(NotKept):
        tell(ring)


@pytest.mark.parametrize(
    "tree",
    [
        {"new": {"class": ["os", "_Environ"], "attributes": {}}},
        {"new": {"class": ["subprocess", "Popen"], "attributes": {"args": "true"}}},
        {"new": {"class": ["kfpbench.registry", "load_plugin_file"], "attributes": {}}},
        {"new": {"class": ["kfpbench.registry", "importlib.util"], "attributes": {}}},
        {"new": {"class": ["kfpbench.no_such_module", "A"], "attributes": {}}},
        {"new": {"array": "a7"}},
        {"new": {"dtype": "load"}},
        {"again": 3},
        {"given": "secret"},
        {"eval": "1"},
        {},
        {"new": {"what": 1}},
    ],
)
def test_a_state_that_names_code_or_nothing_makes_nothing(tree: Any) -> None:
    with pytest.raises(NotKept):
        rebuild(State(tree))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("koopman", {"operator": SMALL}),
        ("koopman", {"operator": GeneratorOptions(segments=2, points=60, eta=1.0), "covariance": "kernel"}),
        ("koopman", {"operator": GeneratorOptions(segments=2, points=60, frame="posterior"), "components": 5}),
        ("koopman", {"operator": GeneratorOptions(time="augmented", segments=2, points=60)}),
        ("density", {"operator": SMALL}),
        ("density", {"operator": SMALL, "smoothing": "local_low_rank", "clusters": 3}),
        ("gaussian", {}),
        ("gaussian_mixture", {"components": 3, "rank": 4}),
        ("partitioned", {"parts": 2}),
        ("jump", {"sigma_star": 1.0}),
    ],
)
def test_a_fitted_sampler_draws_the_same_bits_after_it_was_kept(name: str, parameters: dict[str, Any]) -> None:
    data = Digits().load()
    cpu, dtype = torch.device("cpu"), torch.float32
    score = EmpiricalScore().bind(data, cpu, dtype)
    problem = Problem(data, VarianceExploding(0.05, 10.0), score, cpu, dtype, 3)
    fitted = find("samplers", name).load()(**parameters).fit(problem)
    given = {"problem": problem, "dataset": data, "process": problem.process, "score": score, "train": data.train}
    made = _through_a_file(fitted, given, frozenset({"kfpbench", "kfpbench_baselines"}))
    noise = NoiseStream.of_range(5, 0, 20, data.dimension, cpu, dtype)
    assert torch.equal(made.sample(noise), fitted.sample(noise))
    assert made.describe() == fitted.describe()
