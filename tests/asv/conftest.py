"""The benchmarks of suites/asv as a package, which asv imports by its folder."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "suites" / "asv"
PACKAGE = "kfpbench_asv_benchmarks"


@pytest.fixture(scope="session")
def benchmarks() -> Callable[[str], ModuleType]:
    """A function from a module's name to the module."""
    pytest.importorskip("asv_runner", reason="asv is not installed: pip install kfpbench[dev]")
    spec = importlib.util.spec_from_file_location(
        PACKAGE, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACKAGE])
    return lambda name: importlib.import_module(f"{PACKAGE}.{name}")


@pytest.fixture(scope="session")
def compare() -> ModuleType:
    """The command that compares two commits."""
    pytest.importorskip("asv", reason="asv is not installed: pip install kfpbench[dev]")
    return _tool("compare")


@pytest.fixture(scope="session")
def local_scripts() -> ModuleType:
    """The command that makes the site independent of the network."""
    return _tool("local_scripts")


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"asv_{name}", ROOT / "suites" / "asv_tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"asv_{name}"] = module
    spec.loader.exec_module(module)
    return module
