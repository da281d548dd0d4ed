"""pyproject.toml lists all that belongs into a wheel: a folder left out is missed only by those who install it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_listed():
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "kfpbench").rglob("__init__.py")}
    assert set(SETUPTOOLS["packages"]) == found | {"kfpbench_baselines"}


def test_every_file_that_is_no_code_is_listed():
    listed = {
        file
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for file in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    others = {
        file
        for file in (ROOT / "kfpbench").rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc"} and "__pycache__" not in file.parts
    }
    assert others == listed
