"""What a run's numbers say in words: copies, blends, missing modes, samples off the data, noise.

A condition holds where the whole 95 % interval of a metric lies beyond its threshold; one without an interval claims
nothing. Every threshold stands apart from what samples of the data's own law score, so that chance alone has to cross a
margin as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kfpbench.report.aggregate import Estimate, Group, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.columns import title_of
from kfpbench.report.naming import with_own_labels
from kfpbench.report.numbers import format_interval, format_value

NAMES = 12  # cells named in one sentence


@dataclass(frozen=True)
class Condition:
    """The interval of ``metric`` lies ``side`` the ``level``, or by ``level`` beyond the interval of ``than``.

    ``meaning`` says what the metric is for samples of the data's law.
    """

    metric: str
    side: Literal["above", "below"]
    level: float
    meaning: str
    than: str = ""

    @property
    def text(self) -> str:
        """The condition in words."""
        if self.than:
            return f"{title_of(self.metric)} {self.side} {title_of(self.than)} by more than {_plain(self.level)}"
        return f"{title_of(self.metric)} {self.side} {_plain(self.level)}"

    def evidence(self, estimates: dict[str, Estimate]) -> Evidence | None:
        """The evidence, None where the condition does not hold or cannot be tested."""
        known = self.tested(estimates)
        if not known:
            return None
        one = known[0]
        if self.side == "above":
            holds = one.low > self.level + (known[1].high if self.than else 0.0)
        else:
            holds = one.high < known[1].low - self.level if self.than else one.high < self.level
        if not holds:
            return None
        against = (known[1].value, known[1].low, known[1].high) if self.than else None
        return Evidence(
            self.metric, one.value, one.low, one.high, self.side, self.level, self.meaning, self.than, against
        )

    def tested(self, estimates: dict[str, Estimate]) -> list[Estimate]:
        """The estimates that the condition looks at; empty unless all have intervals."""
        names = [self.metric, *([self.than] if self.than else [])]
        known = [estimates[name] for name in names if name in estimates and estimates[name].has_interval]
        return known if len(known) == len(names) else []


@dataclass(frozen=True)
class Evidence:
    """A number that lies beyond its threshold, with its interval; ``against`` are those of the metric ``than``."""

    metric: str
    value: float
    low: float
    high: float
    side: str
    level: float
    meaning: str
    than: str = ""
    against: tuple[float, float, float] | None = None

    @property
    def text(self) -> str:
        """In words, with the threshold."""
        number = f"{title_of(self.metric)} {_number(self.value, self.low, self.high)}"
        if self.against is None:
            return f"{number}, {self.side} {_plain(self.level)}"
        other = f"{title_of(self.than)} {_number(*self.against)}"
        return f"{number}, {self.side} {other} by more than {_plain(self.level)}"


@dataclass(frozen=True)
class Rule:
    """A finding and what it needs: one of ``any_of``, and each of ``all_of``; ``support`` is told with it if it holds.

    Not told where one of the findings ``unless`` was made: that one explains it.
    """

    kind: str
    title: str
    meaning: str
    any_of: tuple[Condition, ...]
    all_of: tuple[Condition, ...] = ()
    support: tuple[Condition, ...] = ()
    unless: tuple[str, ...] = ()

    def testable(self, estimates: dict[str, Estimate]) -> bool:
        """Whether the rule could have been answered."""
        every = all(condition.tested(estimates) for condition in self.all_of)
        return every and any(condition.tested(estimates) for condition in self.any_of)

    def evidence(self, estimates: dict[str, Estimate]) -> tuple[Evidence, ...]:
        """What the rule rests on; empty where it does not hold."""
        main = [found for condition in self.any_of if (found := condition.evidence(estimates))]
        needed = [found for condition in self.all_of if (found := condition.evidence(estimates))]
        if not main or len(needed) < len(self.all_of):
            return ()
        more = [found for condition in self.support if (found := condition.evidence(estimates))]
        return (*main, *needed, *more)


@dataclass(frozen=True)
class Finding:
    """One finding about one cell (its repeats together); ``cells`` are the identities of the repeats."""

    kind: str
    title: str
    meaning: str
    dataset: str
    label: str
    cells: tuple[str, ...]
    evidence: tuple[Evidence, ...]


_NEARER = (
    Condition(
        "data_copying", "below", -3.0, "samples of the data's law score 0 with a standard deviation of at most 1"
    ),
    Condition("authenticity_loss", "above", 0.1, "it is 0 for samples like the held-out rows"),
)
_FAR = Condition(
    "nearest_train_ratio", "above", 1.25, "it is 1 for samples as far from the training rows as held-out rows"
)

_FEW = "or 1/n where n is below 100"  # the 1 % quantile of few rows lies above the smallest of them
_COPIED = Condition("copied_fraction", "above", 0.05, f"it is 0.01 for held-out rows, {_FEW}")

# In order: a rule sees the findings of those before it.
RULES = (
    Rule(
        "copies",
        "Copies of training rows",
        "These samples lie less than a third as far from one training row as from any other, as at most 1 % of the "
        "held-out rows do (one of them, where they are fewer than 100): the fidelity and diversity of these cells "
        "are those of the training set, not of a model.",
        (Condition("memorised_fraction", "above", 0.05, f"it is at most 0.01 for held-out rows, {_FEW}"),),
        support=(_COPIED, *_NEARER),
    ),
    Rule(
        "blends",
        "Blends of training rows",
        "These samples lie on a line between two training rows, at less than half the distance to either, as at most "
        "1 % of the held-out rows do (one of them, where they are fewer than 100).",
        (Condition("blended_fraction", "above", 0.05, f"it is at most 0.01 for held-out rows, {_FEW}"),),
        support=(_COPIED, *_NEARER),
    ),
    Rule(
        "near_training",
        "Nearer to the training rows than held-out rows are",
        "More so than chance allows: near copies, blends of many training rows, or samples too smooth.",
        (_COPIED, *_NEARER),
        unless=("copies", "blends"),
    ),
    Rule(
        "noise",
        "Noise: the samples are not like the data",
        "The samples are far from all training rows, and hardly one lies near reference rows, or few reference rows "
        "have one near them.",
        (
            Condition("density", "below", 0.1, "its expectation is 1 for samples of the data's law"),
            Condition("precision", "below", 0.1, "samples of the data's law score as high as recall"),
            Condition("coverage", "below", 0.5, "its expectation is 0.97 for samples of the data's law, at k = 5"),
        ),
        all_of=(Condition("nearest_train_ratio", "above", 1.5, _FAR.meaning),),
    ),
    Rule(
        "off_data",
        "Samples off the data",
        "Some samples lie where the reference has no rows: invented modes, residual noise or artefacts.",
        (
            Condition("density", "below", 0.8, "its expectation is 1 for samples of the data's law"),
            Condition("precision", "below", 0.1, "equal laws have equal expected precision and recall", "recall"),
            _FAR,
        ),
        unless=("noise",),
    ),
    Rule(
        "misses_classes",
        "Misses classes",
        "The samples hold fewer classes, as the same classifier sees them, than the reference rows do.",
        (Condition("effective_class_ratio", "below", 0.85, "it is 1 for the reference's own classes"),),
        support=(Condition("missing_class_share", "above", 0.15, "it is 0 for equal shares, at large n"),),
        unless=("noise", "off_data"),  # classes of what is no data mean nothing
    ),
    Rule(
        "misses_data",
        "Misses part of the data",
        "Parts of the reference have no sample near them: modes are missing, or the spread is too small.",
        (
            Condition("recall", "below", 0.1, "equal laws have equal expected precision and recall", "precision"),
            Condition("coverage", "below", 0.85, "its expectation is 0.97 for samples of the data's law, at k = 5"),
        ),
        all_of=(Condition("density", "above", 0.5, "so that they are not missed for want of samples on the data"),),
        unless=("noise",),
    ),
)


def findings(groups: Sequence[Group]) -> list[Finding]:
    """What the rules find in the sampler cells with a good repeat: by data set, by rule, then in the order of cells."""
    by_dataset: dict[str, list[Group]] = {}
    for group in sampled(groups):
        by_dataset.setdefault(group.first.dataset, []).append(group)
    order = [rule.kind for rule in RULES]
    found = []
    for members in by_dataset.values():
        told = [one for group in with_own_labels(members) for one in _findings_of(group)]
        found += sorted(told, key=lambda one: order.index(one.kind))
    return found


def _findings_of(group: Group) -> list[Finding]:
    cells = tuple(cell.ident for cell in group.cells if cell.status == "ok")
    found: list[Finding] = []
    for rule in RULES:
        evidence = rule.evidence(usable(group))
        if evidence and not {one.kind for one in found} & set(rule.unless):
            name = (group.first.dataset, group.label)
            found.append(Finding(rule.kind, rule.title, rule.meaning, *name, cells, evidence))
    return found


def testable_rules(groups: Sequence[Group]) -> list[Rule]:
    """The rules that some good sampler cell has the numbers for."""
    return [rule for rule in RULES if any(rule.testable(usable(group)) for group in sampled(groups))]


def sampled(groups: Sequence[Group]) -> list[Group]:
    """The groups of sampler cells with a good repeat."""
    return [group for group in groups if group.ok and group.first.kind == "sample"]


def usable(group: Group) -> dict[str, Estimate]:
    """The group's estimates for which the thresholds hold: coverage at k < 5 has an expectation near or below its."""
    coverage = group.first.measured.get("coverage")
    known = 5 if coverage is None else coverage.details.get("k", 5)
    return {name: value for name, value in group.estimates.items() if name != "coverage" or known >= 5}


def findings_as_json(records: Iterable[Any]) -> list[dict[str, Any]]:
    """The findings of cell records as plain mappings, for scripts."""
    return [asdict(finding) for finding in findings(group_repeats(read_cells(records)))]


def findings_as_text(groups: Sequence[Group]) -> list[str]:
    """A line for each finding and data set: the title, and the cells with their first evidence."""
    lines = []
    for (title, _), members in grouped(findings(groups)).items():
        named = [f"{one.label} ({one.evidence[0].text})" for one in members[:NAMES]]
        more = f" and {len(members) - NAMES} more" if len(members) > NAMES else ""
        lines.append(f"{title}: {'; '.join(named)}{more}")
    return lines


def grouped(found: Sequence[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """Findings of one title and data set together, in their order."""
    together: dict[tuple[str, str], list[Finding]] = {}
    for one in found:
        together.setdefault((one.title, one.dataset), []).append(one)
    return together


def _number(value: float, low: float, high: float) -> str:
    interval = format_interval(low, high)
    return format_value(value, (high - low) / 2) + (f" ({interval})" if interval else "")


def _plain(level: float) -> str:
    return f"{level:g}".replace("-", "\N{MINUS SIGN}")
