"""A cheap suite, runs of it in a process of their own, and what two runs must agree on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder

TAKEN = ("seconds", "memory")  # measurements of time and memory differ from run to run


class Cheap:
    """A suite of n cells: the closed-form Gaussian sampler in the plane, one repeat each."""

    def __init__(self, folder: Path, cells: int, **changes: Any) -> None:
        self.cells = cells
        self.suite = folder / "suite.yaml"
        content = {
            "name": "cheap",
            "data": {"name": "gmm2d", "train": 200, "validation": 50, "test": 100},
            "score": "gaussian",
            "process": "ve",
            "samplers": ["gaussian"],
            "metrics": ["energy_distance"],
            "device": "cpu",
            "n_samples": 20,
            "batch_size": 20,
            "latency_repeats": 2,
            "repeats": cells,
            **changes,
        }
        self.suite.write_text(json.dumps(content))

    def start(self, out: Path, *options: str) -> subprocess.Popen[bytes]:
        """`kfpbench run` in a process (and a session) of its own."""
        arguments = [sys.executable, "-P", "-m", "kfpbench.cli", "run", str(self.suite), "--out", str(out), *options]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        with (out.parent / f"{out.name}.log").open("ab") as log:
            return subprocess.Popen(
                arguments, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
            )

    def run(self, out: Path, *options: str) -> None:
        assert self.start(out, *options).wait(timeout=500) == 0, (out.parent / f"{out.name}.log").read_text()

    def killed_until_done(self, out: Path, kills: int, moment: random.Random, after: float, *options: str) -> int:
        """Start the run and kill it ``kills`` times, then let it end; returns the number of kills before the end.

        Every other kill, the first among them, comes up to ``after`` seconds after a new record. The rest come at any
        moment between the start of the process and its first new record, as the last process before took to it.
        """
        killed, to_record = 0, 0.0
        for number in range(kills):
            before, began = log_size(out), time.monotonic()
            process = self.start(out, *options)
            if number % 2:
                time.sleep(moment.uniform(0, to_record))  # imports, plan, lock, manifest, first cell
            else:
                while process.poll() is None and log_size(out) == before and time.monotonic() < began + 120:
                    time.sleep(0.002)
                to_record = time.monotonic() - began
                time.sleep(moment.uniform(0, after))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            killed += process.wait(timeout=60) == -signal.SIGKILL
        self.run(out, *options)
        return killed


def log_size(out: Path) -> int:
    log = out / "cells.jsonl"
    return log.stat().st_size if log.exists() else 0


def outcome(record: CellRecord) -> dict[str, Any]:
    """What a cell must give wherever it runs: all but times, memory, and what a second attempt notes."""
    measured = [
        {key: value for key, value in entry.items() if key != "details"}
        for entry in record.measurements
        if not any(word in entry["metric"] for word in TAKEN)
    ]
    kept = ("cell", "label", "kind", "status", "reason", "axes", "spec", "seed", "repeat", "files")
    return {name: getattr(record, name) for name in kept} | {"measurements": measured}


def assert_same(one: Path, other: Path, cells: int) -> None:
    """Both hold every cell once, with the same numbers and the same samples, and nothing half-written."""
    first, second = RunFolder.open(one), RunFolder.open(other)
    records = first.records(), second.records()
    for folder, found in zip((first, second), records, strict=True):
        assert len(found) == cells
        lines = (folder.path / "cells.jsonl").read_bytes().splitlines()
        assert len({json.loads(line)["cell"] for line in lines}) == len(lines) == cells
        assert not list(folder.path.rglob("*.tmp"))
        assert not (folder.path / "run.lock").exists()
        assert len(list(folder.samples_path.glob("*.npz"))) == cells
    assert [outcome(record) for record in records[0]] == [outcome(record) for record in records[1]]
    for record in records[0]:
        for name in record.files.values():
            assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.fixture
def cheap() -> type[Cheap]:
    return Cheap


@pytest.fixture
def same() -> Any:
    return assert_same
