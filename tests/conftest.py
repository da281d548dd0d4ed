"""What tests of several folders share; tests are imported by path, so a shared module is too."""

from __future__ import annotations

import importlib.util
import secrets
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees what another one, or its user, has in the cache; the folder is made by what is written into it."""
    monkeypatch.setenv("KFPBENCH_CACHE_DIR", str(tmp_path_factory.getbasetemp() / f"cache-{secrets.token_hex(8)}"))


@pytest.fixture(scope="session")
def reference_spectra() -> ModuleType:
    """The module of independent spectra: finite volumes and polynomials."""
    spec = importlib.util.spec_from_file_location("reference_spectra", Path(__file__).with_name("reference_spectra.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
