"""Open the folder of a run: a new one, or that of an earlier part, with a manifest of what is about to run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfpbench.errors import CapabilityError, DataError, StoreError
from kfpbench.runner.environment import describe_environment, machine_is_loaded
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite.cell import Cell
from kfpbench.suite.loaded import Suite


def open_run(
    path: Path,
    suite: Suite,
    command: Sequence[str],
    started: str,
    force: bool,
    notes: Sequence[str],
    study: Mapping[str, Any] | None = None,
) -> RunFolder:
    """The run folder at ``path``, made or continued, with a manifest of this part of the run.

    ``study`` says of which study the cells are trials. Raises StoreError for a folder that holds a run of another
    suite, a study where a run is opened and the other way round, or a log that is only read, and, without ``force``,
    where a plugin or a file of a score has changed since the run began: its finished cells are out of date. A refusal
    changes nothing.
    """
    from kfpbench.runner.materials import choose_device

    devices = {cell.spec["device"] for cell in suite.cells}
    try:
        device = str(choose_device(devices.pop())) if len(devices) == 1 else "cpu"
    except CapabilityError:
        device = "cpu"  # the cells will be skipped with that reason; the environment is described all the same
    loaded = machine_is_loaded()
    manifest: dict[str, Any] = {
        "suite": {
            "name": suite.model.name,
            "description": suite.model.description,
            "text": suite.text,
            "included": suite.included,
            "overrides": list(suite.overrides),
        },
        "plan": [cell.id for cell in suite.cells],
        "seeds": sorted({cell.seed for cell in suite.cells}),
        "dtypes": sorted({cell.spec["dtype"] for cell in suite.cells}),
        "command": list(command),
        "environment": describe_environment(device),
        "plugins": suite.plugins,
        "score_files": score_files(suite.cells),
        "started": started,
        "notes": [*([loaded] if loaded else []), *notes],
    }
    if study is not None:
        manifest["study"] = dict(study)
    if suite.model.claim is not None:
        manifest["claim"] = suite.model.claim.model_dump(mode="json")
    if RunFolder.is_run(path):
        folder = RunFolder.open(path)
        folder.log.require_writable()
        old = folder.read_manifest()
        name = old.get("suite", {}).get("name")
        if name != suite.model.name:
            raise StoreError(
                "the folder holds a run of another suite",
                got=name,
                allowed=suite.model.name,
                remedy="Name another folder with --out; nothing was changed.",
                where=str(path),
            )
        if ("study" in old) != (study is not None):
            held, wanted = ("a study", "a run") if "study" in old else ("a run", "a study")
            raise StoreError(
                f"the folder holds {held}, not {wanted}",
                remedy="Name another folder with --out; nothing was changed.",
                where=str(path),
            )
        again = "Run all cells again with --force, or name" if study is None else "Name"  # trials are never run again
        again += " another folder with --out; nothing was changed."
        changed = [
            name for name, digest in manifest["plugins"].items() if old.get("plugins", {}).get(name, digest) != digest
        ]
        if changed and not force:
            raise StoreError(
                f"the plugin {', '.join(changed)} has changed since this run began: its finished cells are out of date",
                remedy=again,
                where=str(path),
            )
        others = [
            block
            for block, now in manifest["score_files"].items()
            if (then := old.get("score_files", {}).get(block)) is not None and now is not None and then != now
        ]
        if others and not force:
            raise StoreError(
                "a score's file has changed since this run began: its finished cells are out of date",
                got=others[0],
                remedy=again,
                where=str(path),
            )
        earlier = [*old.get("earlier", []), {key: old.get(key) for key in ("started", "finished", "environment")}]
        folder.write_manifest({**manifest, "earlier": earlier})
        return folder
    return RunFolder.create(path, manifest)


def score_files(cells: Sequence[Cell]) -> dict[str, str | None]:
    """What each score of the plan reads from files: the ``fingerprint`` of those that have one, by canonical block."""
    from kfpbench.suite.components import create

    found = {}
    for block in {json.dumps(cell.spec["score"], sort_keys=True) for cell in cells if cell.spec["score"]}:
        try:
            fingerprint = getattr(create("scores", json.loads(block)), "fingerprint", None)
        except (CapabilityError, DataError):
            continue  # its cells will say so
        if fingerprint is not None:
            found[block] = fingerprint()
    return found
