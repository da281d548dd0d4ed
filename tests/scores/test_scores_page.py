"""The page on scores names every score, and its fragments are valid in a suite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from kfpbench.registry import available
from kfpbench.suite.load import suite_from_mapping

PAGE = (Path(__file__).parents[2] / "docs" / "scores.md").read_text(encoding="utf-8")
FRAGMENTS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_every_score_has_a_line_in_the_table():
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    ours = {name for name, entry in available("scores").items() if entry.origin.startswith("kfpbench ")}
    assert set(named) == ours
    assert len(FRAGMENTS) >= 4


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda text: re.search(r"name: (\w+)", text)[1])
def test_fragments_are_valid(fragment):
    suite = suite_from_mapping(
        {
            "name": "page",
            "data": {"name": "cifar10"},
            "process": {"name": "ve"},
            "samplers": [{"name": "pf_ode_heun"}],
            **YAML(typ="safe").load(fragment),
        }
    )
    assert len(suite.cells) == 1
