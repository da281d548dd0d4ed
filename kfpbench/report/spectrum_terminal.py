"""Spectra in the terminal: for each cell its leading eigenvalues with residuals, errors and flags."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kfpbench.report.aggregate import Group, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.naming import with_own_labels
from kfpbench.report.numbers import format_significant
from kfpbench.report.spectra import Spectrum, spectrum_of
from kfpbench.report.terminal import print_line

if TYPE_CHECKING:
    from rich.console import Console

_HEADS = ("mode", "eigenvalue", "exact", "error", "residual", "flag")
_GAP = "  "


def render_spectra(records: Iterable[Any], console: Console) -> None:
    """Print a table per spectrum cell, repeats as one, with its first good repeat's numbers.

    ``exact`` is the exact value that a mode stands for: the k-th non-zero one for the k-th mode that counts. A cell
    without a spectrum has its status and reason. Raises StoreError for unreadable records.
    """
    by_dataset: dict[str, list[Group]] = {}
    for group in group_repeats(read_cells(records)):
        if group.first.kind == "spectrum":
            by_dataset.setdefault(group.first.dataset, []).append(group)
    for name, groups in by_dataset.items():
        for group in with_own_labels(groups):
            print_line(console, f"{name}: {group.label}", style="bold")
            spectrum = spectrum_of(group) if group.ok else None
            if spectrum is None:
                print_line(console, f"{_GAP}{group.first.status}: {group.first.reason}", style="yellow")
            else:
                for line in _table(spectrum):
                    print_line(console, line)
                if spectrum.status:
                    print_line(console, f"{_GAP}status: {spectrum.status}", style="yellow")
            print_line(console, "")


def _table(spectrum: Spectrum) -> list[str]:
    rows = [
        (
            str(k + 1),
            spectrum.value_text(k),
            spectrum.matched_text(k),
            _short(spectrum.errors[k]),
            _short(spectrum.residuals[k]),
            spectrum.flags[k],
        )
        for k in range(len(spectrum.values))
    ]
    kept = [column for column in range(len(_HEADS)) if any(row[column] for row in rows)]
    widths = {column: max(len(_HEADS[column]), *(len(row[column]) for row in rows)) for column in kept}

    def line(cells: Sequence[str]) -> str:
        padded = [cells[column] if _HEADS[column] == "flag" else cells[column].rjust(widths[column]) for column in kept]
        return (_GAP + _GAP.join(padded)).rstrip()

    return [line(_HEADS), *(line(row) for row in rows)]


def _short(value: float) -> str:
    return format_significant(value, 2) if math.isfinite(value) else ""
