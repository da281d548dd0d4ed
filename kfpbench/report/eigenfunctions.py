"""Eigenfunctions of the spectrum cells as figures: lines in one dimension, heat maps in two, one cell at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import StoreError
from kfpbench.report.aggregate import Group
from kfpbench.report.embed import plotly_text
from kfpbench.report.naming import COLOURS
from kfpbench.report.spectra import Spectrum
from kfpbench.store.eigenfunctions import FunctionGrid, read_function_grid

MOST_CELLS = 24  # of a section; each one adds some tens of kilobytes to the page
_ON_THE_PAGE = 160
_DIGITS = 3  # significant digits of the largest value of a function
_DENSITY_HEIGHT = 0.8  # of the tallest function

_DIVERGING = [[0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#f7f7f7"], [0.75, "#f4a582"], [1, "#b2182b"]]

Panel = dict[str, Any]  # of the page's script: data, layout, caption


@dataclass(frozen=True)
class FunctionFigures:
    """The panels of each cell: ``variants[c][p]`` is panel p of the cell ``labels[c]``; ``panels`` the most that one
    has.
    """

    key: str
    labels: tuple[str, ...]
    variants: tuple[tuple[Panel, ...], ...]
    panels: int
    planar: bool
    has_density: bool
    left_out: tuple[str, ...]
    note: str = ""


def function_figures(
    key: str, groups: Sequence[Group], spectra: Sequence[Spectrum], folder: Path, most: int = MOST_CELLS
) -> FunctionFigures | None:
    """The figures of the first ``most`` cells that stored eigenfunctions, in the order given; None when none did.

    A file that is missing or damaged is named in ``left_out``.
    """
    found: list[tuple[str, tuple[Panel, ...]]] = []
    left_out: list[str] = []
    planar = has_density = False
    stored = [pair for pair in zip(groups, spectra, strict=True) if pair[0].first.functions]
    for group, spectrum in stored[:most]:
        path = (folder / group.first.functions).resolve()
        if not path.is_relative_to(folder.resolve()):
            left_out.append(f"{spectrum.label}: {group.first.functions} leaves the run folder")
            continue
        try:
            grid = read_function_grid(path)
        except StoreError as error:
            left_out.append(f"{spectrum.label}: {error.what}")
            continue
        frame = str(group.first.details.get("frame") or "raw")
        panels = _maps(grid, spectrum, frame) if len(grid.axes) > 1 else (_lines(grid, spectrum, frame),)
        found.append((spectrum.label, panels))
        planar |= len(grid.axes) > 1
        has_density |= grid.density is not None
    if not found and not left_out:
        return None
    note = f"{most} of {len(stored)} cells." if len(stored) > most else ""
    return FunctionFigures(
        key=f"{key}-functions",
        labels=tuple(label for label, _ in found),
        variants=tuple(panels for _, panels in found),
        panels=max((len(panels) for _, panels in found), default=0),
        planar=planar,
        has_density=has_density,
        left_out=tuple(left_out),
        note=note,
    )


def most_cells(sections: int) -> int:
    """How many cells of each of so many sections show their eigenfunctions, for the page's size."""
    return min(MOST_CELLS, max(_ON_THE_PAGE // max(sections, 1), 1))


def _lines(grid: FunctionGrid, spectrum: Spectrum, frame: str) -> Panel:
    x = _rounded(grid.axes[0])
    traces: list[dict[str, Any]] = []
    if grid.density is not None and grid.density.max() > 0:
        height = _DENSITY_HEIGHT * float(np.abs(grid.values).max()) / float(grid.density.max())
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "density",
                "x": x,
                "y": _rounded(grid.density * height),
                "fill": "tozeroy",
                "fillcolor": "rgba(128,128,128,0.18)",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    for number, (mode, values) in enumerate(zip(grid.modes, grid.values, strict=True)):
        flagged = bool(spectrum.flags[mode]) if mode < len(spectrum.flags) else False
        name = plotly_text(_mode(spectrum, mode)) + (" (flagged)" if flagged else "")
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": x,
                "y": _rounded(values),
                "line": {"width": 1.8, "color": COLOURS[number % len(COLOURS)], "dash": "dot" if flagged else "solid"},
                "hovertemplate": f"{name}<br>%{{x:.3g}}: %{{y:.3g}}<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"title": {"text": _axis("x", frame)}, "zeroline": False},
        "yaxis": {"title": {"text": "eigenfunction"}, "zeroline": True},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "height": 420,
    }
    return {"data": traces, "layout": layout, "caption": ""}


def _maps(grid: FunctionGrid, spectrum: Spectrum, frame: str) -> tuple[Panel, ...]:
    x, y = (_rounded(axis) for axis in grid.axes)
    panels = []
    for mode, values in zip(grid.modes, grid.values, strict=True):
        largest = float(np.abs(values).max())
        traces: list[dict[str, Any]] = [
            {
                "type": "heatmap",
                "x": x,
                "y": y,
                "z": _rounded(values.T),  # plotly's rows run along y
                "colorscale": _DIVERGING,
                "zmin": -largest,
                "zmax": largest,
                "zsmooth": "best",
                "showscale": False,
                "hovertemplate": "(%{x:.3g}, %{y:.3g}): %{z:.3g}<extra></extra>",
            }
        ]
        if grid.density is not None:
            traces.append(
                {
                    "type": "contour",
                    "x": x,
                    "y": y,
                    "z": _rounded(grid.density.T),
                    "ncontours": 6,
                    "contours": {"coloring": "none"},
                    "line": {"width": 1, "color": "#777777"},
                    "showscale": False,
                    "hoverinfo": "skip",
                }
            )
        layout = {
            "xaxis": {"title": {"text": _axis("x₁", frame)}, "showgrid": False, "zeroline": False},
            "yaxis": {"title": {"text": _axis("x₂", frame)}, "showgrid": False, "zeroline": False},
            "showlegend": False,
            "hovermode": "closest",
            "height": 330,
        }
        flag = spectrum.flags[mode] if mode < len(spectrum.flags) else ""
        caption = _mode(spectrum, mode) + (f" (flagged: {flag})" if flag else "")
        panels.append({"data": traces, "layout": layout, "caption": caption[:1].upper() + caption[1:]})
    return tuple(panels)


def _mode(spectrum: Spectrum, mode: int) -> str:
    """'mode 2: -1.002', numbered as in the table."""
    return f"mode {mode + 1}: {spectrum.value_text(mode)}" if mode < len(spectrum.values) else f"mode {mode + 1}"


def _axis(name: str, frame: str) -> str:
    return f"{name}, {frame}" if frame != "raw" else name


def _rounded(values: NDArray[np.float64]) -> Any:
    """Nested lists with three significant digits of the largest value: more would only make the page large."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return values.tolist()
    return np.round(values, _DIGITS - 1 - math.floor(math.log10(largest))).tolist()
