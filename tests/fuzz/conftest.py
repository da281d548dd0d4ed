"""The suites that mutations start from."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def seeds() -> list[str]:
    """The shipped suites and the example."""
    paths = [path for path in sorted((ROOT / "suites").glob("*.yaml")) if not path.stem.startswith("train_")]
    return [path.read_text(encoding="utf-8") for path in (*paths, ROOT / "examples/my_kernel.yaml")]
