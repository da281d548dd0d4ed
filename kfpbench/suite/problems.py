"""What is wrong with a suite, and where: every problem of a document is collected and reported at once."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from kfpbench.errors import SuiteError

Path = tuple[str | int, ...]

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = _shorten.maxlong = 100
_shorten.maxdict = _shorten.maxlist = _shorten.maxtuple = 6
_shorten.maxlevel = 3


class Shown(str):
    """Text that an error shows as it stands; used to keep huge values out of messages."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class SuiteErrors(SuiteError):
    """Several problems of one suite, each on a line of the message and, one by one, in ``problems``."""

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        allowed: object = None,
        remedy: str | None = None,
        where: str | None = None,
        problems: Sequence[SuiteError] = (),
    ) -> None:
        super().__init__(what, got=got, allowed=allowed, remedy=remedy, where=where)
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling between processes with every problem."""
        return (combine, (self.problems,))


@dataclass(frozen=True)
class Problem:
    """One fault at a path of a document (or below it); ``at_key`` points at the key instead of its value.

    ``in_cells`` says in which of the cells it shows, where that is not all of them.
    """

    path: Path
    what: str
    got: object = None
    allowed: str | None = None
    remedy: str | None = None
    at_key: bool = False
    in_cells: str = ""

    def under(self, prefix: Path) -> Problem:
        """The same problem of a block that stands at ``prefix``."""
        return replace(self, path=prefix + self.path)

    def error(self, where: str | None) -> SuiteError:
        """The error to raise, located at ``where``."""
        got = None if self.got is None else Shown(_shorten.repr(self.got))
        what = self.what + self.in_cells
        return SuiteError(what, got=got, allowed=self.allowed, remedy=self.remedy, where=where)


def combine(errors: Sequence[SuiteError]) -> SuiteError:
    """One error for all: itself when there is only one, otherwise a SuiteErrors with one line for each."""
    unique = list({str(error): error for error in errors}.values())
    if len(unique) == 1:
        return unique[0]
    lines = "".join(f"\n  {error}" for error in unique)
    return SuiteErrors(f"{len(unique)} problems:{lines}", problems=unique)


def dotted(path: Iterable[str | int]) -> str:
    """A path as it is written in a grid: ``samplers.spectral.operator.eta``."""
    return ".".join(str(part) for part in path)


def closest(name: object, candidates: Iterable[str], *, under: str = "") -> str | None:
    """A remedy that names the most similar candidate, or None when nothing is similar.

    ``under`` is the path at which the candidates stand: shown, but not compared, since whole paths look alike.
    """
    matches = difflib.get_close_matches(str(name), list(candidates), n=1, cutoff=0.5)
    if not matches:
        return None
    match = dotted((under, matches[0])) if under else matches[0]
    return f"Did you mean {match!r}?"


def meant_name(block: Iterable[object]) -> str | None:
    """A remedy for a component's block without ``name``: the key that was meant, or None when none is similar."""
    matches = difflib.get_close_matches("name", [str(key) for key in block], n=1, cutoff=0.75)
    return f"Write 'name' for {matches[0]!r}." if matches else None


_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
    "string_pattern_mismatch": ("pattern", "text that matches"),
    "too_short": ("min_length", "a length of at least"),
    "too_long": ("max_length", "a length of at most"),
    "string_too_short": ("min_length", "a length of at least"),
    "string_too_long": ("max_length", "a length of at most"),
}


def from_pydantic(
    error: ValidationError,
    document: object,
    known: Iterable[str],
    below: Mapping[str, Iterable[str]] | None = None,
) -> list[Problem]:
    """The problems that pydantic found in ``document``, one for each offending key or value.

    The branches of a union, which pydantic reports one by one, become one problem that names all
    alternatives. ``known`` are the keys that the document may have, ``below`` those of its nested mappings.
    """
    known = list(known)
    problems: dict[Path, Problem] = {}
    for detail in error.errors(include_url=False):
        path = _existing(document, detail["loc"])
        kind = detail["type"]
        if kind == "missing":
            key = str(detail["loc"][-1])
            problems[(*path, key)] = Problem(path, f"the required key {key!r} is missing")
        elif kind == "extra_forbidden":
            problems[path] = unknown_key(path, known if len(path) == 1 else (below or {}).get(str(path[0]), ()))
        else:
            allowed = _allowed(kind, detail.get("ctx", {}))
            got = value_at(document, path)
            earlier = problems.get(path)
            if earlier is not None and allowed and earlier.allowed:
                if allowed not in earlier.allowed.split(" or "):
                    problems[path] = replace(earlier, allowed=f"{earlier.allowed} or {allowed}")
                continue
            name = dotted(path) or "the document"
            what = f"{name} cannot have this value" if allowed else f"{name}: {_first_lower(detail['msg'])}"
            # null is a value like any other, but an error shows no `got` for None
            shown = Shown("null") if got is None else got
            problems[path] = Problem(path, what, got=shown, allowed=allowed)
    return [_with_hint(problem) for problem in problems.values()]


def unknown_key(path: Path, known: Iterable[str]) -> Problem:
    """The problem of a key at ``path`` that is not one of the ``known``."""
    known = list(known)
    return Problem(
        path,
        f"unknown key in {dotted(path[:-1])}" if path[:-1] else "unknown key",
        got=path[-1],
        allowed=", ".join(known) or "none",
        remedy=closest(path[-1], known),
        at_key=True,
    )


def value_at(document: object, path: Path) -> Any:
    """The value at a path that exists in the document."""
    value: Any = document
    for part in path:
        value = value[part]
    return value


def _existing(document: object, loc: Sequence[str | int]) -> Path:
    """The longest beginning of a pydantic location that is in the document: drops the names of union
    branches."""
    path: list[str | int] = []
    value: Any = document
    for part in loc:
        inside = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if not inside:
            break
        path.append(part)
        value = value[part]
    return tuple(path)


def _allowed(kind: str, context: dict[str, Any]) -> str | None:
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = context[key]
        return f"{words} {bound:g}" if isinstance(bound, float) else f"{words} {bound}"
    return _EXPECTED.get(kind)


def _with_hint(problem: Problem) -> Problem:
    """Adds the usual remedy: remove quotes from a number, or take the closest of the allowed words."""
    if not isinstance(problem.got, str) or isinstance(problem.got, Shown):
        return problem
    if problem.allowed is None or problem.remedy is not None:
        return problem
    words = [word.strip("'") for word in problem.allowed.replace(" or ", ", ").split(", ") if "'" in word]
    remedy = closest(problem.got, words)
    if remedy is None and "number" in problem.allowed + problem.allowed.replace("integer", "number"):
        try:
            float(problem.got)
        except ValueError:
            return problem
        remedy = "Remove the quotes."
    return replace(problem, remedy=remedy)


def _first_lower(message: str) -> str:
    return message[:1].lower() + message[1:]
