"""Figures for papers out of a run, as vector files: the front, the ablation, the phases and the spectra."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfpbench.report.ablation_section import BY_METRIC, AblationSection, build_ablation
from kfpbench.report.aggregate import Estimate, Group, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.columns import SPEEDS, cost_columns, quality_columns
from kfpbench.report.figures import PHASES
from kfpbench.report.front_classes import front_classes, leading_pair, placed
from kfpbench.report.naming import COLOURS, SYMBOLS, Family, families, point_labels, with_own_labels
from kfpbench.report.paper_style import (
    COLUMN,
    GREY,
    MARKERS,
    TEXT,
    figure_bytes,
    legend_below,
    literal,
    new_figure,
    place_labels,
    shortened,
    styled,
)
from kfpbench.report.scatter import axis_range
from kfpbench.report.spectra import Spectrum, spectrum_of
from kfpbench.statistics.pareto_front import pareto_front, staircase
from kfpbench.store.atomic import write_bytes
from kfpbench.store.output_folder import make_output_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("pdf", "svg", "png")
_MOST_BARS, _MOST_PANELS, _MOST_SPECTRA = 24, 9, 8
_SPEED_TITLES = {
    "seconds_per_image": "seconds per image",
    "seconds_per_image_batch1": "seconds per image, batch 1",
    "nfe": "score evaluations per image",
}
_MISSING = Estimate(math.nan)


def write_figures(records: Iterable[Any], folder: Path, form: str = "pdf") -> list[Path]:
    """Write every figure that the records have numbers for into ``folder``; the paths, in order.

    A data set with sampler cells gives ``front-NAME``, ``ablation-NAME`` and ``phases-NAME``, one with spectrum cells
    ``spectrum-NAME`` and ``ablation-spectrum-NAME``. The same records
    give the same bytes with one version of matplotlib.

    Raises CapabilityError without matplotlib, StoreError for unreadable records and where ``folder`` is a file.
    """
    make_output_folder(Path(folder))
    paths = []
    with styled():
        for name, figure in paper_figures(records):
            path = Path(folder) / f"{name}.{form}"
            write_bytes(path, figure_bytes(figure, form))
            paths.append(path)
    return paths


def paper_figures(records: Iterable[Any]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each; to be used inside ``styled()``."""
    by_place: dict[tuple[str, str], list[Group]] = {}
    for group in group_repeats(read_cells(records)):
        if group.ok:
            by_place.setdefault((group.first.kind, group.first.dataset), []).append(group)
    names: dict[str, int] = {}
    for (kind, dataset), members in by_place.items():
        groups = with_own_labels(members)
        makers: tuple[tuple[str, Callable[[Sequence[Group]], Figure | None]], ...] = (
            (("front", front_figure), ("ablation", ablation_figure), ("phases", phases_figure))
            if kind == "sample"
            else (("spectrum", spectrum_figure), ("ablation-spectrum", ablation_figure))
        )
        for what, maker in makers:
            figure = maker(groups)
            if figure is not None:
                name = f"{what}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', dataset).strip('._') or 'data'}"
                names[name] = names.get(name, 0) + 1
                yield (name if names[name] == 1 else f"{name}-{names[name]}"), figure


def front_figure(groups: Sequence[Group]) -> Figure | None:
    """The leading quality against the leading speed with 95 % intervals; filled markers are surely on the front, open
    ones possibly, pale ones not. None when no cell has both numbers.
    """
    pair = leading_pair(groups, quality_columns(groups))
    if pair is None:
        return None
    speed, column = pair
    shown = placed(groups, speed, column)
    classes = front_classes(groups, speed, column)
    made, family_of = families(groups)
    xs = {i: groups[i].estimates[speed] for i in shown}
    ys = {i: groups[i].estimates[column.metric] for i in shown}
    x_axis, y_axis = axis_range(list(xs.values()), log=True), axis_range(list(ys.values()), log=False)
    points = [(xs[i].value, ys[i].value) for i in shown]
    better = ("lower", column.better)
    figure = new_figure(COLUMN, 2.5 + 0.11 * math.ceil(len(made) / 3))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(x_axis.low, x_axis.high)
    axes.set_ylim(y_axis.low, y_axis.high)
    corner = (x_axis.high, y_axis.low if column.better == "higher" else y_axis.high)
    axes.plot(*staircase(points, better, corner), color=GREY, linewidth=0.9, dashes=(4, 2), zorder=1)
    for i in shown:
        family, own = made[family_of[i]], classes.get(i)
        axes.errorbar(
            [xs[i].value],
            [ys[i].value],
            xerr=_reach(xs[i]),
            yerr=_reach(ys[i]),
            marker=MARKERS[family.symbol],
            color=family.colour,
            markerfacecolor="white" if own == "possibly" else family.colour,
            alpha=0.4 if own == "not" else 1.0,
            elinewidth=0.7,
            capsize=1.5,
            zorder=2 if own == "not" else 3,
        )
    axes.set_xlabel(_SPEED_TITLES.get(speed, SPEEDS[speed]))
    axes.set_ylabel(f"{literal(column.title)} ({column.advice})")
    legend_below(figure, made, 3)
    labels = point_labels(groups)
    front = {shown[k] for k in pareto_front(points, better).members}
    order = sorted(shown, key=lambda i: i not in front)
    place_labels(axes, [(xs[i].value, ys[i].value, literal(labels[i])) for i in order])
    return figure


