"""The figures of a study's report as plotly dictionaries: fronts, volume over trials, importances, slices."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from kfpbench.report.embed import plotly_text
from kfpbench.report.naming import COLOURS
from kfpbench.statistics.pareto_front import staircase
from kfpbench.study.definition import Definition
from kfpbench.study.objectives import Objective
from kfpbench.study.results import Row, frame_of_rows, volume_history
from kfpbench.study.space import shown_choice
from kfpbench.study.views import short_names
from kfpbench.suite.cell_name import axes_text, compact
from kfpbench.suite.study_schema import ParameterBlock

_MARKS = {
    "front": ("on the front", COLOURS[1], "circle"),
    "ok": ("other trials", COLOURS[0], "circle"),
    "infeasible": ("breaks a constraint", "#9A9A9A", "x"),
}


def front_figures(rows: Sequence[Row], front: Sequence[Row], objectives: Sequence[Objective]) -> dict[str, Any]:
    """A scatter for each pair of objectives (against the trial's number where there is one objective), by key."""
    members = {row.number for row in front}
    shown = [row for row in rows if row.what in ("ok", "infeasible") and row.values is not None]
    pairs: list[tuple[int | None, int]] = [*itertools.combinations(range(len(objectives)), 2)] or [(None, 0)]
    return {
        f"pair-{number}": _scatter(shown, members, objectives, x, y) for number, (x, y) in enumerate(pairs, start=1)
    }


def history_figure(rows: Sequence[Row], objectives: Sequence[Objective]) -> dict[str, Any] | None:
    """The volume after each trial; None where fewer than two trials have a result."""
    good = [row for row in rows if row.what == "ok"]
    if len(good) < 2:
        return None
    frame = frame_of_rows(good, objectives)
    history = volume_history(rows, frame)
    trace = {
        "type": "scatter",
        "mode": "lines",
        "line": {"shape": "hv", "width": 2, "color": COLOURS[0]},
        "x": list(range(1, len(rows) + 1)),
        "y": [100 * value for value in history],
        "hovertemplate": "%{x} trials: %{y:.1f} %<extra></extra>",
    }
    axis = {"title": {"text": "hypervolume, %" if len(objectives) > 1 else "gained, % of the range"}}
    layout = {"xaxis": {"title": {"text": "finished trials"}}, "yaxis": {**axis, "rangemode": "tozero"}, "height": 340}
    return {"data": [trace], "layout": {**layout, "showlegend": False}}


def importance_figure(found: Mapping[str, Mapping[str, float]], paths: Sequence[str]) -> dict[str, Any]:
    """Bars, a group for each parameter from the top down, a colour for each objective."""
    names = short_names(paths)
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": plotly_text(metric),
            "x": [100 * found[metric][path] for path in paths],
            "y": list(range(len(paths))),
            "marker": {"color": COLOURS[k % len(COLOURS)]},
            "hovertemplate": f"{plotly_text(metric)}: %{{x:.0f}} %<extra></extra>",
        }
        for k, metric in enumerate(found)
    ]
    layout = {
        "barmode": "group",
        "height": 90 + (16 * len(found) + 14) * len(paths),
        "xaxis": {"title": {"text": "importance, %"}, "rangemode": "tozero"},
        "yaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(paths))),
            "ticktext": [plotly_text(names[path]) for path in paths],
            "range": [len(paths) - 0.4, -0.6],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def slice_panels(rows: Sequence[Row], definition: Definition) -> list[list[dict[str, Any]]]:
    """By objective, a scatter for each parameter that some trial with a result has."""
    good = [row for row in rows if row.what == "ok" and row.values is not None]
    used = [path for path in definition.space.parameters if any(path in row.params for row in good)]
    names = short_names(list(definition.space.parameters))
    return [
        [_slice([row for row in good if path in row.params], path, names[path], k, one, definition) for path in used]
        for k, one in enumerate(definition.objectives)
    ]


def _scatter(
    shown: Sequence[Row], members: set[int], objectives: Sequence[Objective], x: int | None, y: int
) -> dict[str, Any]:
    traces = []
    for key, (name, colour, symbol) in _MARKS.items():
        chosen = [row for row in shown if _group(row, members) == key]
        if chosen:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [row.number if x is None else _value(row, x) for row in chosen],
                    "y": [_value(row, y) for row in chosen],
                    "marker": {"color": colour, "symbol": symbol, "size": 11 if key == "front" else 8},
                    "hovertext": [_hover(row, objectives) for row in chosen],
                    "hovertemplate": "%{hovertext}<extra></extra>",
                    **(_bars(chosen, x, y) if key == "front" else {}),
                }
            )
    if x is not None:
        traces += _line([row for row in shown if row.number in members], objectives, x, y)
    title = "trial" if x is None else objectives[x].metric
    layout = {
        "xaxis": {"title": {"text": plotly_text(title)}, **({} if x is None else _scale(shown, objectives[x], x))},
        "yaxis": {"title": {"text": plotly_text(objectives[y].metric)}, **_scale(shown, objectives[y], y)},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "showlegend": True,
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _bars(rows: Sequence[Row], x: int | None, y: int) -> dict[str, Any]:
    """The trials' own intervals in both objectives; none where no trial has one of some length."""
    found = {}
    for name, k in (("error_x", x), ("error_y", y)):
        if k is None:
            continue
        above = [0.0 if row.high is None else max(0.0, row.high[k] - _value(row, k)) for row in rows]
        below = [0.0 if row.low is None else max(0.0, _value(row, k) - row.low[k]) for row in rows]
        if any(above) or any(below):
            found[name] = {
                "type": "data",
                "symmetric": False,
                "array": above,
                "arrayminus": below,
                "thickness": 1,
                "width": 3,
                "color": COLOURS[1],
            }
    return found


def _line(front: Sequence[Row], objectives: Sequence[Objective], x: int, y: int) -> list[dict[str, Any]]:
    """The staircase of the front, in the plane of two objectives alone: where there are three, none is drawn."""
    if len(objectives) != 2 or len(front) < 2:
        return []
    points = [(_value(row, x), _value(row, y)) for row in front]
    better = (objectives[x].better, objectives[y].better)
    corner = tuple((max if side == "lower" else min)(point[k] for point in points) for k, side in enumerate(better))
    across, upwards = staircase(points, better, (corner[0], corner[1]))
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": across,
            "y": upwards,
            "line": {"color": COLOURS[1], "width": 1.5, "dash": "dot"},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]


