"""What the cells of earlier runs have left in the cache: fitted samplers, samples, spectra, each under its own key."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kfpbench.cache.code_version import class_name, code_versions, parts_of
from kfpbench.cache.key import Key
from kfpbench.cache.state import OWN_PACKAGES
from kfpbench.cache.use import Stored, current
from kfpbench.data.row_identity import training_key
from kfpbench.protocols import Problem
from kfpbench.runner.materials import choose_device
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create

TOLERANCE = 1e-3  # of the samples' standard deviation: rounding of products, which differs between machines


class KeptWork:
    """Where the work of one cell is kept.

    ``fit``: by data, score, process, sampler, seed, dtype and device class, and the code of all of them; not by what is
    drawn or measured. ``samples``: by their number and batch too; not by the metrics. None where nothing is kept.
    """

    def __init__(self, cell: Cell, problem: Problem, sampler: object) -> None:
        parts = _parts(cell, problem, "sampler", sampler)
        self.fit: Stored[Any] | None = None
        self.samples: Stored[NDArray[np.float32]] | None = None
        if parts is not None:
            self.fit = Stored(Key("fit", parts), object, _given(problem), _packages(sampler))
            drawn = {name: cell.spec[name] for name in ("n_samples", "batch_size")}
            self.samples = Stored(Key("samples", {**parts, **drawn}), np.ndarray)


def stored_spectrum(cell: Cell, problem: Problem | None, task: object, expected: type[Any]) -> Stored[Any] | None:
    """Where the spectrum of a cell is kept; ``problem`` is None for a data set's own dynamics."""
    parts = _parts(cell, problem, "spectrum", task)
    return None if parts is None else Stored(Key("spectrum", parts), expected)


def agree(fresh: NDArray[np.float32], kept: NDArray[np.float32]) -> bool:
    """Whether rows drawn anew (m, d) are those kept, to 1e-3 of a coordinate's mean standard deviation."""
    scale = float(kept.std(axis=0, dtype=np.float64).mean()) or 1.0
    return fresh.shape == kept.shape and float(np.abs(fresh.astype(np.float64) - kept).max()) <= TOLERANCE * scale


def _parts(cell: Cell, problem: Problem | None, block: str, actor: object) -> dict[str, Any] | None:
    """What the work of a cell is a function of; None without a store, or where some part of it has no identity."""
    if current() is None or (problem is not None and not problem.dataset.fingerprint):
        return None
    spec = cell.spec
    kinds = {"data": "datasets", "score": "scores", "process": "processes"}
    components = [actor, *(create(kind, spec[name]) for name, kind in kinds.items() if spec[name] is not None)]
    files = _fingerprints(components)
    if files is None:
        return None
    device = problem.device if problem is not None else choose_device(spec["device"])
    return {
        **{name: spec[name] for name in (*kinds, block, "seed", "dtype")},
        "rows": None if problem is None else training_key(problem.dataset.fingerprint, problem.dataset.train),
        "device": device_class(device),
        "torch": torch.__version__,
        "code": code_versions(components),
        "files": files,
    }


def device_class(device: torch.device) -> str:
    """cpu, or the name of the GPU: results agree bit for bit within a class at most."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _fingerprints(components: list[object]) -> dict[str, str] | None:
    """What components read from files, as far as they say so by ``fingerprint()``; None where one cannot tell."""
    found: dict[str, str] = {}
    for part in parts_of(components):
        tell = getattr(part, "fingerprint", None)
        if callable(tell):
            told = tell()
            if not isinstance(told, str) or not told:
                return None
            found[f"{len(found)} {class_name(type(part))}"] = told
    return found


def _packages(sampler: object) -> frozenset[str]:
    """Packages that a fitted sampler's classes may come from: kfpbench's own, and those of the sampler's parts."""
    modules = {type(part).__module__ for part in parts_of([sampler])}
    local = "kfpbench_local_plugins"
    return OWN_PACKAGES | {name if name.startswith(local) else name.partition(".")[0] for name in modules} - {
        "torch",
        "numpy",
    }


def _given(problem: Problem) -> dict[str, object]:
    """Objects that a fitted sampler may hold and every run has itself."""
    data = problem.dataset
    named: dict[str, object] = {
        "problem": problem,
        "dataset": data,
        "process": problem.process,
        "score": problem.score,
        "train": data.train,
        "validation": data.validation,
        "test": data.test,
        "law": data.law,
        "train_labels": data.train_labels,
    }
    return {name: part for name, part in named.items() if part is not None}
