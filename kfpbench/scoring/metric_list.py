"""Which metrics are taken of samples, and in which features."""

from __future__ import annotations

import re
from typing import Any

from kfpbench.data.dataset import Dataset
from kfpbench.errors import ParameterError
from kfpbench.protocols import MetricPlugin
from kfpbench.registry import available
from kfpbench.suite.components import check_block, create
from kfpbench.suite.problems import combine

_FIDELITY = ("frechet", "frechet_infinity", "kid")
_POINT_FIDELITY = ("energy_distance", "sliced_wasserstein", "wasserstein", "frechet")
_DIVERSITY = ("precision_recall", "density_coverage", "vendi", "class_entropy", "pairwise_diversity")
_MEMORISATION = ("nearest_train", "authenticity", "data_copying")
_NAMED = re.compile(r"([^\[\]]+)(?:\[([^\[\]]+)\])?")
_CIFAR_SHAPE = (3, 32, 32)


def default_features(dataset: Dataset) -> str:
    """cifar_cnn for colour images of 32 x 32 pixels, pca for everything else."""
    return "cifar_cnn" if dataset.image_shape == _CIFAR_SHAPE else "pca"


def default_metrics(dataset: Dataset) -> list[str]:
    """Fidelity, diversity and memorisation: those of the registered metrics that samples alone are enough for."""
    fidelity = _FIDELITY if dataset.image_shape is not None else _POINT_FIDELITY
    registered = available("metrics")
    return [name for name in (*fidelity, *_DIVERSITY, *_MEMORISATION) if name in registered]


def create_metrics(names: list[str], features: str) -> list[tuple[str, MetricPlugin]]:
    """The metrics of those names, ``frechet`` or ``frechet[pca]``, with what names them.

    ``features`` are taken by every metric that has features and is not about the rows themselves (features identity by
    default), unless the name states its own. Raises SuiteError for unknown names, ParameterError for a metric without
    features that is given some, and for one twice.
    """
    made = []
    for text in names:
        match = _NAMED.fullmatch(text.strip())
        if match is None:
            raise ParameterError("not a metric", got=text, allowed="NAME or NAME[FEATURES], such as frechet[pca]")
        name, stated = match.groups()
        checked = check_block("metrics", name)
        if checked.block is None:
            raise combine([problem.error("--metrics") for problem in checked.problems])
        block: dict[str, Any] = checked.block
        own = block.get("features")
        if own is None and stated is not None:
            raise ParameterError("this metric has no features", got=text, allowed=name)
        chosen = stated
        if chosen is None and own is not None and _name(own) != "identity":
            chosen = features
        if chosen is not None:
            block = {**block, "features": chosen}
        made.append((name if chosen is None else f"{name}[{chosen}]", create("metrics", block)))
    labels = [label for label, _ in made]
    if not made or len(set(labels)) < len(labels):
        raise ParameterError("the list of metrics is empty or names one twice", got=labels)
    return made


def _name(features: Any) -> str:
    return str(features.get("name")) if isinstance(features, dict) else str(features)


def features_label(details: dict[str, Any]) -> str:
    """What a measurement says of its features, in short: 'cifar_cnn', or '' for none."""
    return str(details.get("features_version", "")).partition("/")[0]