def _slice(
    rows: Sequence[Row], path: str, name: str, k: int, objective: Objective, definition: Definition
) -> dict[str, Any]:
    parameter = definition.space.parameters[path]
    values = [row.params[path] for row in rows]
    listed = parameter.choices is not None
    labels = [plotly_text(compact(shown_choice(parameter, choice))) for choice in parameter.choices or ()]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [_choice_index(parameter, value) for value in values] if listed else values,
        "y": [_value(row, k) for row in rows],
        "marker": {
            "size": 8,
            "color": [row.number for row in rows],
            "colorscale": [[0, "#C6DBEF"], [1, "#084594"]],
            "line": {"width": 0.5, "color": "#666666"},
        },
        "hovertext": [_hover(row, definition.objectives) for row in rows],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    axis: dict[str, Any] = {"title": {"text": plotly_text(name)}}
    if listed:
        short = [label if len(label) <= 18 else label[:17] + "…" for label in labels]
        axis |= {"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": short}
        axis |= {"range": [-0.5, len(labels) - 0.5]}
    elif parameter.log:
        axis |= {"type": "log"}
    layout = {
        "xaxis": axis,
        "yaxis": {"title": {"text": plotly_text(objective.metric)}, **_scale(rows, objective, k)},
        "showlegend": False,
        "hovermode": "closest",
        "height": 300,
    }
    return {"data": [trace], "layout": layout, "caption": path}


def _choice_index(parameter: ParameterBlock, value: Any) -> int:
    assert parameter.choices is not None  # only these are drawn by place
    return parameter.choices.index(value)


def _group(row: Row, members: set[int]) -> str:
    return "front" if row.number in members else row.what


def _scale(rows: Sequence[Row], objective: Objective, k: int) -> dict[str, Any]:
    positive = bool(rows) and all(_value(row, k) > 0 for row in rows)
    return {"type": "log", "exponentformat": "power"} if objective.is_time and positive else {}


def _hover(row: Row, objectives: Sequence[Objective]) -> str:
    values = [f"{plotly_text(one.metric)}: {_value(row, k):.4g}" for k, one in enumerate(objectives)]
    broken = [plotly_text(f"breaks {name}") for name, excess in row.excess.items() if excess > 0]
    settings = [plotly_text(part) for part in axes_text(row.settings).split(", ")]
    return "<br>".join([f"trial {row.number}", *values, *broken, *settings])


def _value(row: Row, k: int) -> float:
    assert row.values is not None  # only rows with values are drawn
    return row.values[k]
