from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from kfpbench import register
from kfpbench.errors import CapabilityError, ParameterError, SuiteError
from kfpbench.protocols import Kernel, SamplerPlugin
from kfpbench.suite.components import check_block, create


class StandIn:
    """Nothing is run here: whatever a protocol asks for, it is said to be there."""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(name)


def test_a_canonical_block_has_every_default_at_every_depth() -> None:
    checked = check_block("samplers", {"name": "spectral", "kernel": "rough"})
    assert checked.problems == ()
    assert checked.block == {
        "name": "spectral",
        "kernel": {"name": "rough", "nu": 0.5, "scales": [1.0, 2.0]},
        "operator": {"eta": 1.0, "frame": "raw"},
        "eigensolver": {"name": "plain", "tolerance": 1e-8},
        "backend": {"name": "matrix", "tile": 64},
        "rank": 4,
        "cutoff": None,
        "refiner": None,
    }


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("spectral", {"name": "spectral"}),
        (
            {"name": "spectral", "kernel": "gauss"},
            {"name": "spectral", "kernel": {"bandwidth": "median", "name": "gauss"}},
        ),
        (
            {"name": "spectral", "operator": {"eta": 1}},
            {"name": "spectral", "operator": {"frame": "raw", "eta": 1.0}},
        ),
        ({"name": "spectral", "cutoff": 2}, {"cutoff": 2.0, "name": "spectral"}),
    ],
)
def test_equal_blocks_have_one_canonical_form(short: object, long: object) -> None:
    left, right = check_block("samplers", short).block, check_block("samplers", long).block
    assert left == right
    assert left is not None
    assert repr(sorted(left.items())) == repr(sorted(right.items()))  # type: ignore[union-attr]  # 1 and 1.0 differ


def test_a_canonical_block_is_its_own_canonical_form() -> None:
    block = check_block("samplers", {"name": "spectral", "refiner": {"name": "steps", "steps": 3}}).block
    assert check_block("samplers", block).block == block


def test_create_builds_everything_that_is_nested() -> None:
    refiner = {"name": "steps", "steps": 3}
    kernel = {"name": "summed", "kernels": ["gauss", {"name": "rough", "nu": 2, "scales": [3]}]}
    sampler = create(
        "samplers",
        {"name": "spectral", "label": "any", "kernel": kernel, "operator": {"eta": 0}, "refiner": refiner},
    )
    assert type(sampler).__name__ == "Spectral"
    first, second = sampler.kernel.kernels
    assert (type(first).__name__, first.bandwidth) == ("Gauss", "median")
    assert (second.nu, second.scales) == (2.0, (3.0,))  # a tuple again
    assert (sampler.operator.eta, sampler.operator.frame) == (0.0, "raw")
    assert sampler.refiner.steps == 3
    assert sampler.eigensolver.tolerance == 1e-8


def test_create_leaves_out_the_keys_of_the_place() -> None:
    data = create("datasets", {"name": "toy", "reference": "test", "train_size": None, "folder": "x"})
    assert data.folder == Path("x")
    assert create("spectrum", {"label": "eig", "points": 50}).points == 50
    assert create("kernels", "gauss").bandwidth == "median"


def test_create_lets_errors_of_constructors_through() -> None:
    with pytest.raises(ParameterError, match="rank is larger"):
        create("samplers", {"name": "spectral", "rank": 101})
    with pytest.raises(CapabilityError):
        create("samplers", {"name": "spectral", "rank": 99})


def test_create_refuses_a_bad_block_with_every_problem() -> None:
    with pytest.raises(SuiteError) as caught:
        create("samplers", {"name": "spectral", "ranks": 3, "kernel": {"name": "gauss", "bandwidth": -1}})
    message = str(caught.value)
    assert "2 problems" in message
    assert "Did you mean 'rank'?" in message
    assert "kernel.bandwidth: bandwidth cannot have this value; got -1; allowed: more than 0 or 'median'" in message


