"""Everything that the report shows of the spectrum cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfpbench.report.aggregate import Estimate, Group
from kfpbench.report.columns import Column, cost_columns, quality_columns
from kfpbench.report.eigenfunctions import FunctionFigures, function_figures, most_cells
from kfpbench.report.figures import eigenvalue_plane, residual_stems
from kfpbench.report.naming import COLOURS, SYMBOLS, Family, with_own_labels
from kfpbench.report.numbers import format_significant
from kfpbench.report.spectra import Spectrum, spectrum_of
from kfpbench.report.table import Row, build_rows

MODES_IN_TABLE = 8
MOST_IN_FIGURES = 12  # cells in one figure; more cannot be told apart
_ERROR = "max_eigenvalue_error"
_MISSING = Estimate(math.nan)


@dataclass(frozen=True)
class Mode:
    """One eigenvalue of the table."""

    value: str
    residual: str
    error: str
    flag: str


@dataclass(frozen=True)
class SpectrumRow:
    """The leading modes of one cell; ``status`` is '' when the solver was content."""

    label: str
    status: str
    modes: tuple[Mode, ...]
    total: int
    cell: str


@dataclass(frozen=True)
class SpectrumSection:
    """All spectrum cells of one data set."""

    key: str
    name: str
    summary: str
    rows: tuple[SpectrumRow, ...]
    families: tuple[Family, ...]
    heads: tuple[int, ...]
    columns: tuple[Column, ...]
    measured: tuple[Row, ...]
    flagged: bool
    has_exact: bool
    exact: str
    figures: dict[str, Any]
    focus_note: str
    functions: FunctionFigures | None


def build_spectrum(key: str, name: str, groups: Sequence[Group], folder: Path, problems: int = 1) -> SpectrumSection:
    """The section for the groups of spectrum cells of one data set; ``folder`` is that of the run.

    ``problems`` sections share the room that the page has for eigenfunctions.
    """
    groups = with_own_labels(groups)
    shown = [(group, spectrum) for group in groups if (spectrum := spectrum_of(group)) is not None]
    spectra = [spectrum for _, spectrum in shown]
    focus = _focus(shown)
    figures: dict[str, Any] = {}
    if focus:
        figures[f"{key}-plane"] = eigenvalue_plane([spectrum for _, spectrum in focus])
        residuals = residual_stems([spectrum for _, spectrum in focus])
        if residuals:
            figures[f"{key}-residuals"] = residuals
    columns = [*quality_columns(groups), *cost_columns(groups)]
    longest = max(spectra, key=lambda spectrum: len(spectrum.exact), default=None)
    return SpectrumSection(
        key=key,
        name=name,
        summary=_summary(groups),
        rows=tuple(_row(spectrum) for spectrum in spectra),
        families=tuple(
            Family(spectrum.label, COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)])
            for i, (_, spectrum) in enumerate(focus)
        ),
        heads=tuple(range(1, 1 + max((len(s.values[:MODES_IN_TABLE]) for s in spectra), default=0))),
        columns=tuple(columns),
        measured=tuple(build_rows(groups, columns, list(range(len(groups))))) if columns else (),
        flagged=any(flag for spectrum in spectra for flag in spectrum.flags),
        has_exact=any(spectrum.exact for spectrum in spectra),
        exact=", ".join(longest.exact_texts(MODES_IN_TABLE)) if longest and _one_exact(spectra) else "",
        figures=figures,
        focus_note=_focus_note(len(focus), len(shown)),
        functions=function_figures(
            key, [g for g, _ in _by_error(shown)], [s for _, s in _by_error(shown)], folder, most_cells(problems)
        ),
    )


def _by_error(shown: Sequence[tuple[Group, Spectrum]]) -> list[tuple[Group, Spectrum]]:
    """The cells as they come where few, else the most accurate first; those without an error last."""
    if len(shown) <= MOST_IN_FIGURES:
        return list(shown)

    def error(pair: tuple[Group, Spectrum]) -> float:
        value = pair[0].estimates.get(_ERROR, _MISSING).value
        return value if math.isfinite(value) else math.inf

    return sorted(shown, key=error)


def _focus(shown: Sequence[tuple[Group, Spectrum]]) -> list[tuple[Group, Spectrum]]:
    return _by_error(shown)[:MOST_IN_FIGURES]


def _focus_note(count: int, total: int) -> str:
    return f"{count} of {total} cells: those of the smallest error. The tables have all." if count < total else ""


def _one_exact(spectra: Sequence[Spectrum]) -> bool:
    """Whether all cells have the same problem, so that one line of exact values stands for all."""
    lists = [spectrum.exact for spectrum in spectra if spectrum.exact]
    shortest = min(map(len, lists), default=0)
    return len({exact[:shortest] for exact in lists}) == 1


def _summary(groups: Sequence[Group]) -> str:
    """Whose dynamics: those of the reverse process, or the data set's own."""
    parts = []
    for part in ("score", "process"):
        names = dict.fromkeys(_name(group.first.spec[part]) for group in groups if part in group.first.spec)
        if names:
            parts.append(f"{part}: " + ", ".join(names))
    own = all("score" in group.first.spec and group.first.spec["score"] is None for group in groups)
    return " · ".join(parts) + (" (the stationary dynamics of the data set itself)" if own else "")


def _name(component: Any) -> str:
    """A dash where a reference problem has dynamics of its own."""
    if component is None:
        return "\N{EN DASH}"
    return str(component.get("name") if isinstance(component, dict) else component)


def _row(spectrum: Spectrum) -> SpectrumRow:
    modes = tuple(
        Mode(
            spectrum.value_text(k),
            format_significant(spectrum.residuals[k], 2) if math.isfinite(spectrum.residuals[k]) else "",
            format_significant(spectrum.errors[k], 2) if math.isfinite(spectrum.errors[k]) else "",
            spectrum.flags[k],
        )
        for k in range(min(len(spectrum.values), MODES_IN_TABLE))
    )
    return SpectrumRow(spectrum.label, spectrum.status, modes, len(spectrum.values), spectrum.cell)
