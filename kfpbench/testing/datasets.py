"""The contract of data sets: rows of the declared shape, split once and for all, that their fingerprint names.

A data set whose files are not on this machine raises DataError; its checks are skipped with that reason.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.errors import DataError
from kfpbench.protocols import DatasetPlugin
from kfpbench.testing.contract import Contract, NotApplicableError, remembered, require

CONTRACT = Contract("datasets")
_SHARED = 0.01  # of a split's rows that may be in another one too: real sets hold duplicates, float32 numbers collide
_DEVIATIONS = 6.0  # standard errors between rows and law
_SPLITS = ("train", "validation", "test")


@CONTRACT
def rows_have_the_declared_shape(plugin: DatasetPlugin) -> None:
    """train, validation and test are finite float32 (n >= 1, d), one d; images are C H W = d numbers in [-1, 1]."""
    dataset = _loaded(plugin)
    for name in _SPLITS:
        rows: Any = getattr(dataset, name)
        remedy = "Return np.asarray(rows, dtype=np.float32)."
        require(isinstance(rows, np.ndarray) and rows.dtype == np.float32, f"{name} is not float32", remedy=remedy)
        sound = rows.ndim == 2 and len(rows) >= 1 and rows.shape[1] == dataset.dimension
        require(sound, f"{name} has the wrong shape", got=rows.shape, allowed=f"(n >= 1, {dataset.dimension})")
        require(bool(np.isfinite(rows.sum(axis=1)).all()), f"{name} holds NaN or infinity")
        if dataset.image_shape is not None:
            size, extent = int(np.prod(dataset.image_shape)), (float(rows.min()), float(rows.max()))
            require(size == dataset.dimension, "image_shape is not that of the rows", got=size, allowed=rows.shape[1])
            require(extent[0] >= -1.0 and extent[1] <= 1.0, f"{name} leaves [-1, 1]", got=extent, allowed="[-1, 1]")


@CONTRACT
def labels_belong_to_rows(plugin: DatasetPlugin) -> None:
    """Labels are int64 (n,), one a row, for all three splits or for none, and index ``classes`` where it is given."""
    dataset = _loaded(plugin)
    found = {name: getattr(dataset, f"{name}_labels") for name in _SPLITS}
    if all(labels is None for labels in found.values()):
        raise NotApplicableError("the data set has no labels")
    for name, labels in found.items():
        require(labels is not None, f"{name} has no labels, but another split has", remedy="Label all, or none.")
        rows = len(getattr(dataset, name))
        require(
            labels.dtype == np.int64 and labels.shape == (rows,),
            f"the labels of {name} are not int64, one a row",
            got=f"{labels.dtype} {labels.shape}",
            allowed=f"int64 ({rows},)",
        )
        known = not dataset.classes or (labels.min() >= 0 and labels.max() < len(dataset.classes))
        require(bool(known), f"a label of {name} has no class", got=(int(labels.min()), int(labels.max())))


@CONTRACT
def splits_share_no_rows(plugin: DatasetPlugin) -> None:
    """Of each two splits, fewer than 1 % of the later one's rows are in the earlier one, bit by bit."""
    dataset = _loaded(plugin)
    earlier: dict[str, set[bytes]] = {}
    for name in _SPLITS:
        rows = getattr(dataset, name)
        for other, known in earlier.items():
            shared = sum(row.tobytes() in known for row in rows)
            require(
                shared < max(1.0, _SHARED * len(rows)),
                f"{name} rows are {other} rows",
                got=f"{shared} of {len(rows)}",
                allowed="none, but for duplicates within the data",
                remedy="Split first, by the row's index; give each split of a synthetic law a stream of its own.",
            )
        earlier[name] = {row.tobytes() for row in rows}


@CONTRACT
def size_is_that_of_the_rows(plugin: DatasetPlugin) -> None:
    """``size`` is (training rows, d) as loaded, and for reference "test" that of ``for_reference("test")``."""
    dataset = _loaded(plugin)
    for reference in ("validation", "test"):
        found: Any = plugin.size(reference)
        exact = dataset.for_reference(reference).train.shape
        remedy = "Against test rows the validation rows are training rows too."
        require(tuple(found) == exact, f"size({reference!r}) is wrong", got=found, allowed=exact, remedy=remedy)


@CONTRACT
def loads_alike_every_time(plugin: DatasetPlugin) -> None:
    """A second ``load`` gives the same rows and the same fingerprint, which is not empty."""
    one, other = _loaded(plugin), plugin.load()
    for name in _SPLITS:
        same = np.array_equal(getattr(one, name), getattr(other, name))
        require(same, f"a second load gives other {name} rows", remedy="Take all randomness from a seeded generator.")
    require(bool(one.fingerprint), "the fingerprint is empty", remedy="Hash the bytes of the three splits.")
    require(one.fingerprint == other.fingerprint, "a second load gives another fingerprint")


@CONTRACT
def fingerprint_names_the_rows(plugin: DatasetPlugin) -> None:
    """Where the data set has a ``seed`` that changes its rows, it changes the fingerprint: caches go by it."""
    seed = getattr(plugin, "seed", None)
    if not isinstance(seed, int):
        raise NotApplicableError("the data set has no seed")
    varied = copy.copy(plugin)
    vars(varied)["seed"] = seed + 1
    one, other = _loaded(plugin), varied.load()
    if np.array_equal(one.train, other.train):
        raise NotApplicableError("the seed does not change the rows")
    different = one.fingerprint != other.fingerprint
    require(different, "other rows have the same fingerprint", remedy="Hash the bytes of the three splits.")


@CONTRACT
def rows_follow_the_law(plugin: DatasetPlugin) -> None:
    """Where ``law`` is given, the mean and the variance of each column are its own, to 6 standard errors."""
    dataset = _loaded(plugin)
    law = dataset.law
    if law is None:
        raise NotApplicableError("the law of the data set is not known")
    mean = law.weights @ law.means
    second = np.einsum("k,kij->ij", law.weights, law.covariances + law.means[:, :, None] * law.means[:, None, :])
    variance = np.diag(second) - mean**2
    for name in _SPLITS:
        rows = np.asarray(getattr(dataset, name), dtype=np.float64)
        if len(rows) < 30:  # the standard errors below are then themselves in doubt
            continue
        squares = (rows - mean) ** 2
        for what, found, exact, error in (
            ("mean", rows.mean(0), mean, _standard_error(rows)),
            ("variance", squares.mean(0), variance, _standard_error(squares)),
        ):
            worst = int(np.argmax(np.abs(found - exact) - _DEVIATIONS * error))
            require(
                bool(abs(found[worst] - exact[worst]) <= _DEVIATIONS * error[worst]),
                f"the {what} of the {name} rows is not that of the law",
                got=f"{found[worst]:.6g} in column {worst}",
                allowed=f"{exact[worst]:.6g} +- {_DEVIATIONS * error[worst]:.2g}",
            )


def _standard_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread: NDArray[np.float64] = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return spread


def _loaded(plugin: DatasetPlugin) -> Dataset:
    found: Dataset = remembered(plugin, "loaded", lambda: _load(plugin))
    return found


def _load(plugin: DatasetPlugin) -> Dataset:
    try:
        found: Any = plugin.load()
    except DataError as error:
        raise NotApplicableError(f"the data are not here: {error}") from error
    require(isinstance(found, Dataset), "load returns no Dataset", got=type(found).__name__)
    dataset: Dataset = found
    return dataset
