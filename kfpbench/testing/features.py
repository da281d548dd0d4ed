"""The contract of feature extractors: rows are mapped one by one, alike every time, by what the version names.

The data are 24 training rows of points in 5 coordinates, else of grey images of 8 x 8, else of colour images of 32 x 32
pixels: the first kind that ``fit`` does not refuse by a CapabilityError.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, KfpbenchError, ShapeError
from kfpbench.protocols import FeatureExtractor
from kfpbench.testing.contract import Contract, ContractError, NotApplicableError, remembered, require
from kfpbench.testing.snapshots import changed, snapshot

CONTRACT = Contract("features")
_TRAIN, _ROWS = 24, 7
_SHAPES: tuple[tuple[int, int, int] | None, ...] = (None, (1, 8, 8), (3, 32, 32))
_DIMENSION = 5
_ROUNDING = 1e-4  # of the largest feature: float32 products in another order
_NUDGE = 0.25  # relative change of an array or a number that the extractor holds
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class _Fitted:
    """An extractor fitted to the first data that it takes, and rows that it has not seen."""

    dataset: Dataset
    extractor: FeatureExtractor
    changed_by_fit: list[str]
    held: Rows

    @property
    def rows(self) -> Rows:
        """A copy: whatever one check's extractor does to it, the next one gets the same rows."""
        return self.held.copy()


@CONTRACT
def maps_rows_to_finite_numbers(extractor: FeatureExtractor) -> None:
    """``transform`` maps rows (n, d) to (n, c) float64, one c for every n, finite, also of rows ten times as large."""
    use = _fitted(extractor)
    widths = set()
    for count in (_ROWS, 1, 2):
        for scale in (1.0, 10.0):
            found: Any = use.extractor.transform(use.rows[:count] * np.float32(scale))
            require(isinstance(found, np.ndarray), "transform returns no array", got=type(found).__name__)
            remedy = "Return np.asarray(features, dtype=np.float64)."
            require(found.dtype == np.float64, "features are not float64", got=str(found.dtype), remedy=remedy)
            require(
                found.ndim == 2 and len(found) == count, "not one row each", got=found.shape, allowed=f"({count}, c)"
            )
            require(bool(np.isfinite(found).all()), f"features of rows times {scale:g} are not finite")
            widths.add(found.shape[1])
    require(len(widths) == 1 and 0 not in widths, "the number of features depends on the rows", got=sorted(widths))


@CONTRACT
def maps_rows_one_by_one(extractor: FeatureExtractor) -> None:
    """A row's features do not depend on the rows beside it or their order, up to rounding (1e-4 of the largest)."""
    use = _fitted(extractor)
    together = use.extractor.transform(use.rows)
    order = np.random.default_rng(2).permutation(_ROWS)
    attempts = {
        "alone": np.concatenate([use.extractor.transform(use.rows[i : i + 1]) for i in range(_ROWS)]),
        "in another order": use.extractor.transform(use.rows[order])[np.argsort(order)],
    }
    for how, found in attempts.items():
        require(
            _near(found, together),
            f"a row has other features {how} than in a batch",
            got=float(np.abs(found - together).max()),
            allowed="the same up to rounding",
            remedy="Take no statistic of the batch: fit learns from the training rows; put networks in eval mode.",
        )


@CONTRACT
def is_deterministic(extractor: FeatureExtractor) -> None:
    """The same rows have the same features bit by bit, from one fit and from two."""
    use = _fitted(extractor)
    first = use.extractor.transform(use.rows)
    again = {"second call": use.extractor, "second fit": extractor.fit(use.dataset)}
    for what, fitted in again.items():
        remedy = "Draw from a generator with a fixed seed, and keep what is drawn in the fitted extractor."
        require(
            bool(np.array_equal(first, fitted.transform(use.rows))), f"a {what} gives other features", remedy=remedy
        )


