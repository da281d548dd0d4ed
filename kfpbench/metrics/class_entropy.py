"""Entropy of the classes that are seen in the samples, and the distance of their histogram from the reference's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from kfpbench.data.row_identity import training_key
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.features.content_cache import ContentCache
from kfpbench.features.feature_cache import features_of
from kfpbench.metrics.inputs import Direction, check_input, check_rows, extract, resolve_features
from kfpbench.metrics.intervals import half_samples, jackknife_interval
from kfpbench.metrics.pairwise_distances import centred, row_tiles
from kfpbench.protocols import FeatureExtractor, Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfpbench.data.dataset import Dataset, Mixture
    from kfpbench.protocols import MetricInput

OUTPUTS: dict[str, Direction] = {
    "class_entropy": "neither",
    "effective_class_ratio": "neither",
    "missing_class_share": "lower",
}


@dataclass(frozen=True)
class _Labelled:
    """Features (m, c) of labelled training rows, their classes (m,), and the accuracy of the rule among them."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    accuracy: float


_labelled: ContentCache[_Labelled] = ContentCache(size=4)


class ClassEntropy:
    """Which classes the samples hold, p, against the reference, q, as one classifier sees both.

        class_entropy         = H(p) = -sum_c p_c log p_c                   nats
        effective_class_ratio = exp(H(p) - H(q))                            0.7 when 3 of 10 equal classes are missing
        missing_class_share   = sum_c max(q_c - p_c, 0) = sum_c |p_c - q_c| / 2

    The classifier is the same rule for every data set: the commonest class among the ``neighbours`` nearest of up to
    ``labelled_rows`` training rows, evenly spaced, in feature space; of equally common ones that with the nearer rows.
    Features decide how good it is: ``details["classifier_accuracy"]`` is its accuracy on the labelled rows, each left
    out (features that were themselves trained on these labels, as cifar_cnn, do worse on others). Labels are those of
    the data set; where its law is a mixture, the most probable component.

    The ratio is 1 for the reference's classes, and above 1 for more even ones, so neither direction is better; the
    share is in [0, 1] and biased upwards by O((classes / n)^(1/2)) between equal laws: compare at equal n. Intervals
    (delete-half jackknife) are for the expectation at this n. Cost O((n + m) m c) for m labelled rows, once a data set
    for the m^2 c; memory in tiles of 16 MiB.

    Raises CapabilityError for data without classes, so that the cell keeps its other metrics; ParameterError for
    neighbours or labelled_rows below 1; ShapeError, NumericalError for bad rows.

    Source: entropy and total variation of a histogram, Cover and Thomas, "Elements of Information Theory", 2006; the
    classifier: Cover and Hart, IEEE Trans. Inf. Theory 13(1):21 (1967).
    """

    outputs: dict[str, Direction] = OUTPUTS

    def __init__(
        self,
        neighbours: Annotated[int, Field(ge=1)] = 5,
        labelled_rows: Annotated[int, Field(ge=1)] = 5000,
        features: FeatureExtractor | str = "pca",
    ) -> None:
        if neighbours < 1 or labelled_rows < 1:
            raise ParameterError(
                "a class needs a neighbour",
                got={"neighbours": neighbours, "labelled_rows": labelled_rows},
                allowed=">= 1",
                where="metrics.class_entropy",
            )
        self.neighbours, self.labelled_rows = neighbours, labelled_rows
        self.features = resolve_features(features)

    def evaluate(self, data: MetricInput) -> list[Measurement]:
        """Three measurements, those of ``outputs``."""
        n = check_input(data)
        classes = _class_count(data.dataset)
        extractor = self.features.fit(data.dataset)
        key = (
            *training_key(data.dataset.fingerprint, data.dataset.train),
            extractor.version,
            self.labelled_rows,
            self.neighbours,
        )
        labelled = _labelled.get(key, lambda: self._label(data.dataset, extractor, classes))
        x, y, details = extract(self.features, data)
        of_samples, of_reference = (self._classify(features, labelled, classes) for features in (x, y))
        halves = half_samples(n, data.seed).with_whole()
        p = np.array([np.bincount(of_samples[part], minlength=classes) / part.sum() for part in halves.samples])
        q = np.array([np.bincount(of_reference[part], minlength=classes) / part.sum() for part in halves.reference])
        entropy = _entropy(p)
        values = (entropy, np.exp(entropy - _entropy(q)), np.abs(p - q).sum(axis=1) / 2.0)
        record: dict[str, Any] = {
            **details,
            "classes": classes,
            "neighbours": self.neighbours,
            "labelled_rows": len(labelled.labels),
            "classifier_accuracy": labelled.accuracy,
            "reference_class_entropy": float(_entropy(q[:1])[0]),
            "histogram": p[0].tolist(),
            "reference_histogram": q[0].tolist(),
        }
        measurements = []
        for name, of_subsets, most in zip(OUTPUTS, values, (np.log(classes), float(classes), 1.0), strict=True):
            value = float(of_subsets[0])
            interval = jackknife_interval(value, of_subsets[1:], n, least=0.0, most=float(most))
            unit = "nat" if name == "class_entropy" else ""
            measurements.append(
                Measurement(name, value, interval.low, interval.high, n, unit, {**record, **interval.details})
            )
        return measurements

    def _label(self, dataset: Dataset, extractor: FeatureExtractor, classes: int) -> _Labelled:
        """Features and classes of evenly spaced training rows."""
        count = min(self.labelled_rows, len(dataset.train))
        chosen = np.linspace(0, len(dataset.train) - 1, count).astype(np.int64)
        rows = dataset.train[chosen]
        if dataset.train_labels is not None:
            labels = np.asarray(dataset.train_labels[chosen], dtype=np.int64)
        else:
            assert dataset.law is not None  # or there were no classes
            labels = most_probable_component(dataset.law, rows)
        features = features_of(self.features, extractor, dataset, rows, of_data=True)
        check_rows(features, "features of the training rows", least=1)
        found = self._classify(features, _Labelled(features, labels, 0.0), classes, itself=True)
        return _Labelled(features, labels, float(np.mean(found == labels)))

    def _classify(
        self, features: NDArray[np.float64], labelled: _Labelled, classes: int, *, itself: bool = False
    ) -> NDArray[np.int64]:
        """The class of each row (n, c) -> (n,); with ``itself`` the labelled rows are the rows, each left out."""
        check_rows(features, "features")
        queries, known = centred(features, labelled.features)
        count = min(self.neighbours, len(known) - 1 if itself else len(known))
        # less than one vote in all: they settle ties alone, for the class with the nearer rows
        weights = 1.0 + 0.5 ** np.arange(1, count + 1)
        found = np.zeros(len(queries), dtype=np.int64)
        for start, tile in row_tiles(queries, known):
            rows = np.arange(len(tile))
            if itself:
                tile[rows, start + rows] = np.inf
            nearest = np.argpartition(tile, count - 1, axis=1)[:, :count]
            order = np.take_along_axis(tile, nearest, axis=1).argsort(axis=1)
            nearest = np.take_along_axis(nearest, order, axis=1)
            votes = np.zeros((len(tile), classes))
            np.add.at(votes, (rows[:, None], labelled.labels[nearest]), weights)
            found[start : start + len(tile)] = votes.argmax(axis=1)
        return found


