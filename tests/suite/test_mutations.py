"""Whatever is done to a suite, the outcome is a plan or a SuiteError that says where."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfpbench.errors import SuiteError
from kfpbench.suite.cell import cell_id
from kfpbench.suite.load import load_suite, suite_from_mapping

RELAXED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
DOCUMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "demo",
    "seed": 3,
    "repeats": 2,
    "data": {"name": "toy", "size": 20, "train_size": 4},
    "score": "exact",
    "process": {"name": "bridge", "t_max": 2.0},
    "samplers": [
        {"name": "spectral", "kernel": {"name": "gauss", "bandwidth": 1}, "operator": {"eta": 0.5}},
        {"name": "steps", "label": "heun", "steps": 5},
    ],
    "spectrum": [{"label": "eig", "points": 10}],
    "grid": {
        "data.size": [1, 2],
        "samplers.spectral.operator.eta": [0, 1],
        "seed, n_samples": [[1, 2], [3, 4]],
    },
    "metrics": ["distance", {"name": "distance", "features": {"name": "projected"}}],
    "budget": {"seconds": 3},
    "n_samples": 10,
}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.sampled_from([10**30, -(10**399)]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["toy", "gauss", "spectral", "heun", "distance", "median", "data.size", "grid", "*", "a,b"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
PARTS = (
    "data samplers spectrum metrics grid budget spectral heun eig name kernel kernels "
    "operator eta size label 0 distance features seed refiner"
)
PATHS = st.lists(st.sampled_from([*PARTS.split(), ""]), min_size=1, max_size=5).map(".".join)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in items for place in places(child, (*path, key)))]


def attempt(document: dict[str, Any], overrides: list[str]) -> None:
    try:
        suite = suite_from_mapping(document, overrides=overrides)
    except SuiteError:
        return
    assert suite.cells
    assert len({cell.id for cell in suite.cells}) == len(suite.cells)
    assert all(cell.id == cell_id(cell.spec) for cell in suite.cells)


def test_the_document_itself_is_valid() -> None:
    assert len(suite_from_mapping(DOCUMENT).cells) == (2 + 1 + 1) * 2 * 2 * 2


@RELAXED
@given(data=st.data())
def test_mutated_documents(data: st.DataObject) -> None:
    document = copy.deepcopy(DOCUMENT)
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from([place for place in places(document) if place]))
        holder: Any = document
        for part in parents:
            holder = holder[part]
        action = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            del holder[last]
        elif action == "add" and isinstance(holder, dict):
            holder[data.draw(st.text(max_size=8) | PATHS)] = data.draw(VALUES)
        else:
            holder[last] = data.draw(VALUES)
    attempt(document, [])


@RELAXED
@given(st.lists(st.tuples(PATHS, VALUES | st.text(max_size=6)), min_size=1, max_size=2), st.booleans())
def test_mutated_overrides(changes: list[tuple[str, Any]], in_grid: bool) -> None:
    if in_grid:
        document = {**copy.deepcopy(DOCUMENT), "grid": {path: [value] for path, value in changes}}
        attempt(document, [])
    else:
        attempt(copy.deepcopy(DOCUMENT), [f"{path}={value!r}" for path, value in changes])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations")


@RELAXED
@given(data=st.data())
def test_mutated_texts(data: st.DataObject, folder: Path, base: str) -> None:
    text = base + "grid:\n  data.size: [1, 2]\n  'seed, n_samples': [[1, 2], [3, 4]]\n"
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 10)))
        text = (
            text[:start]
            + data.draw(st.text(max_size=4) | st.text(":-[]{}&*!|>'\"%@?,# \n\t\\<=", max_size=6))
            + text[end:]
        )
    path = folder / "suite.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    problems: list[SuiteError] = []
    try:
        assert load_suite(path).cells
    except SuiteError as error:
        problems += getattr(error, "problems", None) or [error]
    assert all(str(problem.where).startswith(f"{path}:") for problem in problems)


@RELAXED
@given(content=st.binary(max_size=60))
def test_bytes(content: bytes, folder: Path) -> None:
    path = folder / "bytes.yaml"
    path.write_bytes(content)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert caught.value.where is None or caught.value.where.startswith(f"{path}:")