def phases_figure(groups: Sequence[Group]) -> Figure | None:
    """Seconds per phase, a bar per cell; of more than 24 cells those that take longest. None when nothing was timed."""
    timed = [group for group in groups if group.phases]
    if not timed:
        return None
    kept = sorted(timed, key=lambda group: -math.fsum(group.phases.values()))[:_MOST_BARS]
    shown = [group for group in timed if group in kept]
    figure = new_figure(COLUMN, 0.75 + 0.155 * len(shown))
    axes = figure.subplots()
    left = [0.0] * len(shown)
    drawn = []
    for phase, (title, colour) in PHASES.items():
        seconds = [group.phases.get(phase, 0.0) for group in shown]
        if any(seconds):
            axes.barh(range(len(shown)), seconds, left=left, color=colour, height=0.7)
            left = [start + length for start, length in zip(left, seconds, strict=True)]
            drawn.append(Family(title, colour, "square"))
    axes.set_yticks(range(len(shown)), [shortened(label, 26) for label in point_labels(shown)])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("seconds, mean over repeats")
    legend_below(figure, drawn, 3)
    return figure


def spectrum_figure(groups: Sequence[Group]) -> Figure | None:
    """Eigenvalues in the complex plane beside the residual of every mode; open markers are flagged, thin crosses the
    exact values. Of more than eight cells those of the smallest error. None without eigenvalues.
    """
    shown = [(group, found) for group in groups if (found := spectrum_of(group)) is not None]
    if not shown:
        return None
    if len(shown) > _MOST_SPECTRA:
        shown = sorted(shown, key=lambda pair: _error(pair[0]))[:_MOST_SPECTRA]
    spectra = [spectrum for _, spectrum in shown]
    made = [Family(one.label, COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]) for i, one in enumerate(spectra)]
    figure = new_figure(TEXT, 2.2 + 0.11 * math.ceil(len(made) / 2))
    plane, stems = figure.subplots(1, 2)
    for spectrum, family in zip(spectra, made, strict=True):
        _draw_modes(plane, stems, spectrum, family)
    exact = max((one.exact for one in spectra), key=len)
    plane.plot([z.real for z in exact], [z.imag for z in exact], "x", color=GREY, markersize=7, markeredgewidth=0.7)
    extent = max((abs(z) for one in spectra for z in (*one.values, *one.exact)), default=1.0) or 1.0
    if max((abs(z.imag) for one in spectra for z in (*one.values, *one.exact)), default=0.0) < 0.02 * extent:
        plane.set_ylim(-0.2 * extent, 0.2 * extent)
    plane.set_xlabel("real part")
    plane.set_ylabel("imaginary part")
    stems.set_yscale("log")
    stems.set_xlabel("mode")
    stems.set_ylabel("residual (lower is better)")
    stems.xaxis.get_major_locator().set_params(integer=True)
    legend_below(figure, made, 2)
    return figure


def ablation_figure(groups: Sequence[Group]) -> Figure | None:
    """The small multiples that the report begins with, at most nine. None when no axis varies."""
    qualities = quality_columns(groups)
    pair = leading_pair(groups, qualities)
    found = build_ablation("", groups, [*qualities, *cost_columns(groups)], pair[1].metric if pair else None)
    if found is None:
        return None
    panels = _panels(found)
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    along = found.axes[found.start.along]
    tall = 1.5 if along.numbers else max(1.2, 0.45 + 0.14 * len(along.levels))
    legend = found.legends[found.start.colours] if found.start.colours is not None else ()
    width = TEXT if columns > 1 else COLUMN
    figure = new_figure(width, rows * tall + 0.12 * math.ceil(len(legend) / 4) + 0.1)
    one_metric = found.start.panels != BY_METRIC
    grid = figure.subplots(rows, columns, squeeze=False, sharex=one_metric, sharey=one_metric or along.numbers is None)
    for place, axes in enumerate(grid.flat):
        if place >= len(panels):
            axes.set_visible(False)
            continue
        title, metric, members = panels[place]
        _draw_panel(axes, found, metric, members)
        axes.set_title(shortened(title, 34), loc="left")
        if one_metric:
            name = f"{literal(metric['title'])} ({metric['advice']})"
            if along.numbers is None and place + columns >= len(panels):
                axes.set_xlabel(name)
                axes.tick_params(labelbottom=True)
            elif along.numbers is not None and place % columns == 0:
                axes.set_ylabel(name)
    if legend:
        legend_below(figure, legend, 4)
    return figure


