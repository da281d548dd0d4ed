"""Everything that the report shows of one data set, as plain values for the template and figures for the
page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import PREFERRED, SPEEDS, Column, cost_columns, quality_columns, title_of
from kfpbench.report.comparison_section import ComparisonSection, build_comparison, choose_anchor
from kfpbench.report.dataset_notes import summary_line, warning_lines
from kfpbench.report.effects_section import EffectsSection, build_effects
from kfpbench.report.embed import plotly_text
from kfpbench.report.feature_notes import feature_notes
from kfpbench.report.figures import PHASES, phase_bars
from kfpbench.report.front_classes import LEADING
from kfpbench.report.front_section import FrontSection, build_front
from kfpbench.report.grids import Embedded, Gallery
from kfpbench.report.naming import Family, families, point_labels, with_own_labels
from kfpbench.report.numbers import format_number, format_plus_minus, format_seconds
from kfpbench.report.payoff import PayoffTable, payoff_table
from kfpbench.report.scatter import Scatter, scatter
from kfpbench.report.skipped_metrics import SkippedMetric, skipped_metrics
from kfpbench.report.table import Row, build_rows
from kfpbench.report.unlike_notes import unlike_notes
from kfpbench.suite.cell_name import axes_text

_MANY = 40  # more cells than this, and the figures that have a row per cell show the front only
_NAMES = 12  # names in a caption


@dataclass(frozen=True)
class Picture:
    """One sample grid."""

    label: str
    uri: str
    caption: str
    pixelated: bool
    reduced: bool
    cell: str


@dataclass
class DatasetSection:
    """What the template needs; ``figures`` and ``scatters`` go to the page's script."""

    key: str
    name: str
    summary: str
    warnings: list[str]
    columns: list[Column]
    rows: list[Row]
    families: list[Family]
    skipped: list[SkippedMetric] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    speeds: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    chosen: tuple[str, str] | None = None
    caption: str = ""
    pictures: list[Picture] = field(default_factory=list)
    pictures_left_out: list[str] = field(default_factory=list)
    payoff: PayoffTable | None = None
    phases: list[tuple[str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    scatters: dict[str, Any] = field(default_factory=dict)
    focus_note: str = ""
    on_front: FrontSection | None = None
    comparison: ComparisonSection | None = None
    effects: EffectsSection | None = None

    @property
    def statistics(self) -> dict[str, Any]:
        """Front classes, hypervolumes, differences and effects as plain values."""
        return {
            **(self.on_front.as_json if self.on_front else {}),
            "comparison": self.comparison.as_json if self.comparison else None,
            "effects": self.effects.as_json if self.effects else [],
        }


def build_dataset(key: str, name: str, groups: Sequence[Group], gallery: Gallery) -> DatasetSection:
    """The section of one data set; ``groups`` are its sampler cells with at least one good repeat."""
    groups = with_own_labels(groups)
    qualities, costs = quality_columns(groups), cost_columns(groups)
    # The two numbers that the suite is about come first, so that a narrow window shows them.
    leading = [column for column in costs if column.metric in ("seconds_per_image", "nfe")]
    columns = [*leading, *qualities, *(column for column in costs if column not in leading)]
    made, family_of = families(groups)
    labels = point_labels(groups)
    section = DatasetSection(
        key=key,
        name=name,
        summary=summary_line(groups),
        warnings=warning_lines(groups) + unlike_notes(groups, qualities),
        columns=columns,
        rows=build_rows(groups, columns, family_of),
        families=made,
        skipped=skipped_metrics(groups),
        features=feature_notes(groups, qualities),
    )
    front = _add_scatters(section, groups, qualities, labels, family_of)
    _add_pictures(section, groups, gallery)
    focus = list(range(len(groups)))
    if len(groups) > _MANY:
        focus = [i for i in focus if i in front][:_MANY] or focus[:_MANY]
        section.focus_note = f"{len(focus)} of {len(groups)} cells: the front of the figure above."
    bars = phase_bars([groups[i] for i in focus], [labels[i] for i in focus])
    if bars:
        section.phases = [PHASES[trace["meta"]] for trace in bars["data"]]
        section.figures[f"{key}-phases"] = bars
    section.payoff = payoff_table([groups[i] for i in focus])
    _add_comparisons(section, groups, focus, columns, qualities, family_of)
    return section


def _add_comparisons(
    section: DatasetSection,
    groups: Sequence[Group],
    focus: Sequence[int],
    columns: Sequence[Column],
    qualities: Sequence[Column],
    family_of: Sequence[int],
) -> None:
    """The differences from the anchor, and the effects of the axes over all groups."""
    section.effects = build_effects(groups, qualities)
    leading = next((column for column in qualities if section.chosen and column.metric == section.chosen[1]), None)
    chosen = choose_anchor(groups, leading) if leading else None
    if chosen:
        anchor, why = chosen
        kept = sorted({*focus, anchor})
        section.comparison = build_comparison(
            [groups[i] for i in kept], kept.index(anchor), why, columns, [family_of[i] for i in kept]
        )


def _add_scatters(
    section: DatasetSection,
    groups: Sequence[Group],
    qualities: Sequence[Column],
    labels: Sequence[str],
    family_of: Sequence[int],
) -> tuple[int, ...]:
    """Every pair of speed and quality that has a figure; returns the group numbers on the first one's front."""
    drawn: dict[tuple[str, str], Scatter] = {}
    for column in qualities:
        for speed in SPEEDS:
            made = scatter(groups, speed, column, section.families, family_of)
            if made is not None:
                drawn[speed, column.metric] = made
    if not drawn:
        return ()
    speeds = dict.fromkeys(speed for speed, _ in drawn)
    section.speeds = {speed: SPEEDS[speed] for speed in SPEEDS if speed in speeds}
    section.metrics = {
        column.metric: f"{column.title} {column.arrow}".strip()
        for column in qualities
        if any(metric == column.metric for _, metric in drawn)
    }
    section.chosen = _default_pair(drawn)
    captions = {pair: _caption(made, pair, groups) for pair, made in drawn.items()}
    section.caption = captions[section.chosen]
    section.on_front = build_front(groups, drawn, section.chosen, qualities, section.families, family_of)
    section.scatters[f"{section.key}-front"] = {
        "variants": {
            f"{speed}|{metric}": {**made.figure, "front": made.front, "caption": captions[speed, metric]}
            for (speed, metric), made in drawn.items()
        },
        "cells": [group.first.ident for group in groups],
        "labels": [plotly_text(label) for label in labels],
        "hover": [_hover(group, qualities) for group in groups],
    }
    return drawn[section.chosen].front


def _default_pair(drawn: Mapping[tuple[str, str], Scatter]) -> tuple[str, str]:
    order = {metric: rank for rank, metric in enumerate((*LEADING, *PREFERRED))}
    speeds = list(SPEEDS)
    return min(drawn, key=lambda pair: (speeds.index(pair[0]), order.get(pair[1], len(order)), pair[1]))


def _caption(made: Scatter, pair: tuple[str, str], groups: Sequence[Group]) -> str:
    speed, metric = pair
    parts = []
    if made.classes:
        for which, words in (("surely", "Surely on the front"), ("possibly", "Possibly on the front")):
            members = [i for i, own in made.classes.items() if own == which]
            ordered = sorted(members, key=lambda i: groups[i].estimates[speed].value)
            if ordered:
                names = _names([groups[i].label for i in ordered])
                parts.append(f"{words} of {title_of(metric)} and {SPEEDS[speed]}, fastest first: {names}.")
    else:
        parts.append(f"No front: {title_of(metric)} has no better direction.")
    if made.excluded:
        names = _names([groups[i].label for i in made.excluded])
        parts.append(f"Not shown, since a coordinate is missing, not finite or (speed) zero: {names}.")
    return " ".join(parts)


def _names(labels: Sequence[str]) -> str:
    more = len(labels) - _NAMES
    return "; ".join([*labels[:_NAMES], f"and {more} more"] if more > 0 else labels)


def _hover(group: Group, qualities: Sequence[Column]) -> str:
    lines = [f"<b>{plotly_text(group.label)}</b>"]
    if group.axes:
        lines.append(plotly_text(axes_text(group.axes)))
    for column in qualities:
        estimate = group.estimates.get(column.metric)
        if estimate is not None:
            lines.append(f"{plotly_text(column.title)}: {format_plus_minus(estimate.value, estimate.half_width)}")
    time, nfe = group.estimates.get("seconds_per_image"), group.estimates.get("nfe")
    if time is not None:
        lines.append(f"time per image: {format_seconds(time.value)}")
    if nfe is not None:
        lines.append(f"NFE per image: {format_number(nfe.value, 0 if nfe.value >= 10 else 1)}")
    setup, evaluations = group.estimates.get("setup_seconds"), group.estimates.get("setup_nfe")
    if setup is not None:
        extra = f", {format_number(evaluations.value, 0)} evaluations" if evaluations and evaluations.value else ""
        lines.append(f"setup: {format_seconds(setup.value)}{extra}")
    return "<br>".join(lines)


def _add_pictures(section: DatasetSection, groups: Sequence[Group], gallery: Gallery) -> None:
    """The grid of every group that has one, in the order of the table."""
    metric = section.chosen[1] if section.chosen else None
    for group in groups:
        if not group.first.grid:
            continue
        made = gallery.embed(group.first.grid)
        if isinstance(made, Embedded):
            caption = _picture_caption(group, metric)
            section.pictures.append(
                Picture(group.label, made.uri, caption, made.pixelated, made.reduced, group.first.ident)
            )
        else:
            section.pictures_left_out.append(f"{group.label}: {made}")


def _picture_caption(group: Group, metric: str | None) -> str:
    parts = []
    if metric and metric in group.estimates:
        estimate = group.estimates[metric]
        parts.append(f"{title_of(metric)} {format_plus_minus(estimate.value, estimate.half_width)}")
    time = group.estimates.get("seconds_per_image")
    if time is not None:
        parts.append(f"{format_seconds(time.value)} / image")
    return "\n".join(parts)
