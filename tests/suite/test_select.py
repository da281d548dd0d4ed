from __future__ import annotations

from collections.abc import Callable

import pytest

from kfpbench.errors import SuiteError
from kfpbench.suite.cell import Cell
from kfpbench.suite.loaded import Suite
from kfpbench.suite.select import select_cells


@pytest.fixture
def cells(load: Callable[..., Suite], base: str) -> tuple[Cell, ...]:
    text = (
        base
        + "spectrum: [{label: eig}]\nrepeats: 2\ngrid: {data.size: [5, 6], samplers.spectral.operator.eta: [0, 1]}\n"
    )
    return load(text).cells  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("expressions", "count"),
    [
        ([], 16),
        (["label=heun"], 4),
        (["sampler=heun"], 4),
        (["sampler=steps"], 4),  # its component
        (["sampler=heun", "sampler=spectral"], 12),
        (["spectrum=eig"], 4),
        (["kind=spectrum"], 4),
        (["samplers.spectral.operator.eta=0"], 4),
        (["operator.eta=0"], 4),
        (["eta=0.0"], 4),
        (["eta=1", "kind=sample"], 4),
        (["data.size=5"], 8),
        (["size=5", "size=6"], 16),
        (["data=toy"], 16),
        (["kernel=gauss"], 12),
        (["kernel.name=gauss", "data.size=6", "seed=1"], 3),
        (["repeat=0"], 8),
        (["metrics=distance"], 16),
        (["corrector=false"], 4),
        (["cutoff=null"], 8),
        (["index=3"], 1),
    ],
)
def test_selections(cells: tuple[Cell, ...], expressions: list[str], count: int) -> None:
    chosen = select_cells(cells, expressions)
    assert len(chosen) == count
    assert [cell.index for cell in chosen] == sorted(cell.index for cell in chosen)


def test_an_id_may_look_like_a_number(cells: tuple[Cell, ...]) -> None:
    for cell in cells:
        assert select_cells(cells, [f"id={cell.id}"]) == [cell]


@pytest.mark.parametrize(
    ("expressions", "message"),
    [
        (["sampler=huen"], "--select sampler=huen: no cell has this value; got 'huen'; allowed: spectral, heun, steps. "
                           "Did you mean 'heun'?"),
        (["operator.eta=2"], "--select operator.eta=2: no cell has this value; got 2; allowed: 0, 1"),
        (["corrector=0"], "--select corrector=0: no cell has this value; got 0; allowed: False"),
        (["heun"], "--select heun: a selection is key=value; got 'heun'; allowed: sampler=heun"),
        (["operator.etta=2"], "--select operator.etta=2: no cell has such a key; got 'operator.etta'"),
        (["label=heun", "kind=spectrum"], "--select label=heun --select kind=spectrum: no cell matches all of these"),
        (["label=[x"], "--select label=[x: no cell has this value; got '[x'"),
    ],
)  # fmt: skip
def test_selections_that_match_nothing(cells: tuple[Cell, ...], expressions: list[str], message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        select_cells(cells, expressions)
    assert str(caught.value).startswith(message)
