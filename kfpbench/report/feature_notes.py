"""In which features each number was measured, with what weights, how images were resized, and at which n."""

from __future__ import annotations

from collections.abc import Sequence

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import Column


def feature_notes(groups: Sequence[Group], columns: Sequence[Column]) -> list[str]:
    """A line for each way in which features were made, with the metrics that were taken in them; in table order.

    Measurements that state no features (costs, eigenvalues) are left out.
    """
    metrics: dict[str, list[str]] = {}
    sizes: dict[str, set[int]] = {}
    for column in columns:
        for group in groups:
            for cell in group.cells:
                one = cell.measured.get(column.metric)
                version = one.details.get("features_version") if one is not None else None
                if one is None or version is None:
                    continue
                made = _how(str(version), one.details.get("features"), one.details.get("resize"))
                names = metrics.setdefault(made, [])
                if column.title not in names:
                    names.append(column.title)
                sizes.setdefault(made, set()).update([one.n] if one.n else [])
    lines = []
    for made, names in metrics.items():
        n = ", ".join(f"{size:,}" for size in sorted(sizes[made]))
        lines.append(f"{', '.join(names)}: {made}{f'; n = {n}' if n else ''}")
    return lines


def _how(version: str, features: object, resize: object) -> str:
    """The extractor's name where its version does not begin with it, the version, and what was done to the images."""
    name = "" if features is None or version.startswith(str(features)) else f"{features} "
    return f"features {name}{version}" + ("" if resize in (None, "none") else f", resize: {resize}")
