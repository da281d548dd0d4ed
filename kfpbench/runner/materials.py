"""What the cells of a run share: loaded data sets and bound scores, the latest of each kept."""

from __future__ import annotations

import functools
import json
import logging
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError
from kfpbench.protocols import BoundScore, Problem, ProblemSize
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create

_log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Materials:
    """Loads data sets and binds scores when a cell first needs them.

    Cells come in plan order, grouped by data and score, so one data set and one score are kept at a time: a score may
    hold the whole training set on the device.
    """

    def __init__(self) -> None:
        self._dataset: tuple[str, Dataset] | None = None
        self._score: tuple[str, BoundScore] | None = None

    def dataset(self, spec: dict[str, Any]) -> Dataset:
        """The data set of a cell's spec, split for its reference and cut to its training size."""
        key = json.dumps(spec["data"], sort_keys=True)
        if self._dataset is None or self._dataset[0] != key:
            self._score = None
            begin = time.perf_counter()
            loaded: Dataset = create("datasets", spec["data"]).load()
            loaded = loaded.for_reference(spec["data"]["reference"])
            self._dataset = key, read_only(loaded.with_train_size(spec["data"]["train_size"]))
            kept = self._dataset[1]
            seconds = time.perf_counter() - begin
            _log.info("data %s: %d rows of %d numbers in %.3f s", kept.name, *kept.train.shape, seconds)
            for note in kept.notes:
                _log.warning("data %s: %s", kept.name, note)
        return self._dataset[1]

    def problem(self, cell: Cell) -> Problem:
        """Everything that a sampler is given to fit."""
        spec = cell.spec
        dataset = self.dataset(spec)
        device, dtype = choose_device(spec["device"]), DTYPES[spec["dtype"]]
        parts = [spec["data"], spec["score"], str(device), spec["dtype"]]
        key = json.dumps(parts, sort_keys=True)
        if self._score is None or self._score[0] != key:
            self._score = None  # free the old one before the new one is made
            begin = time.perf_counter()
            self._score = key, create("scores", spec["score"]).bind(dataset, device, dtype)
            _log.info("score %s on %s in %.3f s", spec["score"]["name"], device, time.perf_counter() - begin)
        process = create("processes", spec["process"])
        return Problem(dataset, process, self._score[1], device, dtype, cell.seed)


def read_only(dataset: Dataset) -> Dataset:
    """The same rows as views that cannot be written: a component must not change what later cells see."""

    def locked(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        view = rows.view()
        view.setflags(write=False)
        return view

    return replace(
        dataset, train=locked(dataset.train), validation=locked(dataset.validation), test=locked(dataset.test)
    )


def choose_device(name: str) -> torch.device:
    """The device that a suite names; auto takes CUDA when there is one. Raises CapabilityError for an absent one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise CapabilityError(
            "this machine has no such CUDA device",
            got=name,
            allowed=f"cpu, and {torch.cuda.device_count()} CUDA device(s)",
            remedy="Use device: cpu or auto.",
        )
    return device


@functools.cache
def wake(device: torch.device) -> None:
    """Use linear algebra once on a device: lazy imports, handles and threads are no cell's setup."""
    matrix = torch.eye(8, dtype=torch.float64, device=device)
    torch.linalg.eigh(matrix)
    torch.linalg.eig(matrix @ matrix)


def reference_rows(dataset: Dataset, which: str, n: int, seed: int) -> NDArray[np.float32]:
    """n rows of the reference split (all when it has fewer), drawn without replacement under the cell's seed."""
    rows = dataset.test if which == "test" else dataset.validation
    if n >= len(rows):
        return rows
    chosen = np.random.Generator(np.random.Philox(key=seed)).permutation(len(rows))[:n]
    return rows[np.sort(chosen)]


def predict_memory(cell: Cell) -> int:
    """Predicted peak bytes of a cell: data, score, sampler and samples, from their sizes alone. Reads no data.

    A smaller ``train_size`` makes the score smaller, not the data, which are loaded whole; held-out rows are not known.
    """
    spec = cell.spec
    rows, dimension = create("datasets", spec["data"]).size(spec["data"]["reference"])
    train = spec["data"]["train_size"] or rows
    itemsize = DTYPES[spec["dtype"]].itemsize
    size = ProblemSize(train, dimension, min(spec["batch_size"], spec["n_samples"]), itemsize)
    actor = create("samplers", spec["sampler"]) if cell.kind == "sample" else create("spectrum", spec["spectrum"])
    if spec["score"] is None:  # a reference problem's own dynamics: its rows are not loaded
        return int(actor.working_memory(size))
    data = 4 * rows * dimension
    samples = 8 * spec["n_samples"] * dimension if cell.kind == "sample" else 0  # the batches, and all in one array
    return int(data + samples + create("scores", spec["score"]).working_memory(size) + actor.working_memory(size))
