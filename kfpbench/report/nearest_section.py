"""Samples beside their nearest training images, as plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.findings import findings, sampled
from kfpbench.report.grids import Embedded, Gallery
from kfpbench.report.naming import with_own_labels
from kfpbench.report.numbers import format_significant

BUDGET = 600_000  # bytes in the file, apart from the sample grids' share
MOST = 24  # pictures on the page; the run folder has all of them
_SUSPICIOUS = ("copies", "blends", "near_training")


@dataclass(frozen=True)
class PairPicture:
    """The pairs of one cell."""

    label: str
    uri: str
    caption: str
    alt: str
    cell: str


@dataclass(frozen=True)
class NearestSection:
    """What the template needs; ``left_out`` says why pictures are missing."""

    pictures: tuple[PairPicture, ...]
    left_out: tuple[str, ...]


def build_nearest(groups: Sequence[Group], folder: Path) -> NearestSection:
    """The pictures of the cells that have one: those with a finding of memorisation first, then as in the plan."""
    chosen = _chosen(groups)
    gallery = Gallery(folder, min(MOST, len(chosen)), BUDGET)
    pictures, left_out = [], []
    for group in chosen[:MOST]:
        made = gallery.embed(group.first.nearest)
        if isinstance(made, Embedded):
            told = group.first.details.get("nearest_training")
            pairs = dict(told) if isinstance(told, Mapping) else {}
            alt = f"Samples of {group.label}, each above its nearest training image: {_distances(pairs)}"
            pictures.append(PairPicture(group.label, made.uri, _caption(pairs), alt, group.first.ident))
        else:
            left_out.append(f"{group.label}: {made}")
    if len(chosen) > MOST:
        left_out.append(f"{len(chosen) - MOST} more cells: the folder samples of the run has their pictures")
    return NearestSection(tuple(pictures), tuple(left_out))


def _chosen(groups: Sequence[Group]) -> list[Group]:
    suspicious = {cell for one in findings(groups) if one.kind in _SUSPICIOUS for cell in one.cells}
    having = [group for group in with_own_labels(sampled(groups)) if group.first.nearest]
    return sorted(having, key=lambda group: group.first.ident not in suspicious)


def _caption(pairs: Mapping[str, Any]) -> str:
    """What was compared, in words."""
    features = pairs.get("features", "")
    text = f"Distances in {'pixels' if features == 'identity' else features}." if features else ""
    held_out = pairs.get("median_held_out_distance")
    return text + (f" Held-out images: median {format_significant(float(held_out))}." if held_out else "")


def _distances(pairs: Mapping[str, Any]) -> str:
    """The distances of the pairs in words."""
    values = pairs.get("distance") or ()
    return "distances " + ", ".join(format_significant(float(value)) for value in values) if values else "no distances"