def _panels(found: AblationSection) -> list[tuple[str, Mapping[str, Any], list[int]]]:
    """Title, metric and cells of each panel, as on the page."""
    metrics = found.as_payload["metrics"]
    cells = range(len(found.as_payload["cells"]))
    made: list[tuple[str, Mapping[str, Any], list[int]]] = []
    panels = found.start.panels
    if panels == BY_METRIC:
        for one in metrics.values():
            members = [i for i in cells if one["rows"][i]]
            if len({one["rows"][i][0] for i in members}) > 1:
                made.append((f"{one['title']} ({one['advice']})", one, members))
        return made[:_MOST_PANELS]
    one = metrics[found.start.metric]
    members = [i for i in cells if one["rows"][i]]
    if panels is None:
        return [("", one, members)] if members else []
    axis = found.axes[int(panels)]
    for number, level in enumerate(axis.levels):
        own = [i for i in members if axis.level_of[i] == number]
        if own:
            made.append((f"{axis.title} {level}", one, own))
    return made[:_MOST_PANELS]


def _draw_panel(axes: Axes, found: AblationSection, metric: Mapping[str, Any], members: Sequence[int]) -> None:
    start, along = found.start, found.axes[found.start.along]
    colours = None if start.colours is None else found.axes[start.colours]

    def family(i: int) -> tuple[str, str]:
        level = 0 if colours is None else colours.level_of[i]
        return COLOURS[level % len(COLOURS)], MARKERS[SYMBOLS[level % len(SYMBOLS)]]

    rows = metric["rows"]
    if along.numbers is None:
        for i in members:
            colour, marker = family(i)
            level = along.level_of[i]
            kinds = sorted({colours.level_of[k] for k in members if along.level_of[k] == level}) if colours else [0]
            place = kinds.index(colours.level_of[i]) / (len(kinds) - 1) - 0.5 if colours and len(kinds) > 1 else 0.0
            axes.errorbar(
                [rows[i][0]],
                [level + 0.7 * place],
                xerr=_row_reach(rows[i]),
                marker=marker,
                color=colour,
                elinewidth=0.7,
            )
        axes.set_yticks(range(len(along.levels)), [shortened(level, 24) for level in along.levels])
        axes.set_ylim(len(along.levels) - 0.4, -0.6)
        if metric["log"]:
            axes.set_xscale("log")
        return
    lines: dict[tuple[int, ...], list[int]] = {}
    for i in members:
        if along.level_of[i] < len(along.numbers):
            rest = tuple(level for k, level in enumerate(found.as_payload["levels"][i]) if k != start.along)
            lines.setdefault(rest, []).append(i)
    for own in lines.values():
        own.sort(key=lambda i: along.level_of[i])
        colour, marker = family(own[0])
        reach = [_row_reach(rows[i]) for i in own]
        axes.errorbar(
            [along.numbers[along.level_of[i]] for i in own],
            [rows[i][0] for i in own],
            yerr=[[low[0] for low, _ in reach], [high[0] for _, high in reach]],
            marker=marker,
            color=colour,
            elinewidth=0.7,
        )
    if min(along.numbers) > 0 and max(along.numbers) / min(along.numbers) >= 8:
        axes.set_xscale("log")
    axes.set_xlabel(literal(along.title))
    if metric["log"]:
        axes.set_yscale("log")


def _draw_modes(plane: Axes, stems: Axes, spectrum: Spectrum, family: Family) -> None:
    marker = MARKERS[family.symbol]
    for k, value in enumerate(spectrum.values):
        face = "white" if spectrum.flags[k] else family.colour
        plane.plot([value.real], [value.imag], marker=marker, color=family.colour, markerfacecolor=face)
    modes = [k for k, value in enumerate(spectrum.residuals) if 0 < value < math.inf]
    stems.plot([k + 1 for k in modes], [spectrum.residuals[k] for k in modes], color=family.colour, linewidth=0.7)
    for k in modes:
        face = "white" if spectrum.flags[k] else family.colour
        stems.plot([k + 1], [spectrum.residuals[k]], marker=marker, color=family.colour, markerfacecolor=face)


def _error(group: Group) -> float:
    value = group.estimates.get("max_eigenvalue_error", _MISSING).value
    return value if math.isfinite(value) else math.inf


def _reach(estimate: Estimate) -> tuple[list[float], list[float]]:
    low, high = estimate.bounds
    return [max(estimate.value - low, 0.0)], [max(high - estimate.value, 0.0)]


def _row_reach(row: Sequence[Any]) -> tuple[list[float], list[float]]:
    value, low, high, _ = row
    return [max(value - low, 0.0)], [max(high - value, 0.0)]
