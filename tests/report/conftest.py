"""One made-up run, with its report, for all tests of this folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from kfpbench.report.html import write_report


@pytest.fixture(scope="session")
def made_up() -> ModuleType:
    """The module that makes the run up (tests are imported by path, so it is too)."""
    spec = importlib.util.spec_from_file_location("fixture_run", Path(__file__).with_name("fixture_run.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def report(made_up: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the made-up run, with its run folder around it."""
    folder = tmp_path_factory.mktemp("run")
    manifest, records = made_up.write_run(folder)
    return write_report(manifest, records, folder)
