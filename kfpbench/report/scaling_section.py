"""How cost and error change with the number of points: curves, and the exponent of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfpbench.report.ablation_axes import AblationAxis, ablation_axes
from kfpbench.report.aggregate import Estimate, Group
from kfpbench.report.columns import COSTS, PREFERRED, Column
from kfpbench.report.embed import plotly_text
from kfpbench.report.naming import COLOURS, SYMBOLS, Family
from kfpbench.report.numbers import format_interval, format_plus_minus, format_value
from kfpbench.statistics.mean_interval import CONFIDENCE, t_quantile

# The last words of the axes that set the size of a Gram matrix or of what is evaluated.
SIZES = {
    "points": "points N",
    "centres": "centres M",
    "max_points": "points N",
    "n_features": "features",
    "train_size": "training rows",
}
_COSTS = ("setup_seconds", "seconds_per_image", "seconds_per_image_batch1", "peak_memory_mib", "setup_nfe")
_FEWEST = 3  # levels of a curve
MOST_CURVES = 14  # in a figure; as many as there are pairs of colour and marker that a reader can tell apart
_MISSING = Estimate(math.nan)


@dataclass(frozen=True)
class Exponent:
    """The slope of log cost against log N by least squares, with Student's 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The cells that agree in all but one axis, in the order of that axis; ``groups`` are numbers."""

    label: str
    sizes: tuple[float, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class ScalingRow:
    """One curve: (exponent, interval) per metric as text, '' for what was not measured."""

    family: int
    label: str
    exponents: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ScalingSection:
    """One size axis: a figure per metric, and the table of exponents."""

    key: str
    title: str
    columns: tuple[Column, ...]
    families: tuple[Family, ...]
    rows: tuple[ScalingRow, ...]
    left_out: int
    figures: dict[str, Any]


def build_scaling(key: str, groups: Sequence[Group], qualities: Sequence[Column]) -> list[ScalingSection]:
    """A section per size axis along which some cells that agree otherwise have three sizes or more."""
    axes = ablation_axes(groups)
    made = []
    for number, axis in enumerate(axes):
        found = curves(axes, number) if axis.name.split(".")[-1] in SIZES else []
        if found:
            made.append(_section(f"{key}-size-{number}", axis, groups, found, qualities))
    return made


def curves(axes: Sequence[AblationAxis], along: int) -> list[Curve]:
    """The cells of each setting of the other axes, where they have three sizes or more."""
    numbers = axes[along].numbers
    if numbers is None:
        return []
    by_rest: dict[tuple[int, ...], list[tuple[float, int]]] = {}
    for i, level in enumerate(axes[along].level_of):
        if level < len(numbers):
            rest = tuple(axis.level_of[i] for place, axis in enumerate(axes) if place != along)
            by_rest.setdefault(rest, []).append((numbers[level], i))
    others = [axis for place, axis in enumerate(axes) if place != along]
    found = []
    for rest, members in by_rest.items():
        members.sort()
        sizes = tuple(size for size, _ in members)
        if len(set(sizes)) >= _FEWEST and min(sizes) > 0:
            named = [axis.levels[level] for axis, level in zip(others, rest, strict=True)]
            found.append(Curve(", ".join(named) or "all cells", sizes, tuple(i for _, i in members)))
    return found


def exponent(sizes: Sequence[float], values: Sequence[float]) -> Exponent:
    """The slope p of log value = p log size + c by least squares; the interval needs three sizes.

    It is Student's, over the residuals of the line: where the curve is no power law, or the values have an error of
    their own, it is wide. NaN for fewer than two sizes or a value that is not positive. Cost O(len(sizes)).
    """
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    if len(np.unique(x)) < 2 or not (np.isfinite(y).all() and (y > 0).all()):
        return Exponent(math.nan, math.nan, math.nan)
    x, y = np.log(x), np.log(y)
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    freedom = len(x) - 2
    if freedom < 1:
        return Exponent(slope, math.nan, math.nan)
    residual = y - y.mean() - slope * centred
    error = math.sqrt(float(residual @ residual) / freedom / float(centred @ centred))
    half = t_quantile(0.5 + CONFIDENCE / 2, freedom) * error
    return Exponent(slope, slope - half, slope + half)


def _section(
    key: str, axis: AblationAxis, groups: Sequence[Group], found: Sequence[Curve], qualities: Sequence[Column]
) -> ScalingSection:
    drawn = list(found[:MOST_CURVES])
    columns = [column for column in _columns(qualities) if any(_points(groups, curve, column) for curve in drawn)]
    families = tuple(
        Family(curve.label, COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]) for i, curve in enumerate(drawn)
    )
    title = SIZES[axis.name.split(".")[-1]]
    rows = []
    for i, curve in enumerate(drawn):
        texts = []
        for column in columns:
            points = _points(groups, curve, column)
            made = exponent([size for size, _, _ in points], [estimate.value for _, estimate, _ in points])
            texts.append(_texts(made))
        rows.append(ScalingRow(i, curve.label, tuple(texts)))
    return ScalingSection(
        key=key,
        title=title,
        columns=tuple(columns),
        families=families,
        rows=tuple(rows),
        left_out=len(found) - len(drawn),
        figures={f"{key}-{column.metric}": _figure(groups, drawn, families, column, title) for column in columns},
    )


