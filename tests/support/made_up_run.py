"""A run folder as a finished run leaves it, made up: two data sets, six samplers, three repeats, every
status.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SAMPLERS: dict[str, dict[str, Any]] = {
    # label: sampler, axes, seconds per image, NFE, setup seconds, setup NFE, quality in (0, 1)
    "heun 18": {"name": "pf_ode_heun", "axes": {"sampler.steps": 18}, "t": 0.021, "nfe": 35, "q": 0.93},
    "heun 5": {"name": "pf_ode_heun", "axes": {"sampler.steps": 5}, "t": 0.0056, "nfe": 9, "q": 0.71},
    "ddim 10": {"name": "ddim", "axes": {"sampler.steps": 10}, "t": 0.0062, "nfe": 10, "q": 0.66},
    "dpm-solver++ 8": {"name": "dpmpp_2m", "axes": {"sampler.steps": 8}, "t": 0.0051, "nfe": 8, "q": 0.84},
    "euler-maruyama 200": {
        "name": "euler_maruyama",
        "axes": {"sampler.steps": 200},
        "t": 0.12,
        "nfe": 200,
        "q": 0.92,
    },
    "gaussian": {"name": "gaussian", "axes": {}, "t": 0.00004, "nfe": 0, "setup": 0.02, "q": 0.22},
    "koopman rank 64": {
        "name": "koopman",
        "axes": {"sampler.rank": 64},
        "t": 0.0006,
        "nfe": 0,
        "setup": 6.2,
        "setup_nfe": 24000,
        "q": 0.61,
    },
    "koopman rank 256": {
        "name": "koopman",
        "axes": {"sampler.rank": 256},
        "t": 0.0011,
        "nfe": 0,
        "setup": 9.5,
        "setup_nfe": 24000,
        "q": 0.64,
    },
    "jump sigma 2, 3 evaluations": {
        "name": "jump",
        "axes": {"sampler.sigma_star": 2, "sampler.evaluations": 3},
        "t": 0.0026,
        "nfe": 3,
        "setup": 6.4,
        "setup_nfe": 24000,
        "q": 0.83,
    },
}

TRACEBACK = """Traceback (most recent call last):
  File "kfpbench/runner/execute.py", line 88, in run_cell
    fitted = sampler.fit(problem)
