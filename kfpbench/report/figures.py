"""Phase bars and spectra as plotly figures (plain dictionaries; colours of text and grid are set by the
page).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.embed import plotly_text
from kfpbench.report.naming import COLOURS, SYMBOLS
from kfpbench.report.numbers import format_seconds
from kfpbench.report.spectra import Spectrum

# Metric time is no cost of the sampler, hence grey.
PHASES = {
    "setup": ("setup", "#0072B2"),
    "warm_up": ("warm-up", "#56B4E9"),
    "latency": ("sampling at batch 1", "#E69F00"),
    "sampling": ("sampling", "#D55E00"),
    "metrics": ("metrics", "#9A9A9A"),
}


def phase_bars(groups: Sequence[Group], labels: Sequence[str]) -> dict[str, Any] | None:
    """Stacked horizontal bars, one per group from the top down; None when no phase was timed."""
    timed = [(group, label) for group, label in zip(groups, labels, strict=True) if group.phases]
    if not timed:
        return None
    names = [label for _, label in timed]
    rows = list(range(len(timed)))  # positions, since two groups may share a label
    traces = []
    for phase, (title, colour) in PHASES.items():
        seconds = [group.phases.get(phase, 0.0) for group, _ in timed]
        if any(seconds):
            text = [
                f"{plotly_text(name)}<br>{title}: {format_seconds(value)}"
                for name, value in zip(names, seconds, strict=True)
            ]
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": title,
                    "meta": phase,
                    "x": seconds,
                    "y": rows,
                    "customdata": [group.first.ident for group, _ in timed],
                    "marker": {"color": colour, "line": {"width": 0}},
                    "hovertext": text,
                    "hovertemplate": "%{hovertext}<extra></extra>",
                }
            )
    layout = {
        "barmode": "stack",
        "bargap": 0.35,
        "height": 80 + 24 * len(timed),
        "xaxis": {"title": {"text": "seconds, mean over repeats"}, "rangemode": "tozero"},
        "yaxis": {
            "tickmode": "array",
            "tickvals": rows,
            "ticktext": [plotly_text(name) for name in names],
            "range": [len(timed) - 0.4, -0.6],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
        "showlegend": False,
    }
    return {"data": traces, "layout": layout}


def eigenvalue_plane(spectra: Sequence[Spectrum]) -> dict[str, Any]:
    """Eigenvalues in the complex plane: filled markers count, open ones are flagged; crosses are the exact
    values.
    """
    traces: list[dict[str, Any]] = []
    for number, spectrum in enumerate(spectra):
        for flagged in (False, True):
            modes = [k for k, flag in enumerate(spectrum.flags) if bool(flag) is flagged]
            if modes:
                traces.append(_modes_trace(spectrum, number, modes, flagged))
    traces += [_exact_trace(exact) for exact in _distinct(spectra)]
    layout = {
        "xaxis": {"title": {"text": "real part"}, "zeroline": True},
        "yaxis": {"title": {"text": "imaginary part"}, "zeroline": True, **_flat_range(spectra)},
        "showlegend": False,
        "hovermode": "closest",
        "height": 380,
    }
    return {"data": traces, "layout": layout}


def _distinct(spectra: Sequence[Spectrum]) -> list[tuple[complex, ...]]:
    """The lists of exact values; of several for one same problem the longest."""
    kept: list[tuple[complex, ...]] = []
    for exact in sorted({spectrum.exact for spectrum in spectra if spectrum.exact}, key=len, reverse=True):
        if not any(longer[: len(exact)] == exact for longer in kept):
            kept.append(exact)
    return kept


def _exact_trace(exact: Sequence[complex]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "exact",
        "x": [value.real for value in exact],
        "y": [value.imag for value in exact],
        "marker": {"symbol": "cross-thin", "size": 13, "line": {"width": 1.2, "color": "#888888"}},
        "hovertemplate": "exact %{x:.5g}<extra></extra>",
    }


def residual_stems(spectra: Sequence[Spectrum]) -> dict[str, Any] | None:
    """Residual of every mode on a log scale, in the solver's order; None when there are no positive
    residuals.
    """
    traces = []
    for number, spectrum in enumerate(spectra):
        modes = [k for k, value in enumerate(spectrum.residuals) if 0 < value < math.inf]
        if not modes:
            continue
        flagged = [bool(spectrum.flags[k]) for k in modes]
        symbol = SYMBOLS[number % len(SYMBOLS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plotly_text(spectrum.label),
                "meta": spectrum.cell,
                "x": [k + 1 for k in modes],
                "y": [spectrum.residuals[k] for k in modes],
                "line": {"width": 1, "color": COLOURS[number % len(COLOURS)]},
                "marker": {
                    "size": 9,
                    "color": COLOURS[number % len(COLOURS)],
                    "symbol": [f"{symbol}-open" if flag else symbol for flag in flagged],
                },
                "hovertext": [_mode_text(spectrum, k) for k in modes],
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
        )
    if not traces:
        return None
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": "mode"},
            "dtick": 1 if max(len(s.values) for s in spectra) <= 16 else None,
        },
        "yaxis": {"title": {"text": "residual (lower is better)"}, "type": "log", "exponentformat": "power"},
        "showlegend": False,
        "hovermode": "closest",
        "height": 380,
    }
    sizes = [value for spectrum in spectra for value in spectrum.residuals if 0 < value < math.inf]
    # plotly writes every digit between two powers where there are few of those, and they overlap
    decades = math.log10(max(sizes) / min(sizes))
    layout["yaxis"]["dtick"] = "D2" if decades < 3 else math.ceil(decades / 8)
    return {"data": traces, "layout": layout}


def _modes_trace(spectrum: Spectrum, number: int, modes: Sequence[int], flagged: bool) -> dict[str, Any]:
    symbol = SYMBOLS[number % len(SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plotly_text(spectrum.label) + (" (flagged)" if flagged else ""),
        "meta": spectrum.cell,
        "x": [spectrum.values[k].real for k in modes],
        "y": [spectrum.values[k].imag for k in modes],
        "marker": {
            "symbol": f"{symbol}-open" if flagged else symbol,
            "size": 10,
            "color": COLOURS[number % len(COLOURS)],
            "line": {"width": 1.5 if flagged else 0.5},
        },
        "hovertext": [_mode_text(spectrum, k) for k in modes],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _mode_text(spectrum: Spectrum, k: int) -> str:
    lines = [plotly_text(spectrum.label), f"mode {k + 1}: {plotly_text(spectrum.value_text(k))}"]
    if math.isfinite(spectrum.residuals[k]):
        lines.append(f"residual {spectrum.residuals[k]:.3g}")
    if spectrum.flags[k]:
        lines.append(f"flagged: {plotly_text(spectrum.flags[k])}")
    return "<br>".join(lines)


def _flat_range(spectra: Sequence[Spectrum]) -> dict[str, Any]:
    """A real spectrum gets a range of its own, else plotly would magnify rounding errors to the figure's
    height.
    """
    values = [value for spectrum in spectra for value in (*spectrum.values, *spectrum.exact)]
    extent = max((abs(value.real) for value in values), default=1.0) or 1.0
    if max((abs(value.imag) for value in values), default=0.0) < 0.02 * extent:
        return {"range": [-0.2 * extent, 0.2 * extent]}
    return {}
