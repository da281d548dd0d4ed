"""Which folders may import which: what cells are made of knows nothing of those who run, compare or show them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "kfpbench"
ABOVE = {"runner", "executors", "compare", "publish", "report", "claim", "scoring", "doctor"}
COMPONENTS = {"data", "processes", "scores", "kernels", "operators", "eigensolvers", "samplers", "features", "metrics"}


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """Every folder that a module of ``folder`` imports anywhere in it, with the place."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "kfpbench" and len(parts) > 1 and (ROOT / parts[1]).is_dir():
                    yield parts[1], f"{path.relative_to(ROOT)}:{node.lineno}"


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("suite", ABOVE | {"cache"}),
        ("store", ABOVE | {"cache", "suite"}),
        ("cache", ABOVE | COMPONENTS),
        *((folder, ABOVE) for folder in sorted(COMPONENTS)),
        ("data", {"features", "metrics", "samplers"}),
        ("runner", {"compare", "publish", "doctor"}),
        ("executors", {"cli", "report", "claim", "compare", "publish"}),
        ("compare", {"publish", "runner", "executors"}),
        ("report", {"compare", "publish", "executors"}),
    ],
)
def test_no_folder_imports_those_above_it(folder: str, forbidden: set[str]) -> None:
    assert [(name, place) for name, place in imported(folder) if name in forbidden] == []
