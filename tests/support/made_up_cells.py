"""Run folders made up from records whose half-sample values are known."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from kfpbench.metrics.intervals import jackknife_sd
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder

N, R = 100, 20
SHARED = np.random.default_rng(0).normal(size=R)  # of all cells: the reference rows
MACHINE = {"cpu": {"model": "Example", "usable_cores": 2}, "threads": {"torch": 2}}


def make_cell(
    label: str,
    frechet: float = 1.0,
    *,
    own: float = 0.002,
    seed: int = 0,
    n: int = N,
    seconds: float = 0.01,
    nfe: float = 10,
    sampler: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    details: dict[str, Any] | None = None,
    fingerprint: str = "f0",
    status: str = "ok",
    metric: str = "frechet",
    axes: dict[str, Any] | None = None,
    rng: int = 0,
) -> CellRecord:
    """A cell with twice ``frechet`` as its metric (up to 1 it could be a share of rows); its half-sample values share
    0.05 SHARED with every other cell and have ``own`` noise.
    """
    frechet *= 2
    values = frechet + 0.05 * SHARED + own * np.random.default_rng([rng, seed, *label.encode()]).normal(size=R)
    sd = jackknife_sd(values, n)
    spec = {
        "data": data or {"name": "digits", "reference": "test"},
        "sampler": sampler or {"name": label},
        "metrics": [metric],
        "n_samples": n,
        "batch_size": 10,
        "device": "cpu",
        "seed": seed,
        "budget": {"seconds": None},
    }
    quality = {
        "metric": metric, "value": frechet, "ci_low": frechet - 2.09 * sd, "ci_high": frechet + 2.09 * sd, "n": n,
        "better": "lower",
        "details": {"interval": "delete-half jackknife", "sd": sd, "replicate_values": values.tolist(),
                    "reference": "digits/test", "features": "identity", **(details or {})},
    }  # fmt: skip
    time = {
        "metric": "seconds_per_image",
        "value": seconds,
        "ci_low": 0.95 * seconds,
        "ci_high": 1.05 * seconds,
        "n": 5,
    }
    count = {"metric": "nfe", "value": nfe}
    text = json.dumps([label, {key: value for key, value in spec.items() if key != "budget"}], sort_keys=True)
    return CellRecord(
        cell=hashlib.sha256(text.encode()).hexdigest()[:16],
        index=0,
        label=label,
        kind="sample",
        status=status,
        reason="" if status == "ok" else "made to fail",
        started="2026-01-01T10:00:00+00:00",
        finished="2026-01-01T10:00:01+00:00",
        axes=axes or {},
        spec=spec,
        seed=seed,
        measurements=[quality, {**time, "better": "lower"}, {**count, "better": "lower"}] if status == "ok" else [],
        details={"data": {"fingerprint": fingerprint}},
    )


def make_run(folder: Path, records: list[CellRecord], **manifest: Any) -> Path:
    """A run folder with these records."""
    content = {
        "suite": {"name": "made_up", "text": "name: made_up"},
        "plan": [record.cell for record in records],
        "environment": MACHINE,
        "started": "2026-01-01T09:00:00+00:00",
        **manifest,
    }
    run = RunFolder.create(folder, content)
    for record in records:
        run.append(record)
    return folder
