"""Features of rows, computed once: metrics of one cell look at the same samples, cells at the same reference rows."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfpbench.cache.code_version import code_version
from kfpbench.cache.key import Key
from kfpbench.cache.use import Stored
from kfpbench.data.row_identity import digest, training_key
from kfpbench.features.content_cache import ContentCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset
    from kfpbench.protocols import FeatureExtractor

_MOST_BYTES = 2**29  # of all features that are kept: 50,000 rows of 64 are 26 MB, of 2048 too many
_PLAIN = (type(None), bool, int, float, str)

_features: ContentCache[NDArray[np.float64]] = ContentCache(size=64, most_bytes=_MOST_BYTES)


@dataclass(frozen=True)
class FeatureKey:
    """What features are a function of, alike in every process.

    ``extractor``: class, version and parameters; ``fitted_on``: the images' shape and the identity of the training rows
    (the data set's fingerprint, shape, a hash of some), which extractors that are not fitted to them leave out;
    ``rows``: hash of every byte.
    """

    extractor: str
    fitted_on: tuple[Hashable, ...]
    rows: str

    @property
    def name(self) -> str:
        """SHA-256 of all three, hexadecimal: the name of a file that holds the features."""
        return hashlib.sha256(repr((self.extractor, self.fitted_on, self.rows)).encode()).hexdigest()


def feature_key(extractor: FeatureExtractor, dataset: Dataset, rows: NDArray[np.float32]) -> FeatureKey | None:
    """The key of the features of ``rows``, from the extractor before its fit; None where none is sure to be right.

    An extractor is known by its class, its version and its attributes, as long as these are numbers and text: one that
    holds anything else may change in ways that its version does not tell. ``uses_training_rows = False`` in the class
    says that ``fit`` learns nothing, so that data sets cut to different sizes share features. Cost: hashing the rows.
    """
    parameters = _parameters(extractor)
    if parameters is None:
        return None
    component = type(extractor)
    name = f"{component.__module__}.{component.__qualname__} {extractor.version} {parameters}"
    learns = getattr(component, "uses_training_rows", True)
    rest = training_key(dataset.fingerprint, dataset.train) if learns else ()
    return FeatureKey(name, (dataset.image_shape, *rest), digest(rows))


def features_of(
    extractor: FeatureExtractor,
    fitted: FeatureExtractor,
    dataset: Dataset,
    rows: NDArray[np.float32],
    *,
    of_data: bool = False,
) -> NDArray[np.float64]:
    """``fitted.transform(rows)``, an array of the caller's own; ``fitted`` is ``extractor`` fitted to ``dataset``.

    Features ``of_data``, of rows that every run meets again, are kept on the disk too where the cache is in use.

    Features used last are kept per process, up to 64 arrays and 512 MiB; larger ones, those that cost no more than a
    copy (``costs_nothing = True`` in the class), and those without a key are computed anew.
    """
    key = None if getattr(type(extractor), "costs_nothing", False) else feature_key(extractor, dataset, rows)
    if key is None:
        return fitted.transform(rows)

    def stored() -> Stored[NDArray[np.float64]]:
        return Stored(Key("features", {"features": key.name, "code": code_version(type(extractor))}), np.ndarray)

    return _features.get(key, lambda: fitted.transform(rows), stored if of_data else None).copy()


def forget_features() -> None:
    """Empty the cache, for timings that start cold."""
    _features.clear()


def _parameters(extractor: FeatureExtractor) -> str | None:
    values: dict[str, Any] = getattr(extractor, "__dict__", {})
    if hasattr(type(extractor), "__slots__") or not all(_plain(value) for value in values.values()):
        return None
    return repr(sorted(values.items()))


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(part) for part in value)
    return isinstance(value, _PLAIN)