@CONTRACT
def leaves_everything_alone(extractor: FeatureExtractor) -> None:
    """``fit`` changes neither the extractor nor the data, ``transform`` neither the rows nor the fitted extractor."""
    use = _fitted(extractor)
    altered = use.changed_by_fit
    require(not altered, "fit changes the extractor", got=", ".join(altered), remedy="Return a fitted copy.")
    rows, train = use.rows, use.dataset.train.copy()
    fitted = extractor.fit(use.dataset)
    state = snapshot(fitted)
    fitted.transform(rows)
    altered = changed(state, fitted)
    require(not altered, "transform changes the extractor", got=", ".join(altered))
    require(bool(np.array_equal(rows, use.rows)), "transform changes the rows", remedy="Work on a copy.")
    require(bool(np.array_equal(train, use.dataset.train)), "fit changes the training rows", remedy="Work on a copy.")


@CONTRACT
def sees_training_rows_only(extractor: FeatureExtractor) -> None:
    """``fit`` learns nothing from validation and test rows; with ``uses_training_rows = False`` nothing at all."""
    use = _fitted(extractor)
    expected = use.extractor.transform(use.rows)
    other = _rows(np.random.default_rng(3), _TRAIN, use.dataset.image_shape)
    hidden = replace(use.dataset, validation=other[:8], test=other[8:16], fingerprint="hidden")
    found = extractor.fit(hidden).transform(use.rows)
    remedy = "Features that have seen test rows measure nothing."
    require(bool(np.array_equal(found, expected)), "fit looks at validation or test rows", remedy=remedy)
    if getattr(type(extractor), "uses_training_rows", True):
        return
    found = extractor.fit(replace(use.dataset, train=other, fingerprint="other")).transform(use.rows)
    require(
        bool(np.array_equal(found, expected)),
        "fit learns from the training rows, and the class says that it does not",
        remedy="Remove `uses_training_rows = False`: features are shared between training sets by it.",
    )


@CONTRACT
def version_names_the_features(extractor: FeatureExtractor) -> None:
    """``version`` is text, the same before and after a fit."""
    use = _fitted(extractor)
    named: Any = extractor.version
    require(isinstance(named, str) and bool(named), "version is no text", got=named, allowed="such as 'pca-64/1'")
    for fitted in (use.extractor, extractor.fit(use.dataset)):
        require(fitted.version == named, "a fit changes the version", got=[named, fitted.version])


@CONTRACT
def version_changes_with_the_weights(extractor: FeatureExtractor) -> None:
    """Where a number or an array that the extractor holds, or a network's parameter, changes what rows are mapped to,
    it changes ``version`` too. Weights in a file are the extractor's own to test.
    """
    use = _fitted(extractor)
    expected = use.extractor.transform(use.rows)
    tried = 0
    for name, other in _variants(extractor):
        try:
            found = other.fit(use.dataset).transform(use.rows)
        except KfpbenchError:  # a value that it does not take
            continue
        tried += 1
        if found.shape == expected.shape and _near(found, expected):
            continue
        require(
            other.version != extractor.version,
            f"features change with {name}, and the version does not",
            got=extractor.version,
            allowed="another version for other features",
            remedy="Write the parameters, and a hash of the weights, into `version`: results are kept under it.",
        )
    if not tried:
        raise NotApplicableError("the extractor holds no numbers or arrays that can be changed")


@CONTRACT
def refuses_rows_of_other_shapes(extractor: FeatureExtractor) -> None:
    """Rows with a column more or less than the data set, and arrays that are no (n, d), raise ShapeError."""
    use = _fitted(extractor)
    attempts = {
        "a column less": use.rows[:, :-1],
        "a column more": np.concatenate([use.rows, use.rows[:, :1]], axis=1),
        "a single row without its axis": use.rows[0],
        "an axis too many": use.rows[None],
    }
    for what, rows in attempts.items():
        try:
            found: Any = use.extractor.transform(rows).shape
        except ShapeError:
            continue
        except Exception as error:  # a stranger's extractor may fail in any way
            found = f"{type(error).__name__}: {error}"
        raise ContractError(
            f"{what}: not refused by ShapeError",
            got=found,
            allowed="ShapeError",
            remedy="Compare rows.shape with the dimension of the data set that it was fitted to.",
        )