@pytest.mark.parametrize(
    ("kind", "raw", "path", "says"),
    [
        ("kernels", 3, (), "allowed: a name, or {name: ..., parameters}"),
        ("kernels", None, (), "not a component"),
        ("kernels", {}, (), "needs the key 'name'"),
        ("kernels", {"nam": "gauss"}, (), "Write 'name' for 'nam'."),
        ("kernels", {"name": 3}, ("name",), "not the name"),
        ("kernels", "gaus", ("name",), "Did you mean 'gauss'?"),
        ("samplers", {"name": "spectral", "kernel": "gaus"}, ("kernel", "name"), "Did you mean 'gauss'?"),
        ("samplers", {"name": "spectral", "kernel": None}, ("kernel",), "not a component"),
        ("samplers", {"name": "spectral", "operator": 3}, ("operator",), "allowed: a mapping"),
        (
            "samplers",
            {"name": "spectral", "operator": {"etaa": 3}},
            ("operator", "etaa"),
            "Did you mean 'eta'?",
        ),
        ("samplers", {"name": "spectral", "operator": {"eta": -1}}, ("operator", "eta"), "at least 0"),
        (
            "samplers",
            {"name": "spectral", "operator": {"frame": "white"}},
            ("operator", "frame"),
            "'whitened'?",
        ),
        ("samplers", {"name": "steps"}, (), "the required key 'steps' is missing"),
        ("samplers", {"name": "steps", "steps": "5"}, ("steps",), "Remove the quotes"),
        ("samplers", {"name": "steps", "steps": None}, ("steps",), "got null; allowed: an integer"),
        ("samplers", {"name": "steps", "steps": 5, "label": "x"}, ("label",), "unknown key"),
        ("kernels", {"name": "summed", "kernels": "gauss"}, ("kernels",), "allowed: a list"),
        ("kernels", {"name": "summed", "kernels": ["gauss", "gaus"]}, ("kernels", 1, "name"), "'gauss'?"),
        ("metrics", {"name": "distance", "weights": [1, "x"]}, ("weights", 1), "allowed: a number"),
    ],
)
def test_problems_of_blocks(kind: str, raw: object, path: tuple[str | int, ...], says: str) -> None:
    checked = check_block(kind, raw)
    assert checked.block is None
    [problem] = checked.problems
    assert problem.path == path
    assert says in str(problem.error(None))


def test_a_default_that_nests_itself_is_reported() -> None:
    @register("samplers", "endless")
    class Endless(StandIn):
        def __init__(self, refiner: SamplerPlugin | str = "endless") -> None:
            pass

    [problem] = check_block("samplers", "endless").problems
    assert "nested too deeply" in problem.what


def test_a_default_that_its_annotation_forbids_is_reported() -> None:
    @register("kernels", "contradictory")
    class Contradictory(StandIn):
        def __init__(self, width: float = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
            pass

    [problem] = check_block("kernels", "contradictory").problems
    assert "has a default that its own annotation does not allow" in problem.what


def test_a_bound_on_a_whole_union_is_reported_and_not_raised() -> None:
    @register("kernels", "loose")
    class Loose(StandIn):
        def __init__(self, width: Annotated[float | Literal["auto"], Field(gt=0)] = 1.0) -> None:
            pass

    assert check_block("kernels", {"name": "loose", "width": 2}).block == {"name": "loose", "width": 2.0}
    [problem] = check_block("kernels", {"name": "loose", "width": "auto"}).problems
    assert "gt" in problem.what


def test_a_parameter_may_not_take_the_name_of_a_key_of_the_suite() -> None:
    @register("datasets", "greedy")
    class Greedy(StandIn):
        def __init__(self, reference: str = "x", kernel: Kernel | str = "gauss") -> None:
            pass

    [problem] = check_block("datasets", "greedy", in_place=True).problems
    assert "'reference'" in problem.what


def test_a_class_without_what_its_protocol_asks_for_is_reported() -> None:
    @register("kernels", "hollow")
    class Hollow:
        smoothness = 2.0

        def fit(self, points: object) -> object:
            return self

    [problem] = check_block("kernels", {"name": "hollow"}).problems
    assert problem.what.startswith("'hollow' is no component of kernels: it lacks the method describe(); a formula")
    assert "python -m kfpbench.testing kernels" in str(problem.remedy)
