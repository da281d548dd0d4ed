"""What all tests share. Modules that tests of several folders import are in tests/support."""

from __future__ import annotations

import secrets

import pytest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees what another one, or its user, has in the cache; the folder is made by what is written into it."""
    monkeypatch.setenv("KFPBENCH_CACHE_DIR", str(tmp_path_factory.getbasetemp() / f"cache-{secrets.token_hex(8)}"))
