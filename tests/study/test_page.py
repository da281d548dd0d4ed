"""The code of docs/studies.md runs, and its suite block is valid."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

from kfpbench.suite.study_schema import spell_out, study_problems

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


def test_the_block_of_the_page_is_valid() -> None:
    block = YAML(typ="safe").load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])["study"]
    spell_out(block)
    assert study_problems(block) == []


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    names = {"folder": str(tmp_path / "out"), "suite": str(ROOT / "suites" / "study_digits.yaml")}
    exec(compile(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], "studies.md", "exec"), names)
    assert len(names["rows"]) == 3
    assert names["front"]
