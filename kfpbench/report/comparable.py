"""Parts of a collected run that can be compared: cells of other data, reference, n, features or seeds stand apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kfpbench.report.aggregate import Group
from kfpbench.report.columns import COST_METRICS

ORIGIN = "origin"  # in the details of a cell that was collected from another folder
_TIMES = COST_METRICS - {"nfe", "setup_nfe"}
_SHOWN = 60


@dataclass
class Part:
    """Groups that may be compared with each other, and in words why they stand apart from the first part."""

    groups: list[Group]
    reason: str = ""


def is_collected(groups: Sequence[Group]) -> bool:
    """Whether some cell was collected from another run folder."""
    return any(ORIGIN in cell.details for group in groups for cell in group.cells)


def comparable_parts(groups: Sequence[Group]) -> list[Part]:
    """The groups of one data set in as few parts as they can be put one by one, in order of appearance.

    Two groups may be in one part when their data, reference and n are equal, the features of every metric that both
    have too, and all groups of the part have a seed in common. Where a part holds cells of several machines, their
    times are left out of it, and a line says so.
    """
    parts: list[Part] = []
    for group in groups:
        home = next((part for part in parts if not _obstacles(part.groups, group)), None)
        if home is None:
            reason = "; ".join(_obstacles(parts[0].groups, group)) if parts else ""
            parts.append(Part([group], reason))
        else:
            home.groups.append(group)
    return parts


def without_mixed_times(groups: Sequence[Group]) -> tuple[list[Group], str]:
    """The groups without times, memory and phases when their cells were run on several machines, and a note of it."""
    machines = {_text(machine) for group in groups for cell in group.cells if (machine := _machine(cell.details))}
    if len(machines) < 2:
        return list(groups), ""
    bare = [
        replace(group, estimates={name: one for name, one in group.estimates.items() if name not in _TIMES}, phases={})
        for group in groups
    ]
    return bare, "These cells were run on different machines: their times and memory are left out, see their own runs."


def _obstacles(members: Sequence[Group], group: Group) -> list[str]:
    """In what a group differs from the members of a part; none when it may join them."""
    first = _facts(members[0])
    own = _facts(group)
    found = [f"{name} {_short(own[name])} and not {_short(first[name])}" for name in own if own[name] != first[name]]
    seeds = _seeds(group).intersection(*map(_seeds, members))
    if not seeds:
        found.append(f"seeds {sorted(_seeds(group))} and not {sorted(_seeds(members[0]))}")
    ours = _features(group)
    for other in members:
        theirs = _features(other)
        for metric in ours:
            if metric in theirs and ours[metric] != theirs[metric]:
                found.append(f"{metric} in {_short(ours[metric])} and not {_short(theirs[metric])}")
    return list(dict.fromkeys(found))


def _facts(group: Group) -> dict[str, Any]:
    spec, data = group.first.spec, group.first.details.get("data")
    content = data.get("fingerprint") if isinstance(data, Mapping) else None
    return {"data": spec.get("data"), "n": spec.get("n_samples"), "content of the data": content}


def _seeds(group: Group) -> set[int]:
    return {cell.seed for cell in group.cells if cell.status == "ok"}


def _features(group: Group) -> dict[str, list[Any]]:
    """What each metric is taken in, as the first repeat that ended well has it."""
    names = ("features", "features_version", "feature_dimension", "reference")
    return {
        metric: [one.details.get(name) for name in names]
        for metric, one in group.first.measured.items()
        if "features" in one.details
    }


def _machine(details: Mapping[str, Any]) -> Any:
    origin = details.get(ORIGIN)
    return origin.get("machine") if isinstance(origin, Mapping) else None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else _text(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
