"""The figure that the suite exists for: one quality metric against speed, with intervals and the front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.report.aggregate import Estimate, Group
from kfpbench.report.columns import SPEEDS, Column
from kfpbench.report.embed import plotly_text
from kfpbench.report.front_classes import front_classes, placed
from kfpbench.report.naming import Family
from kfpbench.report.numbers import format_seconds
from kfpbench.statistics.front_membership import Membership
from kfpbench.statistics.pareto_front import pareto_front, staircase

FADED = 0.4
_LOG_RATIO = 30.0
_MISSING = Estimate(math.nan)


@dataclass(frozen=True)
class Axis:
    """One axis of the figure: its range in data units, and whether it is logarithmic."""

    low: float
    high: float
    log: bool

    def layout(self) -> dict[str, Any]:
        """Type and range as plotly wants them."""
        ends = [math.log10(self.low), math.log10(self.high)] if self.log else [self.low, self.high]
        return {"type": "log" if self.log else "linear", "range": ends}


@dataclass(frozen=True)
class _Style:
    """How a marker of a class is drawn."""

    size: int
    opacity: float
    line: float
    is_open: bool = False


_PALE, _PLAIN = _Style(9, FADED, 0.6), _Style(11, 1.0, 0.6)
_OPEN, _FILLED = _Style(11, 1.0, 2.2, is_open=True), _Style(13, 1.0, 1.4)
_STYLES = (_PALE, _PLAIN, _OPEN, _FILLED)  # drawn in this order
_STYLE_OF = {"not": _PALE, "possibly": _OPEN, "surely": _FILLED, None: _PLAIN}


@dataclass(frozen=True)
class Scatter:
    """A plotly figure and what it says in words: the group numbers on the front of the estimates, those that it cannot
    show, and the class of each that it shows (none without a direction).
    """

    figure: dict[str, Any]
    front: tuple[int, ...]
    excluded: tuple[int, ...]
    classes: dict[int, Membership]

    def members(self, which: Membership) -> tuple[int, ...]:
        """The group numbers of that class."""
        return tuple(i for i, own in self.classes.items() if own == which)


def scatter(
    groups: Sequence[Group], speed: str, column: Column, families: Sequence[Family], family_of: Sequence[int]
) -> Scatter | None:
    """The scatter of one quality column against one speed metric; None when no group can be shown.

    A group is shown when its speed is finite and positive and its quality finite. The front needs a
    direction, so it is left out for a metric where neither is better. Markers show the class of ``front_membership``:
    filled is surely on the front, open possibly, pale not.
    """
    xs = [group.estimates.get(speed, _MISSING) for group in groups]
    ys = [group.estimates.get(column.metric, _MISSING) for group in groups]
    shown = placed(groups, speed, column)
    excluded = tuple(i for i in range(len(groups)) if i not in set(shown))
    if not shown:
        return None
    x_axis = axis_range([xs[i] for i in shown], log=True)
    y_axis = axis_range([ys[i] for i in shown], log=_wants_log([ys[i].value for i in shown], column.better))
    front: tuple[int, ...] = ()
    classes = front_classes(groups, speed, column)
    traces: list[dict[str, Any]] = []
    if column.better != "neither":
        better = ("lower", column.better)
        points = [(xs[i].value, ys[i].value) for i in shown]
        front = tuple(shown[i] for i in pareto_front(points, better).members)
        corner = (x_axis.high, y_axis.low if column.better == "higher" else y_axis.high)
        traces.append(_front_trace(staircase(points, better, corner)))
    for number, family in enumerate(families):
        for style in _STYLES:
            members = [i for i in shown if family_of[i] == number and _STYLE_OF[classes.get(i)] is style]
            if members:
                traces.append(_family_trace(family, members, xs, ys, (x_axis, y_axis), style))
    layout = {
        "xaxis": {**x_axis.layout(), "title": {"text": SPEEDS[speed]}, **_ticks(x_axis, speed)},
        "yaxis": {**y_axis.layout(), "title": {"text": f"{column.title}  ({column.advice})"}},
        "showlegend": False,
        "hovermode": "closest",
    }
    return Scatter({"data": traces, "layout": layout, "better": column.better}, front, excluded, classes)


def axis_range(estimates: Sequence[Estimate], *, log: bool) -> Axis:
    """A range with every value in it, and as much of the intervals as leaves the values room."""
    forward = math.log10 if log else float
    values = [forward(item.value) for item in estimates]
    low, high = min(values), max(values)
    span = (high - low) or (0.3 if log else abs(high) * 0.2 or 1.0)
    reach = 0.5 * span
    for item in estimates:
        start, end = item.bounds
        start_at = forward(start) if start > 0 or not log else low - reach
        low = max(min(low, start_at), min(values) - reach)
        high = min(max(high, forward(end)), max(values) + reach)
    pad = 0.08 * max(high - low, span)
    low, high = low - pad, high + pad
    if log:
        return Axis(10**low, 10**high, True)
    return Axis(low, high, False)


def _wants_log(values: Sequence[float], better: str) -> bool:
    """A distance that ranges over more than a decade and a half."""
    return better == "lower" and min(values) > 0 and max(values) / min(values) > _LOG_RATIO


def _front_trace(steps: tuple[list[float], list[float]]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": steps[0],
        "y": steps[1],
        "line": {"width": 1.5, "color": "#888888", "dash": "4px,3px"},
        "hoverinfo": "skip",
        "name": "not dominated",
        "meta": "front",
    }


def _family_trace(
    family: Family,
    members: Sequence[int],
    xs: Sequence[Estimate],
    ys: Sequence[Estimate],
    axes: tuple[Axis, Axis],
    style: _Style,
) -> dict[str, Any]:
    bar_colour = family.colour + ("66" if style.opacity < 1 else "")  # two hexadecimal digits of opacity
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plotly_text(family.name),
        "meta": "cells",
        "x": [xs[i].value for i in members],
        "y": [ys[i].value for i in members],
        "customdata": list(members),
        "error_x": _bars([xs[i] for i in members], axes[0], bar_colour),
        "error_y": _bars([ys[i] for i in members], axes[1], bar_colour),
        "marker": {
            "color": family.colour,
            "symbol": family.symbol + ("-open" if style.is_open else ""),
            "size": style.size,
            "opacity": style.opacity,
            "line": {"width": style.line},  # of an open marker the line is all there is, in the family's colour
        },
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _bars(estimates: Sequence[Estimate], axis: Axis, colour: str) -> dict[str, Any]:
    """Error bars; an end beyond the axis is cut there, since a logarithm has no place for it."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(item.bounds[1] - item.value, 0.0) for item in estimates],
        "arrayminus": [
            max(item.value - (max(item.bounds[0], axis.low) if axis.log else item.bounds[0]), 0.0) for item in estimates
        ],
        "thickness": 1.2,
        "width": 3,
        "color": colour,
    }


def _ticks(axis: Axis, speed: str) -> dict[str, Any]:
    """Ticks at powers of ten, and between them where the range is short; durations have their units."""
    decades = math.log10(axis.high / axis.low)
    steps: tuple[int, ...] = (1,) if decades > 2.5 else (1, 3) if decades > 1.5 else (1, 2, 5)
    if decades < 0.35:
        steps = tuple(range(1, 10))
    first, last = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
    values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    values = [value for value in values if axis.low <= value <= axis.high]
    if len(values) < 2:
        return {}  # plotly's own ticks are better than one
    is_time = speed != "nfe"
    text = [_tick_text(value, is_time) for value in values]
    return {"tickmode": "array", "tickvals": values, "ticktext": text}


def _tick_text(value: float, is_time: bool) -> str:
    """A round number without the zeros that a measured one would need: '10 ms', not '10.0 ms'."""
    if not is_time:
        return f"{value:g}"
    number, _, unit = format_seconds(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.')} {unit}" if "." in number else f"{number} {unit}"
