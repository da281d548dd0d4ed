"""The outcome of a run as JSON, for scripts."""

from __future__ import annotations

from kfpbench.claim.card import card_as_plain
from kfpbench.report.findings import findings_as_json
from kfpbench.runner.execute import RunResult
from kfpbench.store.json_values import dumps


def result_as_json(result: RunResult) -> str:
    """Folder, report, exit code, and every cell with its status, reason and measurements."""
    fields = ("cell", "label", "kind", "status", "reason", "axes", "seed", "seconds", "measurements")
    return dumps(
        {
            "folder": str(result.folder),
            "report": str(result.report),
            "exit_code": result.exit_code,
            "findings": findings_as_json(result.records),
            "claim": None if result.claim is None else card_as_plain(result.claim),
            "cells": [{name: getattr(record, name) for name in fields} for record in result.records],
        },
        indent=2,
    )
