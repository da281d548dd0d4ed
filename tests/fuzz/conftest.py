"""The mutator, and the suites that it starts from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def mutator() -> ModuleType:
    """The module (tests are imported by path, so it is too)."""
    spec = importlib.util.spec_from_file_location("suite_mutator", Path(__file__).with_name("suite_mutator.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def seeds() -> list[str]:
    """The shipped suites and the example."""
    paths = [path for path in sorted((ROOT / "suites").glob("*.yaml")) if not path.stem.startswith("train_")]
    return [path.read_text(encoding="utf-8") for path in (*paths, ROOT / "examples/my_kernel.yaml")]
