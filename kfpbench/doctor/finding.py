"""What a check returns, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found, in words. ``fix`` is what to do, in words or as a command; empty where all is well.

    ok: nothing to do. warning: kfpbench works, but slower, with fewer components or with disturbed timings. problem:
    something that was asked for, or that every run needs, will not work.
    """

    check: str
    status: Status
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Scope:
    """How far to look. ``quick``: compile nothing. ``data``: load this data set whole."""

    quick: bool = False
    data: str | None = None


Check = Callable[[Scope], Iterable[Finding]]


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, fix: str) -> Finding:
    """It works, but not as well as it could."""
    return Finding(check, "warning", found, fix)


def problem(check: str, found: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, "problem", found, fix)


def one_line(text: object) -> str:
    """Someone's message on one line, without control characters, which must not reach a terminal."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(str(text).split()))