def most_probable_component(law: Mixture, rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """argmax_k w_k N(x; m_k, C_k) for rows (n, d) -> (n,). Cost O(K (n d^2 + d^3))."""
    scores = np.empty((len(rows), len(law.weights)))
    for k, (weight, mean, covariance) in enumerate(zip(law.weights, law.means, law.covariances, strict=True)):
        factor = np.linalg.cholesky(covariance)
        white = np.linalg.solve(factor, (rows - mean).T)  # (d, n)
        scores[:, k] = np.log(weight) - np.log(np.diag(factor)).sum() - 0.5 * np.square(white).sum(axis=0)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def _class_count(dataset: Dataset) -> int:
    """Number of classes of a data set. Raises CapabilityError for fewer than two."""
    if dataset.train_labels is not None:
        count = max(len(dataset.classes), int(dataset.train_labels.max()) + 1)
    else:
        count = 0 if dataset.law is None else len(dataset.law.weights)
    if count < 2 or len(dataset.train) < 2:
        raise CapabilityError(
            "class entropy needs data with classes",
            got=f"data set {dataset.name!r} with {count} of them",
            allowed="labels, or a law that is a mixture",
            remedy="Take vendi or density_coverage for diversity.",
            where="metrics.class_entropy",
        )
    return count


def _entropy(histograms: NDArray[np.float64]) -> NDArray[np.float64]:
    """-sum_c p_c log p_c of each row (S, C) -> (S,)."""
    logs = np.log(np.where(histograms > 0, histograms, 1.0))
    return np.asarray(-(histograms * logs).sum(axis=1) + 0.0)  # no negative zero
