"""The page on features: its files are valid, its code keeps the contract, and its table is what extractors say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import kfpbench
from kfpbench.registry import available
from kfpbench.suite.components import check_block
from kfpbench.testing import report
from kfpbench.training.load import load_training

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_extractor_of_the_page_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kfpbench, "register", lambda kind, name: lambda component: component)
    names: dict = {}
    exec(compile(blocks("python")[0], "features.md", "exec"), names)
    findings = report("features", names["Norms"])
    assert {finding.check for finding in findings if finding.outcome != "passed"} == {
        "describes_itself",  # it has no describe(),
        "version_changes_with_the_weights",  # and no parameters
    }
    assert not [finding for finding in findings if finding.outcome == "failed"]


def test_the_files_of_the_page_are_valid(tmp_path: Path) -> None:
    metrics, classifier = blocks("yaml")
    for block in YAML(typ="safe", pure=True).load(metrics)["metrics"]:
        assert not check_block("metrics", block).problems
    (tmp_path / "file.yaml").write_text(classifier)
    assert load_training(tmp_path / "file.yaml").channels == [32, 64]


def test_every_extractor_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| [^`]", PAGE, re.MULTILINE)) == set(available("features"))