kfpbench.errors.NumericalError: the Gram matrix is not positive definite; got 'a </script><b>name</b>'
"""


def manifest() -> dict[str, Any]:
    return {
        "kfpbench": "0.1.0",
        "commit": "c2deb31d0f",
        "suite": {
            "name": "Operators against solvers",
            "description": "Does a spectral sampler move the diversity-versus-speed front of solvers?",
            "text": "name: Operators\n# <script>alert('no')</script> & more\nseeds: [0, 1, 2]\n",
        },
        "environment": {
            "cpu": "Example CPU @ 2.6 GHz",
            "cores": 2,
            "torch": "2.6.0",
            "threads": 2,
            "gpu": None,
            "platform": "Linux x86_64",
            "load": [0.4, 0.5, 0.5],
        },
        "command": ["kfpbench", "run", "suites/operators against solvers.yaml", "--seed", "0"],
        "started": "2026-03-02T10:00:00Z",
        "finished": "2026-03-02T10:14:31Z",
        "seeds": [0, 1, 2],
        "notes": ["made up for a test"],
    }


def measurement(metric: str, value: float, half: float | None, better: str, **more: Any) -> dict[str, Any]:
    low, high = (None, None) if half is None else (value - half, value + half)
    return {
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": 500,
        "unit": "",
        "better": better,
        "details": {},
        **more,
    }


def sample_record(index: int, dataset: str, label: str, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    kind = SAMPLERS[label]
    q = kind["q"] - (0.05 if dataset == "gmm_ring" and kind["nfe"] else -0.18 * (dataset == "gmm_ring"))
    q = float(np.clip(q + rng.normal(0, 0.006), 0, 0.99))
    scale = 0.05 if dataset == "gmm_ring" else 1.0
    t = kind["t"] * scale * float(np.exp(rng.normal(0, 0.02)))
    setup = kind.get("setup", 0.0) * (0.2 if scale < 1 else 1.0)
    measurements = [
        measurement("frechet", 0.4 + 60 * (1 - q) ** 3, 0.3 * (1 - q), "lower"),
        measurement("energy_distance", 0.002 + 0.3 * (1 - q) ** 2, 0.002, "lower"),
        measurement("precision", min(0.75 + 0.2 * q + rng.normal(0, 0.01), 1), 0.02, "higher"),
        measurement("recall", q * 0.95, 0.021, "higher"),
        measurement("coverage", q, 0.019, "higher"),
        measurement("nearest_train_ratio", 0.9 + 0.1 * q, None, "neither"),
        measurement("seconds_per_image", t, 0.03 * t, "lower", unit="s"),
        measurement("seconds_per_image_batch1", 4.3 * t, 0.2 * t, "lower", unit="s"),
        measurement("nfe", kind["nfe"], None, "lower"),
        measurement("setup_seconds", setup, None, "lower", unit="s"),
        measurement("setup_nfe", kind.get("setup_nfe", 0), None, "lower"),
        measurement("peak_memory_mib", 210 + kind["nfe"] + 30 * setup, None, "lower", unit="MiB"),
    ]
    if dataset == "gmm_ring":
        measurements = [m for m in measurements if m["metric"] not in {"frechet", "nearest_train_ratio"}]
    if label == "ddim 10" and dataset == "digits":
        measurements[0]["value"] = None
    return {
        "cell": f"{dataset}-{label}-{seed}".replace(" ", "-"),
        "index": index,
        "label": label,
        "kind": "sample",
        "status": "ok",
        "reason": "",
        "axes": {"sampler.name": kind["name"], **kind["axes"]},
        "spec": {
            "data": {"name": dataset, "reference": "test"},
            "score": {"name": "empirical"},
            "process": {"name": "ve"},
            "sampler": {"name": kind["name"], **kind["axes"]},
            "dtype": "float32",
            "device": "cpu",
            "seed": seed,
            "n_samples": 500,
            "batch_size": 250,
        },
        "seconds": 3.0,
        "measurements": measurements,
        "phases": {"setup": setup, "warm_up": 0.1, "latency": 20 * t, "sampling": 500 * t, "metrics": 1.1},
        "files": {"samples": None, "grid": f"samples/{dataset}-{label.replace(' ', '-')}.png"},
        "traceback": "",
        "details": {},
    }


def spectrum_record(index: int) -> dict[str, Any]:
    values = [
        [-1.0e-9, 0.0],
        [-0.9987, 0.0],
        [-1.0021, 0.0],
        [-1.7, 0.21],
        [-1.7, -0.21],
        [-0.14, 0.0],
        [-2.04, 0.0],
    ]
    residuals = [1e-8, 0.004, 0.006, 0.09, 0.09, 0.8, 0.03]
    measurements = []
    for k, ((re, im), residual) in enumerate(zip(values, residuals, strict=True), start=1):
        measurements += [
            measurement(f"eigenvalue_{k}_re", re, None, "neither"),
            measurement(f"eigenvalue_{k}_im", im, None, "neither"),
            measurement(f"residual_{k}", residual, None, "lower"),
        ]
    measurements.append(measurement("eigenvector_condition", 41.3, None, "lower"))
    return {
        "cell": "spectrum-ou",
        "index": index,
        "label": "OU, matern52, N 1000",
        "kind": "spectrum",
        "status": "ok",
        "reason": "",
        "axes": {"kernel.name": "matern52"},
        "spec": {"data": {"name": "ou_2d"}, "process": {"name": "ou"}, "seed": 0},
        "seconds": 0.4,
        "measurements": measurements,
        "phases": {"setup": 0.2},
        "files": {},
        "traceback": "",
        "details": {
            "eigenvalues": values,
            "residuals": residuals,
            "flags": [False, False, False, False, False, "residual above 0.5", False],
            "exact": [[0, 0], [-1, 0], [-1, 0], [-2, 0], [-2, 0], [-2, 0]],
        },
    }


def records() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    for dataset in ("digits", "gmm_ring"):
        for label in SAMPLERS:
            made += [sample_record(len(made) + seed, dataset, label, seed, rng) for seed in range(3)]
    for status, reason, traceback in (
        ("failed", "the Gram matrix is not positive definite. Raise gamma.", TRACEBACK),
        ("skipped", "matern12 is too rough for a second-order operator", ""),
    ):
        broken = sample_record(len(made), "digits", "koopman rank 64", 0, rng)
        broken.update(
            cell=f"{status}-cell",
            status=status,
            reason=reason,
            traceback=traceback,
            measurements=[],
            label=f"koopman <b>{status}</b>",
            files={},
            phases={},
        )
        broken["spec"]["kernel"] = {"name": status}
        made.append(broken)
    made.append(spectrum_record(len(made)))
    return made


def write_run(folder: Path, *, pixels: int = 1) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The manifest and the records, with one sample grid per sampler and data set in ``folder``."""
    from sklearn.datasets import load_digits

    images = load_digits().images / 16
    rng = np.random.default_rng(1)
    made = records()
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for record in made:
        grid = record["files"].get("grid")
        if grid and not (folder / grid).exists():
            blur = 1 - SAMPLERS[record["label"]]["q"]
            tiles = images[rng.permutation(len(images))[:64]]
            tiles = np.clip(tiles + rng.normal(0, blur * 0.6, tiles.shape), 0, 1)
            if "gmm" in grid:
                tiles = tiles[:, ::-1]
            page = np.pad(tiles, ((0, 0), (1, 0), (1, 0))).reshape(8, 8, 9, 9).swapaxes(1, 2).reshape(72, 72)
            page = np.kron(page, np.ones((pixels, pixels)))
            Image.fromarray((255 * page).astype(np.uint8)).save(folder / grid)
    (folder / "manifest.json").write_text(json.dumps(manifest()), encoding="utf-8")
    (folder / "cells.jsonl").write_text("".join(json.dumps(r) + "\n" for r in made), encoding="utf-8")
    return manifest(), made
