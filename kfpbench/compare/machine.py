"""On which machine a cell was run: what times depend on. A run folder may hold cells of several."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

ORIGIN = "origin"  # in the details of a record that `kfpbench collect` has taken from another folder


def machine_of(record: Any, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Processor, cores, threads and GPU of the part of the run in which the cell began; {} where nothing is known.

    A run that was continued has the environments of its earlier parts in the manifest; a collected cell has its own.
    """
    origin = record.details.get(ORIGIN)
    if isinstance(origin, Mapping) and isinstance(origin.get("machine"), Mapping):
        return dict(origin["machine"])
    earlier = manifest.get("earlier")
    parts = [*(earlier if isinstance(earlier, list) else []), manifest]
    begun = [one for one in parts if isinstance(one, Mapping) and _is_before(one.get("started"), record.started)]
    return machine_facts((begun or [manifest])[-1].get("environment"))


def machine_facts(environment: Any) -> dict[str, Any]:
    """The facts of a manifest's environment that times depend on, without what changes from minute to minute."""
    if not isinstance(environment, Mapping):
        return {}
    processor, threads, gpu = (_mapping(environment.get(name)) for name in ("cpu", "threads", "gpu"))
    facts = {
        "processor": processor.get("model"),
        "cores": processor.get("usable_cores"),
        "threads": threads.get("torch"),
        "gpu": gpu.get("name"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def machine_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """In which facts two machines differ, in words; '' where they agree in all that both state."""
    parts = [
        f"{name} {ours.get(name, 'none')} and {theirs.get(name, 'none')}"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]
    return "; ".join(parts) if ours and theirs else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_before(moment: Any, other: str) -> bool:
    try:
        return datetime.fromisoformat(str(moment)) <= datetime.fromisoformat(other)
    except (ValueError, TypeError):  # no time, or one without a zone beside one with
        return False
