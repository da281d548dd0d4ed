"""A cell: one fully specified computation of a suite, and its content-derived identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Cell:
    """One computation.

    ``spec`` is canonical: keys data, score, process, sampler or spectrum, metrics, n_samples, batch_size,
    latency_repeats, seed, device, dtype and budget, with every default filled in; score and process are null for the
    spectrum of a reference problem's own dynamics. ``axes`` holds the grid's
    values that apply to this cell, by dotted path. ``id`` depends on ``spec`` without its budget alone, not on
    order, label or other cells.
    """

    index: int
    id: str
    kind: Literal["sample", "spectrum"]
    label: str
    axes: dict[str, Any]
    repeat: int
    seed: int
    spec: dict[str, Any]


def cell_id(spec: dict[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the spec as canonical JSON, the budget left out.

    A larger budget is the remedy for a timeout: it must not make the finished cells into others.
    """
    text = json.dumps(
        {key: value for key, value in spec.items() if key != "budget"}, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_negative_zero(value: Any) -> Any:
    """The same plain value with 0.0 for -0.0: equal numbers must have equal identities."""
    if isinstance(value, dict):
        return {key: without_negative_zero(child) for key, child in value.items()}
    if isinstance(value, list):
        return [without_negative_zero(child) for child in value]
    return 0.0 if isinstance(value, float) and value == 0 else value
