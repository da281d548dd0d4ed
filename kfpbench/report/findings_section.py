"""The findings as plain values for the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kfpbench.report.aggregate import Group
from kfpbench.report.findings import RULES, Rule, findings, grouped, testable_rules

_UNFOLDED = 3  # cells of a finding: what a run is about, its front, stays on the first screens


@dataclass(frozen=True)
class CellFinding:
    """One cell with its evidence in words."""

    label: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class FindingBlock:
    """One finding of one data set: the first cells with their evidence, and the others, which a reader unfolds."""

    title: str
    meaning: str
    dataset: str
    cells: tuple[CellFinding, ...]
    more: tuple[CellFinding, ...]


@dataclass(frozen=True)
class RuleText:
    """A rule in words, and whether some cell had its numbers."""

    kind: str
    tested: bool
    conditions: tuple[str, ...]


@dataclass(frozen=True)
class FindingsSection:
    """What the template needs; ``several`` when the run has more than one data set."""

    blocks: tuple[FindingBlock, ...]
    rules: tuple[RuleText, ...]
    tested: bool
    several: bool


def build_findings(groups: Sequence[Group]) -> FindingsSection:
    """The section on what the rules find in the sampler cells of a run."""
    testable = testable_rules(groups)
    blocks = []
    for (title, dataset), members in grouped(findings(groups)).items():
        cells = tuple(
            CellFinding(one.label, tuple(f"{item.text}; {item.meaning}" for item in one.evidence)) for one in members
        )
        blocks.append(FindingBlock(title, members[0].meaning, dataset, cells[:_UNFOLDED], cells[_UNFOLDED:]))
    rules = tuple(RuleText(rule.kind.replace("_", " "), rule in testable, tuple(_conditions(rule))) for rule in RULES)
    datasets = {group.first.dataset for group in groups if group.ok and group.first.kind == "sample"}
    return FindingsSection(tuple(blocks), rules, bool(testable), len(datasets) > 1)


def _conditions(rule: Rule) -> Iterator[str]:
    for position, condition in enumerate(rule.any_of):
        yield f"{'or ' if position else ''}{condition.text} ({condition.meaning})"
    for condition in rule.all_of:
        yield f"and {condition.text} ({condition.meaning})"
    if rule.unless:
        yield f"not told beside: {', '.join(kind.replace('_', ' ') for kind in rule.unless)}"
