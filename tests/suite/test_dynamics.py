# ruff: noqa: E501  (whole messages are expected, each on its line)
"""Score and process may be left out where a spectrum is that of a data set's own dynamics, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kfpbench.suite.cell import cell_id
from kfpbench.suite.components import has_own_dynamics, reference_problems
from kfpbench.suite.loaded import Suite
from kfpbench.suite.select import select_cells

Load = Callable[..., Suite]
Refused = Callable[..., list[str]]

OWN = "name: own\ndata: diffusion\nspectrum: [{points: 5}]\n"


def test_a_problem_with_dynamics_of_its_own_needs_neither(load: Load) -> None:
    (cell,) = load(OWN).cells
    assert cell.kind == "spectrum"
    assert (cell.spec["score"], cell.spec["process"]) == (None, None)
    assert cell.id == cell_id(cell.spec)
    # null says the same as silence
    assert load(OWN + "score: null\nprocess: null\n").cells[0].id == cell.id
    # the reverse process of the same data set is other work
    assert load(OWN + "score: exact\nprocess: bridge\n").cells[0].id != cell.id
    assert select_cells([cell], ["data=diffusion", "score=null"]) == [cell]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OWN.replace("diffusion", "toy"), [
            "suite.yaml:1:1: the required key 'score' is missing. Give a score and a process, or take a data set with dynamics of its own: {known}.",
            "suite.yaml:1:1: the required key 'process' is missing. Give a score and a process, or take a data set with dynamics of its own: {known}.",
        ]),
        (OWN.replace("diffusion", "toy") + "score: exact\nprocess: null\n", [
            "suite.yaml:5:10: process cannot be null here. Give a score and a process, or take a data set with dynamics of its own: {known}.",
        ]),
        (OWN + "score: exact\n", [
            "suite.yaml:1:1: the required key 'process' is missing. Give both for the reverse process, or neither for the dynamics of the data set itself.",
        ]),
        (OWN + "samplers: [{name: steps, steps: 3}]\nprocess: bridge\nscore: null\n", [
            "suite.yaml:6:8: score cannot be null here. A sampler needs a score and a process.",
            "suite.yaml:6:8: score cannot be null here. Give both for the reverse process, or neither for the dynamics of the data set itself.",
        ]),
        (OWN + "score: 3\n", ["suite.yaml:4:8: score cannot have this value; got 3; allowed: a mapping"]),
    ],
    ids=["ordinary data", "ordinary data, null", "one of two", "sampler", "no block"],
)  # fmt: skip
def test_a_missing_score_or_process_is_refused(refused: Refused, text: str, expected: list[str]) -> None:
    known = ", ".join(reference_problems())
    found = refused(text)
    assert set(found) <= {line.replace("{known}", known) for line in expected}
    assert found[0] == expected[0].replace("{known}", known)


def test_every_cell_of_a_grid_is_checked(refused: Refused, load: Load) -> None:
    varied = OWN + "grid: {data.name: [diffusion, toy]}\n"
    first, *_ = refused(varied)
    assert first.startswith(
        "suite.yaml:1:1: the required key 'score' is missing (in 1 of 2 cells, first where data.name=toy)"
    )
    whole = OWN + 'grid: {"data, score, process": [[diffusion, null, null], [toy, exact, bridge]]}\n'
    own, reverse = load(whole).cells
    assert (own.spec["score"], reverse.spec["score"]) == (None, {"name": "exact"})


def test_which_data_sets_are_reference_problems() -> None:
    assert has_own_dynamics("diffusion")
    assert not has_own_dynamics("toy")
    known = reference_problems()
    assert {"diffusion", "double_well", "ornstein_uhlenbeck", "rotating_ou"} <= set(known)
    assert not {"toy", "gmm_ring", "digits", "cifar10"} & set(known)
