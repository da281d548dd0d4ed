"""Validation of what metrics are given, in one place, and the extraction of features."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kfpbench.errors import NumericalError, ParameterError, ShapeError
from kfpbench.features.feature_cache import features_of
from kfpbench.protocols import FeatureExtractor
from kfpbench.registry import find

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.protocols import MetricInput

Direction = Literal["lower", "higher", "neither"]


def resolve_features(features: FeatureExtractor | str) -> FeatureExtractor:
    """The extractor itself, or the registered one of that name with its default parameters.

    Raises UnknownComponentError for a name that is not registered, ParameterError for what is no extractor.
    """
    if isinstance(features, str):
        extractor: FeatureExtractor = find("features", features).load()()
        return extractor
    # looked up without reading them: the version of a network's features takes its weights
    members = [inspect.getattr_static(features, name, None) for name in ("version", "fit", "transform")]
    if isinstance(features, type) or any(member is None for member in members):
        raise ParameterError(
            "`features` is not a feature extractor",
            got=features,
            allowed="a registered name, or an object with version, fit and transform",
        )
    return features


def check_rows(rows: NDArray[np.floating[Any]], name: str, *, least: int = 2) -> None:
    """Refuse rows that are no finite (n >= least, d >= 1) array: ShapeError, NumericalError. Cost O(n d)."""
    if rows.ndim != 2 or rows.shape[0] < least or rows.shape[1] < 1:
        raise ShapeError(
            f"{name} must hold at least {least} rows of numbers",
            got=rows.shape,
            allowed=f"(n >= {least}, d >= 1)",
            where="metrics",
        )
    with np.errstate(invalid="ignore"):  # inf - inf is the NaN that is looked for
        finite = np.isfinite(rows.sum(axis=1, dtype=np.float64))  # one pass, no mask of the size of the rows
    if not finite.all():
        raise NumericalError(
            f"{name} hold NaN or infinity",
            got=f"{int((~finite).sum())} of {len(rows)} rows, the first is row {int(np.argmin(finite))}",
            allowed="finite numbers",
            remedy="A sampler that diverges has no distance to the data: repair it or lower its step.",
            where="metrics",
        )


def check_pair(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> None:
    """Refuse two clouds that are not finite or live in different dimensions; their sizes may differ."""
    check_rows(x, "samples")
    check_rows(y, "reference")
    if x.shape[1] != y.shape[1]:
        raise ShapeError(
            "samples and reference have different numbers of columns",
            got=(x.shape, y.shape),
            allowed="equal d",
            where="metrics",
        )


def check_input(data: MetricInput) -> int:
    """Refuse a MetricInput that breaks its contract, return n.

    Raises ShapeError for unequal n or d, NumericalError for NaN or infinity. The training rows' columns are
    checked, their values are not: the data set has done so when it was loaded.
    """
    check_pair(data.samples, data.reference)
    if data.samples.shape != data.reference.shape:
        raise ShapeError(
            "samples and reference must hold equally many rows",
            got=(data.samples.shape, data.reference.shape),
            allowed="equal n",
            remedy="Distances depend on n: draw as many samples as there are reference rows.",
            where="metrics",
        )
    if data.train.ndim != 2 or data.train.shape[1] != data.samples.shape[1] or len(data.train) < 1:
        raise ShapeError(
            "training rows do not match the samples",
            got=(data.train.shape, data.samples.shape),
            allowed="(N >= 1, d) with the samples' d",
            where="metrics",
        )
    return len(data.samples)


def extract(
    extractor: FeatureExtractor, data: MetricInput
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
    """Check the input, fit the extractor on the data set's training rows, and map samples and reference.

    Returns features (n, c) of the samples and of the reference, and the details that every measurement
    records. Features of rows that were looked at before come from ``features.feature_cache``.
    """
    check_input(data)
    fitted = extractor.fit(data.dataset)
    samples = features_of(extractor, fitted, data.dataset, data.samples)
    reference = features_of(extractor, fitted, data.dataset, data.reference, of_data=True)
    check_pair(samples, reference)  # an extractor may overflow where the rows did not
    return samples, reference, details(fitted, data, samples.shape[1])


def details(extractor: FeatureExtractor, data: MetricInput, dimension: int) -> dict[str, Any]:
    """Which features were used, in how many dimensions, how rows were resized, and which split was the reference."""
    describe = getattr(extractor, "describe", None)  # not part of the protocol: recorded where it exists
    description = describe() if callable(describe) else {}
    record: dict[str, Any] = {
        "features": description.get("features", type(extractor).__name__),
        "features_version": extractor.version,
        "feature_dimension": dimension,
        "resize": description.get("resize", "not stated"),
        "reference": data.reference_name,
    }
    if callable(describe):
        record["features_description"] = description
    return record