@CONTRACT
def describes_itself(extractor: FeatureExtractor) -> None:
    """``describe`` of a fitted extractor, where it exists, is JSON, names the features and their version, and says how
    images are resized ("none" where they are not): each measurement records it.
    """
    use = _fitted(extractor)
    describe: Any = getattr(use.extractor, "describe", None)
    if not callable(describe):
        raise NotApplicableError("the extractor has no describe(): results name its class and version alone")
    found = describe()
    require(isinstance(found, dict), "describe returns no dictionary", got=type(found).__name__)
    for key in ("features", "version", "resize"):
        text = found.get(key)
        remedy = 'Say it in words: "none", or "32 x 32 to 224 x 224, bicubic".' if key == "resize" else None
        require(isinstance(text, str) and bool(text), f"describe() has no text under {key!r}", got=text, remedy=remedy)
    version = use.extractor.version
    require(found["version"] == version, "describe() names another version", got=found["version"], allowed=version)
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise ContractError(f"describe() cannot be held by JSON: {error}", got=found) from error


def _near(found: NDArray[np.float64], expected: NDArray[np.float64]) -> bool:
    return bool(np.abs(found - expected).max() <= _ROUNDING * np.abs(expected).max())


def _fitted(extractor: FeatureExtractor) -> _Fitted:
    found: _Fitted = remembered(extractor, "fitted", lambda: _fit(extractor))
    return found


def _fit(extractor: FeatureExtractor) -> _Fitted:
    refusal: CapabilityError | None = None
    for shape in _SHAPES:
        rng = np.random.default_rng(0)
        train, held_out = _rows(rng, _TRAIN, shape), _rows(rng, 2 * _ROWS, shape)
        dataset = Dataset(
            "contract", train, held_out[:_ROWS], held_out[_ROWS:], image_shape=shape, fingerprint=f"contract {shape}"
        )
        before = snapshot(extractor)
        try:
            fitted = extractor.fit(dataset)
        except CapabilityError as error:
            refusal = error
            continue
        return _Fitted(dataset, fitted, changed(before, extractor), _rows(np.random.default_rng(1), _ROWS, shape))
    assert refusal is not None  # there are shapes
    raise refusal


def _rows(rng: np.random.Generator, count: int, shape: tuple[int, int, int] | None) -> Rows:
    """Normal points, or images in [-1, 1] whose pixels go with their neighbours, flattened."""
    if shape is None:
        return rng.standard_normal((count, _DIMENSION)).astype(np.float32)
    coarse = rng.uniform(-1.0, 1.0, (count, shape[0], shape[1] // 4, shape[2] // 4))
    return np.ascontiguousarray(coarse.repeat(4, axis=2).repeat(4, axis=3).reshape(count, -1), dtype=np.float32)


def _variants(extractor: FeatureExtractor) -> Iterator[tuple[str, FeatureExtractor]]:
    """Copies of the extractor in each of which one thing is different: a number, an array, a parameter of a network."""
    for name, value in sorted(getattr(extractor, "__dict__", {}).items()):
        for place, other in _changed_values(value):
            varied = copy.copy(extractor)
            vars(varied)[name] = other
            yield f"{name}{place}", varied


def _changed_values(value: Any) -> Iterator[tuple[str, Any]]:
    """(place in the value, the value with that changed): once for a number or an array, and for each parameter."""
    if isinstance(value, bool):
        yield "", not value
    elif isinstance(value, int):
        yield from (("", other) for other in (value + 1, max(1, value // 2), 2) if other != value)
    elif isinstance(value, float) and math.isfinite(value):
        yield "", value * (1.0 + _NUDGE) if value else _NUDGE
    elif isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating):
        yield "", (value * (1.0 + _NUDGE * np.arange(value.size).reshape(value.shape) / value.size)).astype(value.dtype)
    elif isinstance(value, torch.nn.Module):
        for name, _ in value.named_parameters():
            network = copy.deepcopy(value)
            with torch.no_grad():
                network.get_parameter(name).mul_(1.0 + _NUDGE).add_(0.01)
            yield f".{name}", network
    elif isinstance(value, torch.Tensor) and value.is_floating_point():
        yield "", value.detach() * (1.0 + _NUDGE * torch.arange(value.numel()).reshape(value.shape) / value.numel())
