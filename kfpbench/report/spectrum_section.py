"""Everything that the report shows of the spectrum cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import Column, cost_columns, quality_columns
from kfpbench.report.figures import eigenvalue_plane, residual_stems
from kfpbench.report.naming import COLOURS, SYMBOLS, Family, with_own_labels
from kfpbench.report.numbers import format_significant
from kfpbench.report.spectra import Spectrum, spectrum_of
from kfpbench.report.table import Row, build_rows

MODES_IN_TABLE = 8


@dataclass(frozen=True)
class Mode:
    """One eigenvalue of the table."""

    value: str
    residual: str
    flag: str


@dataclass(frozen=True)
class SpectrumRow:
    """The leading modes of one cell."""

    label: str
    modes: tuple[Mode, ...]
    total: int


@dataclass(frozen=True)
class SpectrumSection:
    """All spectrum cells of one data set."""

    key: str
    name: str
    rows: tuple[SpectrumRow, ...]
    families: tuple[Family, ...]
    heads: tuple[int, ...]
    columns: tuple[Column, ...]
    measured: tuple[Row, ...]
    flagged: bool
    has_exact: bool
    figures: dict[str, Any]


def build_spectrum(key: str, name: str, groups: Sequence[Group]) -> SpectrumSection:
    """The section for the groups of spectrum cells of one data set."""
    groups = with_own_labels(groups)
    spectra = [spectrum for group in groups if (spectrum := spectrum_of(group)) is not None]
    figures: dict[str, Any] = {}
    if spectra:
        figures[f"{key}-plane"] = eigenvalue_plane(spectra)
        residuals = residual_stems(spectra)
        if residuals:
            figures[f"{key}-residuals"] = residuals
    columns = [*quality_columns(groups), *cost_columns(groups)]
    return SpectrumSection(
        key=key,
        name=name,
        rows=tuple(_row(spectrum) for spectrum in spectra),
        families=tuple(
            Family(spectrum.label, COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)])
            for i, spectrum in enumerate(spectra)
        ),
        heads=tuple(range(1, 1 + max((len(s.values[:MODES_IN_TABLE]) for s in spectra), default=0))),
        columns=tuple(columns),
        measured=tuple(build_rows(groups, columns, list(range(len(groups))))) if columns else (),
        flagged=any(flag for spectrum in spectra for flag in spectrum.flags),
        has_exact=any(spectrum.exact for spectrum in spectra),
        figures=figures,
    )


def _row(spectrum: Spectrum) -> SpectrumRow:
    modes = tuple(
        Mode(
            spectrum.value_text(k),
            format_significant(spectrum.residuals[k], 2) if math.isfinite(spectrum.residuals[k]) else "",
            spectrum.flags[k],
        )
        for k in range(min(len(spectrum.values), MODES_IN_TABLE))
    )
    return SpectrumRow(spectrum.label, modes, len(spectrum.values))
