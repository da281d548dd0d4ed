"""What `kfpbench validate` says of a suite, as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from kfpbench.errors import KfpbenchError
from kfpbench.suite.loaded import Suite


def suite_as_text(suite: Suite) -> str:
    """A few lines: the number of cells, how many of each label, and the axes."""
    count = len(suite.cells)
    lines = [f"{suite.path or suite.model.name}: valid, {count} cell{'' if count == 1 else 's'}"]
    for label, number in Counter(cell.label for cell in suite.cells).items():
        lines.append(f"  {label}: {number}")
    for label, first in suite.shared.items():
        lines.append(f"  {label}: has cells equal to those of {first}, which are run once, as {first}")
    if suite.model.repeats > 1:
        lines.append(f"repeats: {suite.model.repeats}, seeds {suite.model.seed} and up")
    lines.append("axes:" if suite.axes else "axes: none")
    for key, values in suite.axes.items():
        lines.append(f"  {key}: {', '.join(_short(value) for value in values)}")
    return "\n".join(lines)


def suite_as_json(suite: Suite) -> dict[str, Any]:
    """The same for programs, with the id and axes of every cell."""
    return {
        "valid": True,
        "name": suite.model.name,
        "cells": len(suite.cells),
        "repeats": suite.model.repeats,
        "labels": dict(Counter(cell.label for cell in suite.cells)),
        "shared": suite.shared,
        "axes": suite.axes,
        "plan": [
            {
                "index": cell.index,
                "id": cell.id,
                "kind": cell.kind,
                "label": cell.label,
                "axes": cell.axes,
                "seed": cell.seed,
            }
            for cell in suite.cells
        ],
    }


def error_as_json(error: KfpbenchError) -> dict[str, Any]:
    """A refused suite for programs: one object per problem."""
    problems = getattr(error, "problems", None) or [error]
    return {
        "valid": False,
        "problems": [
            {
                "where": problem.where,
                "what": problem.what,
                "got": None if problem.got is None else str(problem.got),
                "allowed": None if problem.allowed is None else str(problem.allowed),
                "remedy": problem.remedy,
            }
            for problem in problems
        ],
    }


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
