"""What tests of several folders share; tests are imported by path, so a shared module is too."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def reference_spectra() -> ModuleType:
    """The module of independent spectra: finite volumes and polynomials."""
    spec = importlib.util.spec_from_file_location("reference_spectra", Path(__file__).with_name("reference_spectra.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
