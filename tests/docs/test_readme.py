"""What the README shows can be run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from kfpbench.cli import main
from kfpbench.data.potentials import DoubleWell

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_suite_is_valid_and_has_the_cells_of_its_grid(tmp_path, capsys):
    (suite,) = blocks("yaml")
    (tmp_path / "suite.yaml").write_text(suite, encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["validate", str(tmp_path / "suite.yaml")])
    assert stop.value.code == 0
    assert "valid, 21 cells" in capsys.readouterr().out  # (3 x 2 spectral + 1 Heun) x 3 seeds


def test_the_spectrum_is_that_of_the_wells(capsys):
    (code,) = (block for block in blocks("python") if "estimate_spectrum" in block)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    spectrum = names["spectrum"]
    exact = DoubleWell(beta=4.0).exact_eigenvalues(3)
    np.testing.assert_allclose(spectrum.values[:3].real, exact, atol=0.1)
    assert capsys.readouterr().out


def test_the_commands_exist(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    known = capsys.readouterr().out
    named = set(re.findall(r"`kfpbench (\w+)", README))
    assert len(named) > 10
    assert not [verb for verb in named if not re.search(rf"\b{verb}\b", known)]
