"""A comparison of two runs as text for the terminal and as Markdown, what is worse first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

from kfpbench.compare.changes import EQUAL, NO_INTERVAL, NOT_COMPARED, ORDER, Change
from kfpbench.compare.compare_runs import RunComparison
from kfpbench.statistics.difference_table import CANNOT

HEAD = ("verdict", "cell", "metric", "A", "B", "change", "B - A, 95 % interval")
_QUIET = frozenset({CANNOT, EQUAL, NO_INTERVAL, NOT_COMPARED})
_NAMES = 8


def as_text(comparison: RunComparison, *, everything: bool = False) -> list[str]:
    """Lines for a terminal: what has changed, unless ``everything``; the rest is counted, refusals with reasons."""
    lines = [f"A: {comparison.a}", f"B: {comparison.b}", *_before(comparison)]
    rows = _rows(comparison.changes, everything)
    if rows:
        widths = [max(len(row[k]) for row in (HEAD, *rows)) for k in range(len(HEAD))]
        lines += ["", *(_padded(row, widths) for row in (HEAD, *rows))]
    lines += ["", *_after(comparison)]
    return ["".join(one if one.isprintable() else "?" for one in line) for line in lines]


def as_markdown(comparison: RunComparison, *, everything: bool = False) -> str:
    """The same as a Markdown document, for the comment of a pull request. Names are escaped."""
    lines = ["## Comparison of runs", "", f"A: {_code(comparison.a)}, B: {_code(comparison.b)}", ""]
    lines += [f"- {_escaped(line)}" for line in _before(comparison)]
    rows = _rows(comparison.changes, everything)
    if rows:
        lines += ["", _bar(HEAD), "|---|---|---|--:|--:|--:|---|", *(_bar(row) for row in rows)]
    lines += ["", *(f"- {_escaped(line)}" for line in _after(comparison))]
    return "\n".join(lines) + "\n"


def _before(comparison: RunComparison) -> Iterator[str]:
    for name, (ours, theirs) in comparison.conditions.items():
        yield f"the runs differ in {name}: {_value(ours)} and {_value(theirs)}"
    matching = comparison.matching
    by_label = [match for match in matching.matches if match.by != "identity"]
    yield f"{len(matching.matches)} cells matched, {len(by_label)} of them by label and axes alone"
    for match in by_label:
        keys = "; ".join(f"{key} {_value(ours)} to {_value(theirs)}" for key, (ours, theirs) in match.differs.items())
        yield f"{match.a.label}: {keys}"
    for name, groups in (("A", matching.only_a), ("B", matching.only_b)):
        if groups:
            yield f"only in {name}: {_listed([group.label for group in groups])}"
    for label, why in comparison.lost:
        yield f"no result in B any more: {label} ({why})"
    if comparison.gained:
        yield f"a result in B and none in A: {_listed(comparison.gained)}"


def _after(comparison: RunComparison) -> Iterator[str]:
    counts = comparison.counts
    yield ", ".join(f"{counts[name]} {name}" for name in ORDER if name in counts) or "nothing to compare"
    reasons: dict[str, list[str]] = {}
    for change in comparison.changes:
        if change.verdict == NOT_COMPARED:
            reasons.setdefault(change.why, []).append(f"{change.metric} of {change.label}")
    for why, names in reasons.items():
        yield f"not compared: {why} ({_listed(names)})"
    yield "Intervals are at 95 % each, not corrected for their number."
    if comparison.failures is not None:
        yield f"gate: {'failed' if comparison.failures else 'passed'}"
        for one in comparison.failures:
            yield f"{one.label}, {one.metric}: {one.text}" if one.metric else f"{one.label} {one.text}"


def _rows(changes: Sequence[Change], everything: bool) -> list[tuple[str, ...]]:
    return [
        (
            change.verdict,
            change.label,
            change.metric,
            f"{change.a:.5g}",
            f"{change.b:.5g}",
            _percent(change.relative),
            _interval(change),
        )
        for change in changes
        if everything or change.verdict not in _QUIET
    ]


def _interval(change: Change) -> str:
    made = change.difference
    if made is None:
        return change.why
    if not math.isfinite(made.low):
        return f"{made.value:+.4g}"
    return f"{made.value:+.4g} ({made.low:+.4g} to {made.high:+.4g})"


def _percent(relative: float) -> str:
    if not math.isfinite(relative):
        return ""
    return f"{100 * relative:+.3g} %" if abs(relative) < 10 else f"{relative:+.3g} times"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return "; ".join(names[:_NAMES]) + more


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _bar(row: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(text) for text in row) + " |"


def _escaped(text: str) -> str:
    """Text that Markdown and the HTML in it show as it is, on one line."""
    shown = "".join(one if one.isprintable() else "?" for one in text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{one}" if one in "\\`*_[]|#!~$@" else one for one in shown)


def _code(text: str) -> str:
    return "`" + "".join(one if one.isprintable() and one != "`" else "?" for one in text) + "`"
