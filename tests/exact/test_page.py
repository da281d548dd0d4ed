"""The code of docs/exact.md runs, and gives what the text beside it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_page():
    page = (Path(__file__).parents[2] / "docs" / "exact.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), "exact.md", "exec"), names)
    errors = names["errors"]
    for name in ("total", "discretisation", "initialisation"):
        (said,) = re.findall(rf"errors\[80\]\.{name}  # ([0-9.]+)", page)
        assert getattr(errors[80], name) == pytest.approx(float(said), abs=5.1e-6)
    assert errors[40].discretisation / errors[80].discretisation == pytest.approx(4, abs=0.3)
    assert errors[80].discretisation / errors[160].discretisation == pytest.approx(4, abs=0.3)
    assert errors[160].initialisation == pytest.approx(errors[80].initialisation, rel=0.01)
