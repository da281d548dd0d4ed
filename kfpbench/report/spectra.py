"""What a spectrum cell found: eigenvalues, their residuals, which are flagged, and the exact values."""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.numbers import format_number

_EXACT = ("exact", "exact_eigenvalues", "reference", "reference_eigenvalues")


@dataclass(frozen=True)
class Spectrum:
    """Aligned tuples, one entry per mode; a flag is '' for a mode that counts, else why it does not.

    ``matched`` are the exact values that modes stand for and ``errors`` the relative errors, NaN for a mode that is
    compared with none; ``exact`` are the leading exact values. ``status`` is '' when the solver was content, else what
    it says; ``cell`` the identity of the cell.
    """

    label: str
    values: tuple[complex, ...]
    residuals: tuple[float, ...]
    flags: tuple[str, ...]
    exact: tuple[complex, ...] = ()
    matched: tuple[complex, ...] = ()
    errors: tuple[float, ...] = ()
    status: str = ""
    cell: str = ""

    def value_text(self, k: int) -> str:
        """Mode k as '-1.002' or '-1.002 + 0.31i', with as many digits as its residual supports."""
        value = self.values[k]
        size = abs(value) or 1.0
        digits = 1 - math.floor(math.log10(size))  # two significant digits at least
        residual = self.residuals[k]
        if 0 < residual < math.inf:
            digits = max(digits, 1 - math.floor(math.log10(residual)))
        decimals = min(max(digits, 0), max(5 - math.floor(math.log10(size)), 0))
        return _text(value, decimals)

    def exact_texts(self, count: int) -> list[str]:
        """The first exact values, each with five significant digits."""
        return [_exact_text(value) for value in self.exact[:count]]

    def matched_text(self, k: int) -> str:
        """The exact value that mode k stands for, '' for none."""
        return _exact_text(self.matched[k]) if k < len(self.matched) and cmath.isfinite(self.matched[k]) else ""


def spectrum_of(group: Group) -> Spectrum | None:
    """The spectrum of the first good repeat, from its details or else from its measurements; None when it has
    none.
    """
    cell = group.first
    values = _complex_values(cell.details.get("eigenvalues"))
    residuals = _floats(cell.details.get("residuals"))
    if not values:
        while f"eigenvalue_{len(values) + 1}_re" in cell.measured:
            k = len(values) + 1
            imaginary = cell.measured.get(f"eigenvalue_{k}_im")
            values.append(complex(cell.measured[f"eigenvalue_{k}_re"].value, imaginary.value if imaginary else 0.0))
            residual = cell.measured.get(f"residual_{k}")
            residuals.append(residual.value if residual else math.nan)
    if not values:
        return None
    count = len(values)
    flags = [_flag(item) for item in cell.details.get("flags") or ()]
    exact = next((_complex_values(cell.details[key]) for key in _EXACT if cell.details.get(key)), [])
    return Spectrum(
        group.label,
        tuple(values),
        tuple((residuals + [math.nan] * count)[:count]),
        tuple((flags + [""] * count)[:count]),
        tuple(exact),
        *_matches(cell.details.get("matches"), count),
        _flag(cell.details.get("status")),
        cell.ident,
    )


def _matches(items: Any, count: int) -> tuple[tuple[complex, ...], tuple[float, ...]]:
    """Exact value and error of each mode, NaN for a mode without."""
    found = [item if isinstance(item, Mapping) else {} for item in items or ()]
    exact = [(_complex_values([item["exact"]]) if "exact" in item else [complex(math.nan)])[0] for item in found]
    errors = [float(item.get("error", math.nan)) for item in found]
    return tuple((exact + [complex(math.nan)] * count)[:count]), tuple((errors + [math.nan] * count)[:count])


def _exact_text(value: complex) -> str:
    return _text(value, 4 - math.floor(math.log10(abs(value) or 1e4)))


def _text(value: complex, decimals: int) -> str:
    real = format_number(value.real, decimals)
    if abs(value.imag) < 1e-9 * (abs(value) or 1.0):
        return real
    sign = "+" if value.imag > 0 else "\N{MINUS SIGN}"
    return f"{real} {sign} {format_number(abs(value.imag), decimals)}i"


def _complex_values(items: Any) -> list[complex]:
    """Numbers from [[re, im], ...] or [re, ...]; none from anything else, such as a name."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        return []
    values = []
    for item in items:
        parts = item if isinstance(item, Sequence) and not isinstance(item, str) else (item, 0.0)
        re, im = (math.nan if part is None else float(part) for part in parts)
        values.append(complex(re, im))
    return values


def _floats(items: Any) -> list[float]:
    return [math.nan if item is None else float(item) for item in items or ()]


def _flag(item: Any) -> str:
    """Flags come as booleans, as text, or as a list of reasons."""
    if isinstance(item, list | tuple):
        return ", ".join(map(str, item))
    if isinstance(item, str):
        return "" if item.lower() in {"", "ok", "none", "false"} else item
    return "flagged" if item else ""
