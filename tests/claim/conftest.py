"""Made-up runs for the claim card: records as cells.jsonl holds them, with half-sample values that pair."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from kfpbench.claim.card import Card, build_card
from kfpbench.claim.interleaved import InterleavedRatios
from kfpbench.claim.verdict import Part
from kfpbench.metrics.intervals import jackknife_interval

REPLICATES = 20
CLAIM = {
    "spectral": "koopman",
    "reference": "euler_maruyama",
    "few_step": ["ddim", "heun"],
    "control": "gaussian",
    "seconds": 0.29,
    "slight": 0.1,
    "copied": 0.05,
}


class MadeUpRun:
    """Records of a run, added one by one. By default every part of the card holds."""

    def __init__(self) -> None:
        self.manifest: dict[str, Any] = {"suite": {"name": "made_up"}, "claim": dict(CLAIM), "notes": []}
        self.records: list[dict[str, Any]] = []
        self._shared = np.random.default_rng(0).normal(size=REPLICATES)

    def measure(
        self, metric: str, value: float, noise: float, *, n: int = 500, own: int = 1, shared: float = 0.95, **more: Any
    ) -> dict[str, Any]:
        """A metric whose half-sample values correlate with those of other cells (``shared`` of their variance)."""
        private = np.random.default_rng(own).normal(size=REPLICATES)
        values = value + noise * (np.sqrt(shared) * self._shared + np.sqrt(1 - shared) * private)
        made = jackknife_interval(value, values, n)
        details = {"features_version": "cnn/1", "reference": "cifar10/test", **made.details, **more}
        return self.entry(metric, value, made.low, made.high, n, details)

    @staticmethod
    def entry(
        metric: str, value: float, low: float | None, high: float | None, n: int | None, details: dict[str, Any]
    ) -> dict[str, Any]:
        names = ("metric", "value", "ci_low", "ci_high", "n", "details")
        return dict(zip(names, (metric, value, low, high, n, details), strict=True)) | {"unit": "", "better": "lower"}

    def add(
        self,
        label: str,
        *,
        name: str | None = None,
        seconds: float = 1.0,
        spread: float = 0.02,
        frechet: float = 100.0,
        recall: float = 0.5,
        coverage: float = 0.6,
        vendi: float = 0.8,
        copied: float = 0.01,
        blended: float = 0.005,
        noise: float = 0.01,
        n: int = 500,
        seed: int = 0,
        status: str = "ok",
        reason: str = "",
        axes: dict[str, Any] | None = None,
        load: str = "",
        without: Iterable[str] = (),
        spec: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """One record; ``parameters`` are the sampler's. Its noise is its own by label and parameters."""
        own = zlib.crc32(f"{label} {sorted(parameters.items())} {seed}".encode())  # hash() differs by process
        time = {"interval": "order statistics", "note": "", **({"load": load} if load else {})}
        measured = [
            self.entry("seconds_per_image_batch1", seconds, seconds * (1 - spread), seconds * (1 + spread), 10, time),
            self.entry("seconds_per_image", seconds / 3, seconds / 3 * (1 - spread), seconds / 3 * (1 + spread), 2, {}),
            self.measure("frechet", frechet, 2.0, n=n, own=own, finite_n_bias=5.0, rank_deficient=n <= 64),
            self.measure("recall", recall, noise, n=n, own=own + 1),
            self.measure("coverage", coverage, noise, n=n, own=own + 2),
            self.measure("vendi_ratio", vendi, noise, n=n, own=own + 3),
            self.measure("memorised_fraction", copied, 0.004, n=n, own=own + 4),
            self.measure("blended_fraction", blended, 0.004, n=n, own=own + 6),
            self.measure("copied_fraction", 0.2, 0.01, n=n, own=own + 7),
            self.measure("nearest_train_ratio", 0.97, 0.01, n=n, own=own + 5),
        ]
        record = {
            "cell": f"{len(self.records):016x}",
            "index": len(self.records),
            "label": label,
            "kind": "sample",
            "status": status,
            "reason": reason,
            "axes": axes or {},
            "seed": seed,
            "device": "cpu",
            "details": {"score": {"images": 302464, "sha256": "ab" * 32, "training": "cifar10_unet"}},
            "spec": {
                "data": {"name": "cifar10", "reference": "test"},
                "score": {"name": "unet"},
                "process": {"name": "ve"},
                "sampler": {"name": name or label, **parameters},
                "metrics": [{"name": "frechet"}],
                "n_samples": n,
                "batch_size": 250,
                "device": "auto",
                "dtype": "float32",
                "seed": seed,
                **(spec or {}),
            },
            "measurements": [one for one in measured if one["metric"] not in without] if status == "ok" else [],
        }
        self.records.append(record)
        return record

    def usual(self, **spectral: Any) -> MadeUpRun:
        """A run in which every part holds, but for what ``spectral`` changes of the spectral sampler's cell."""
        self.add("koopman", **{"seconds": 0.004, **spectral})
        self.add("euler_maruyama", seconds=8.0, steps=1000)
        self.add("ddim", seconds=0.02, frechet=140.0, steps=3, axes={"samplers.ddim.steps": 3})
        self.add("ddim", seconds=0.04, frechet=99.8, steps=8, axes={"samplers.ddim.steps": 8})
        self.add("heun", seconds=0.09, frechet=96.0, steps=9)
        self.add("gaussian", seconds=0.001, frechet=180.0)
        return self

    def card(self, ratios: InterleavedRatios | None = None) -> Card:
        made = build_card(self.manifest, self.records, ratios)
        assert made is not None
        return made

    def part(self, key: str, ratios: InterleavedRatios | None = None) -> Part:
        """The part of the first spectral sampler."""
        return {one.key: one for one in self.card(ratios).answers[0].parts}[key]


@pytest.fixture
def run() -> MadeUpRun:
    return MadeUpRun()