def _columns(qualities: Sequence[Column]) -> Iterator[Column]:
    """The costs that grow with the size, then the two leading qualities."""
    yield from (column for name in _COSTS for column in COSTS if column.metric == name)
    known = [column for column in qualities if column.metric in PREFERRED]
    yield from known[:2]


def _points(groups: Sequence[Group], curve: Curve, column: Column) -> list[tuple[float, Estimate, int]]:
    """Size, estimate and number of the cells whose value is positive; none unless three sizes have one."""
    points = [
        (size, estimate, i)
        for size, i in zip(curve.sizes, curve.groups, strict=True)
        if 0 < (estimate := groups[i].estimates.get(column.metric, _MISSING)).value < math.inf
    ]
    return points if len({size for size, _, _ in points}) >= _FEWEST else []


def _figure(
    groups: Sequence[Group], drawn: Sequence[Curve], families: Sequence[Family], column: Column, title: str
) -> dict[str, Any]:
    traces: list[dict[str, Any]] = []
    for curve, family in zip(drawn, families, strict=True):
        points = _points(groups, curve, column)
        if not points:
            continue
        bounds = [estimate.bounds for _, estimate, _ in points]
        values = [estimate.value * column.scale for _, estimate, _ in points]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plotly_text(curve.label),
                "meta": [groups[i].first.ident for _, _, i in points],
                "x": [size for size, _, _ in points],
                "y": values,
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [
                        max(high * column.scale - value, 0.0) for (_, high), value in zip(bounds, values, strict=True)
                    ],
                    "arrayminus": [
                        max(min(value - low * column.scale, 0.99 * value), 0.0)
                        for (low, _), value in zip(bounds, values, strict=True)
                    ],
                    "thickness": 1.2,
                    "width": 3,
                },
                "line": {"width": 1.4, "color": family.colour},
                "marker": {"size": 8, "color": family.colour, "symbol": family.symbol},
                "hovertext": [_hover(curve, title, column, size, estimate) for size, estimate, _ in points],
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
        )
    sizes = sorted({size for curve in drawn for size in curve.sizes})
    heights: list[float] = [
        estimate.value * column.scale for curve in drawn for _, estimate, _ in _points(groups, curve, column)
    ]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": title}, "type": "log", "tickvals": sizes, "ticktext": [f"{s:g}" for s in sizes]},
        "yaxis": {
            "title": {"text": f"{column.title}  ({column.advice})"},
            "type": "log",
            # plotly writes every digit between two powers where there are few of those, and they overlap
            "dtick": "D2" if max(heights) < 1e3 * min(heights) else 1,
        },
        "showlegend": False,
        "hovermode": "closest",
        "height": 320,
    }
    return {"data": traces, "layout": layout}


def _hover(curve: Curve, title: str, column: Column, size: float, estimate: Estimate) -> str:
    value = format_plus_minus(estimate.value * column.scale, estimate.half_width * column.scale)
    return f"{plotly_text(curve.label)}<br>{title} = {size:g}<br>{plotly_text(column.title)}: {value}"


def _texts(made: Exponent) -> tuple[str, str]:
    if math.isnan(made.value):
        return "", ""
    return format_value(made.value, (made.high - made.low) / 2), format_interval(made.low, made.high)
