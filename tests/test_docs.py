"""The code of the documentation runs, and gives what the text beside it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parents[1] / "docs"


def code_of(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL))


def test_spectra():
    names: dict = {}
    exec(compile(code_of("spectra.md"), "spectra.md", "exec"), names)
    spectrum = names["spectrum"]
    assert spectrum.status == "ok"
    np.testing.assert_allclose(spectrum.values[:4].real, [0.0, -0.030, -3.31, -5.51], atol=0.05)
    assert names["phi"].shape == (2000, len(spectrum.values))
    assert names["later"].shape == (2000,)
