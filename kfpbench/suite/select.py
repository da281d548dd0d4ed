"""Choose some cells of a plan: ``--select key=value``.

The rule. A cell has facts: its `label`, `kind`, `id`, `index`, `repeat` and `seed`; `sampler` or `spectrum`
with its label; each of its axes; each leaf of its spec by dotted path; and for each component block the
path of the block with the component's name. An expression ``key=value`` matches a cell with a fact whose
path is ``key`` or ends in ``.key`` and whose value is ``value``, read as YAML (so 0 matches 0.0).
Expressions with the same key are alternatives; those with different keys must all match.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kfpbench.errors import SuiteError
from kfpbench.suite.cell import Cell
from kfpbench.suite.problems import closest
from kfpbench.suite.yaml_source import parse_value

MAX_LISTED = 20


def select_cells(cells: Sequence[Cell], expressions: Sequence[str]) -> list[Cell]:
    """The cells that match, in their order; all of them for no expression.

    Raises SuiteError for an expression that matches no cell, listing the values that there are, and for
    expressions that match no cell together.
    """
    facts = [list(_facts(cell)) for cell in cells]
    wanted: dict[str, list[Any]] = {}
    for text in expressions:
        key, value = _parse(text)
        values = [fact for known in facts for path, fact in known if _names(path, key)]
        if not values:
            paths = sorted({path for known in facts for path, _ in known})
            raise SuiteError(
                "no cell has such a key",
                got=key,
                allowed=_listed(paths),
                remedy=closest(key, paths),
                where=f"--select {text}",
            )
        if not any(_same(value, fact) for fact in values):
            distinct: list[Any] = []
            for fact in values:
                if not any(_same(fact, other) for other in distinct):
                    distinct.append(fact)
            shown = [str(fact) for fact in distinct]
            raise SuiteError(
                "no cell has this value",
                got=value,
                allowed=_listed(shown),
                remedy=closest(value, shown),
                where=f"--select {text}",
            )
        wanted.setdefault(key, []).append(value)
    chosen = [
        cell
        for cell, known in zip(cells, facts, strict=True)
        if all(
            any(_names(path, key) and any(_same(value, fact) for value in values) for path, fact in known)
            for key, values in wanted.items()
        )
    ]
    if not chosen and expressions:
        raise SuiteError(
            "no cell matches all of these at once",
            remedy="Expressions with different keys must all match; drop one of them.",
            where=" ".join(f"--select {text}" for text in expressions),
        )
    return chosen


def spectrum_selection(cells: Sequence[Cell], expressions: Sequence[str]) -> list[str]:
    """The expressions for those cells among the selected ones that are spectra.

    Raises SuiteError when the plan has no spectrum, or none of them is selected.
    """
    spectra = [cell for cell in cells if cell.kind == "spectrum"]
    if not spectra:
        raise SuiteError(
            "the suite has no spectrum cells",
            allowed="at least one entry under `spectrum:`",
            remedy="Add one, or use `kfpbench run` for its samplers.",
        )
    select_cells(spectra, expressions)
    return [*(text for text in expressions if _parse(text)[0] != "kind"), "kind=spectrum"]


def _parse(text: str) -> tuple[str, Any]:
    key, equals, written = text.partition("=")
    if not equals or not key.strip():
        raise SuiteError("a selection is key=value", got=text, allowed="sampler=heun", where=f"--select {text}")
    try:
        return key.strip(), parse_value(written, "value")
    except SuiteError:
        return key.strip(), written  # not YAML: taken as it stands, like the text it is compared with


def _names(path: str, key: str) -> bool:
    return path == key or path.endswith("." + key)


def _same(value: object, fact: object) -> bool:
    if isinstance(value, bool) or isinstance(fact, bool):
        return value is fact
    return value == fact or str(value) == str(fact)


def _facts(cell: Cell) -> Iterator[tuple[str, Any]]:
    yield "label", cell.label
    yield "kind", cell.kind
    yield "id", cell.id
    yield "index", cell.index
    yield "repeat", cell.repeat
    yield "sampler" if cell.kind == "sample" else "spectrum", cell.label
    for path, value in cell.axes.items():
        yield from _leaves(path, value)
    for key, value in cell.spec.items():
        yield from _leaves(key, value)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield path, value["name"]
        for key, child in value.items():
            yield from _leaves(f"{path}.{key}", child)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, child in enumerate(value):
            yield from _leaves(f"{path}.{index}", child)
            if isinstance(child, dict) and isinstance(child.get("name"), str):
                yield path, child["name"]
    else:
        yield path, value


def _listed(values: Sequence[str]) -> str:
    more = f", and {len(values) - MAX_LISTED} more" if len(values) > MAX_LISTED else ""
    return ", ".join(values[:MAX_LISTED]) + more
