"""In what two runs differ beside their cells: versions, commit, machine, suite, files. A reader must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfpbench.compare.machine import machine_facts
from kfpbench.compare.match import differing

_VERSIONS = ("kfpbench", "python", "packages", "git")


def differing_conditions(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The conditions of two manifests that differ, each with the values of A and B.

    Taken from the last part of each run: versions of kfpbench, Python and packages, commit, machine; the text of the
    suite (as 'changed' beside 'as it was'), its overrides; digests of plugins and of files that scores read.
    """
    return differing(_conditions(a), _conditions(b)) | _suite(a, b)


def _conditions(manifest: Mapping[str, Any]) -> dict[str, Any]:
    environment = manifest.get("environment")
    environment = environment if isinstance(environment, Mapping) else {}
    return {
        **{name: environment[name] for name in _VERSIONS if name in environment},
        "machine": machine_facts(environment),
        "load at the start": environment.get("load_note") or "none",
        "plugin": manifest.get("plugins") or {},
        "score file": manifest.get("score_files") or {},
    }


def _suite(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    ours, theirs = suite_of(a), suite_of(b)
    found: dict[str, tuple[Any, Any]] = {}
    for key in ("name", "overrides"):
        if ours.get(key) != theirs.get(key):
            found[f"suite {key}"] = (ours.get(key), theirs.get(key))
    if (ours.get("text"), ours.get("included")) != (theirs.get("text"), theirs.get("included")):
        found["suite text"] = ("as it was", "changed")
    return found


def suite_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of its suite; {} where it says nothing, or has its name alone."""
    suite = manifest.get("suite")
    return suite if isinstance(suite, dict) else {}
