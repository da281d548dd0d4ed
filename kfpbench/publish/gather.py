"""The records of several run folders as those of one, with the origin of each, by a stated rule for duplicates."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kfpbench.compare.changes import TIMES
from kfpbench.compare.conditions import suite_of
from kfpbench.compare.machine import ORIGIN, machine_facts, machine_of
from kfpbench.errors import ParameterError, StoreError
from kfpbench.report.columns import COST_METRICS
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder

_RANK = ("timeout", "failed", "skipped", "ok")
_SAME = 1e-4  # relative; repeated work on one machine agrees to the rounding of float32 products
RULE = (
    "of a cell that several runs hold, the record that ended best counts (ok, skipped, failed, timeout), then the last"
)


@dataclass(frozen=True)
class Source:
    """One run folder; ``name`` is that of its folder, numbered where two share it."""

    name: str
    folder: RunFolder
    manifest: dict[str, Any]
    records: list[CellRecord]


@dataclass(frozen=True)
class Gathered:
    """The records in the order of the plans, with ``details.origin``, and the run that each came from by cell.

    ``duplicates`` counts the records that were left out; ``disagree`` are the labels of the cells that ended well in
    two runs with other numbers, times and costs aside.
    """

    sources: tuple[Source, ...]
    records: tuple[CellRecord, ...]
    owners: dict[str, Source]
    duplicates: int
    disagree: tuple[str, ...]


def gather(paths: Sequence[str | os.PathLike[str]]) -> Gathered:
    """Read the runs and put their records together; ``RULE`` says which record of a cell counts.

    Raises StoreError for a folder without a run and for runs that read another file, or ran another plugin, under one
    name: their cells have one identity and are not the same. Raises ParameterError for one folder twice.
    """
    sources = _read(paths)
    _check_files(sources)
    kept: dict[str, tuple[Source, CellRecord]] = {}
    duplicates = 0
    disagree: dict[str, None] = {}
    for source in sources:
        for record in source.records:
            if record.cell in kept:
                duplicates += 1
                earlier = kept[record.cell][1]
                if not _agree(earlier, record):
                    disagree[record.label] = None
                if _order(record) < _order(earlier):
                    continue
            kept[record.cell] = (source, record)
    records = [
        replace(record, index=index, details={**record.details, ORIGIN: _origin(source, record)})
        for index, (source, record) in enumerate(kept[cell] for cell in _plan(sources, kept))
    ]
    owners = {cell: source for cell, (source, _) in kept.items()}
    return Gathered(tuple(sources), tuple(records), owners, duplicates, tuple(disagree))


def gathered_manifest(gathered: Gathered, command: Sequence[str]) -> dict[str, Any]:
    """The manifest of a folder that holds the gathered records: that of one suite where all runs are of one."""
    manifests = [source.manifest for source in gathered.sources]
    suites = [suite_of(manifest) for manifest in manifests]
    names = list(dict.fromkeys(str(suite.get("name") or "") for suite in suites))
    texts = list(dict.fromkeys(str(suite.get("text") or "") for suite in suites))
    machines = [machine_facts(manifest.get("environment")) for manifest in manifests]
    one_machine = all(machine == machines[0] for machine in machines)
    first = manifests[0]
    notes = dict.fromkeys(str(note) for manifest in manifests for note in manifest.get("notes") or ())
    made: dict[str, Any] = {
        "suite": suites[0]
        if len(names) == len(texts) == 1
        else {
            "name": names[0] if len(names) == 1 else " and ".join(names),
            "description": "Collected from several runs.",
            "text": "\n".join(texts),
        },
        "plan": [*dict.fromkeys(_plan(gathered.sources, {record.cell: None for record in gathered.records}))],
        "seeds": sorted({record.seed for record in gathered.records}),
        "command": list(command),
        "environment": first.get("environment") or {} if one_machine else {},
        "plugins": _merged(manifests, "plugins"),
        "score_files": _merged(manifests, "score_files"),
        "started": min(str(manifest.get("started") or "") for manifest in manifests),
        "finished": max(str(manifest.get("finished") or "") for manifest in manifests),
        "interrupted": any(bool(manifest.get("interrupted")) for manifest in manifests),
        "notes": [*notes, *_notes(gathered, one_machine)],
        "origins": [_summary(source) for source in gathered.sources],
    }
    if first.get("claim") and one_machine and all(one.get("claim") == first["claim"] for one in manifests):
        made["claim"] = first["claim"]
    return made


def _notes(gathered: Gathered, one_machine: bool) -> list[str]:
    notes = [f"collected from {len(gathered.sources)} runs: {', '.join(source.name for source in gathered.sources)}"]
    if gathered.duplicates:
        notes.append(f"{gathered.duplicates} records left out: {RULE}")
    if gathered.disagree:
        notes.append(f"the runs disagree on {', '.join(gathered.disagree)}: one computation gave two results")
    if not one_machine:
        notes.append("the runs were made on different machines: their times cannot be compared")
    return notes


def _read(paths: Sequence[str | os.PathLike[str]]) -> list[Source]:
    folders = [RunFolder.open(path) for path in paths]
    places = [folder.path.resolve() for folder in folders]
    twice = [str(folder.path) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ParameterError("one run folder twice", got=twice[0], allowed="each once")
    names: list[str] = []
    for place in places:
        name = place.name or "run"
        taken = sum(one == name or one.rpartition(" ")[0] == name for one in names)
        names.append(f"{name} {taken + 1}" if taken else name)
    return [
        Source(name, folder, folder.read_manifest(), folder.records())
        for name, folder in zip(names, folders, strict=True)
    ]


def _check_files(sources: Sequence[Source]) -> None:
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    for source in sources:
        for kind in ("plugins", "score_files"):
            for name, digest in (source.manifest.get(kind) or {}).items():
                other, earlier = seen.setdefault((kind, name), (source.name, digest))
                if digest != earlier:
                    raise StoreError(
                        f"{other} and {source.name} used another {'plugin' if kind == 'plugins' else 'file'} under one "
                        "name: their cells have one identity and are not the same",
                        got=name,
                        remedy="Collect them apart, and see `kfpbench compare` for their differences.",
                    )


def _order(record: CellRecord) -> tuple[int, str]:
    return _RANK.index(record.status), record.finished


def _plan(sources: Sequence[Source], kept: Mapping[str, Any]) -> list[str]:
    """The kept cells in the order in which the plans of the runs, and then their records, name them."""
    order: dict[str, None] = {}
    for source in sources:
        order |= dict.fromkeys(str(cell) for cell in source.manifest.get("plan") or ())
        order |= dict.fromkeys(record.cell for record in source.records)
    return [cell for cell in order if cell in kept]


def _origin(source: Source, record: CellRecord) -> dict[str, Any]:
    """Where a record came from: the first folder, of one that has been collected before."""
    earlier = record.details.get(ORIGIN)
    if isinstance(earlier, dict):
        return earlier
    suite = source.manifest.get("suite")
    return {
        "run": source.name,
        "suite": str(suite.get("name") or "") if isinstance(suite, dict) else "",
        "machine": machine_of(record, source.manifest),
    }


def _summary(source: Source) -> dict[str, Any]:
    environment = source.manifest.get("environment")
    environment = environment if isinstance(environment, dict) else {}
    git = environment.get("git")
    return {
        "run": source.name,
        "cells": len(source.records),
        "started": source.manifest.get("started"),
        "finished": source.manifest.get("finished"),
        "kfpbench": environment.get("kfpbench"),
        "commit": git.get("commit") if isinstance(git, dict) else None,
        **machine_facts(environment),
    }


def _agree(a: CellRecord, b: CellRecord) -> bool:
    """Whether two records of one cell say the same, where both ended well."""
    if a.status != "ok" or b.status != "ok":
        return True
    values = {entry["metric"]: entry["value"] for entry in a.measurements}
    return all(
        entry["metric"] in COST_METRICS | TIMES
        or entry["metric"] not in values
        or math.isclose(values[entry["metric"]], entry["value"], rel_tol=_SAME, abs_tol=1e-9)
        or (math.isnan(values[entry["metric"]]) and math.isnan(entry["value"]))
        for entry in b.measurements
    )


def _merged(manifests: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    return {name: value for manifest in manifests for name, value in (manifest.get(key) or {}).items()}


def copy_files(gathered: Gathered, out: Path, kinds: Sequence[str] | None = None) -> tuple[list[CellRecord], int]:
    """Copy the files of the records into ``out``; those of ``kinds`` alone where it is given.

    Returns the records with the paths of what was copied, and how many files were missing or lay outside of their run
    folder: those are not followed.
    """
    import shutil

    records, left_out = [], 0
    for record in gathered.records:
        source = gathered.owners[record.cell]
        root, files = source.folder.path.resolve(), {}
        for kind, relative in record.files.items():
            if not relative or (kinds is not None and kind not in kinds):
                continue
            path = (root / relative).resolve()
            target = out / relative
            if (
                not path.is_relative_to(root)
                or not target.resolve().is_relative_to(out.resolve())
                or not path.is_file()
            ):
                left_out += 1
                continue
            if target.exists():  # two runs need not name their files by cell
                target = out / f"{source.name}-{record.cell}" / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            files[kind] = target.relative_to(out).as_posix()
        records.append(replace(record, files=files))
    return records, left_out
