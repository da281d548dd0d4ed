"""Measure samples against a data set with the metrics of a run, beside the floor: what held-out rows would get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, NumericalError, ParameterError, ShapeError
from kfpbench.protocols import Measurement, MetricInput, MetricPlugin
from kfpbench.scoring.choose_rows import ChosenRows, Split, choose_rows, split_for
from kfpbench.scoring.metric_list import create_metrics, default_features, default_metrics, features_label
from kfpbench.scoring.read_samples import Samples
from kfpbench.scoring.score_findings import findings_of
from kfpbench.store.json_values import dumps, plain
from kfpbench.store.records import measurement_entry

SCHEMA_VERSION = 1
PACKAGES = ("kfpbench", "numpy", "scipy", "torch", "pillow")
_TABLE = ("metric", "features", "value", "ci_low", "ci_high")
_FLOOR = ("value", "ci_low", "ci_high")


@dataclass(frozen=True)
class ScoreResult:
    """The measurements of one set of samples.

    Each of ``measurements`` has what a run records (metric, value, ci_low, ci_high, n, unit, better, details), the
    short name of its ``features``, and ``floor``: the same entry for held-out rows, or None. ``skipped_metrics`` gives
    reasons by metric, ``findings`` say what the numbers mean (`score_findings`). ``samples``, ``data`` and ``rows`` say
    what was compared.
    """

    samples: dict[str, Any]
    data: dict[str, Any]
    rows: dict[str, Any]
    measurements: list[dict[str, Any]]
    findings: list[dict[str, Any]]
    skipped_metrics: dict[str, str]
    notes: list[str]
    versions: dict[str, str]
    schema_version: int = SCHEMA_VERSION

    def value(self, metric: str) -> float:
        """The value of the first measurement of that name. Raises KeyError."""
        for entry in self.measurements:
            if entry["metric"] == metric:
                return float(entry["value"])
        raise KeyError(metric)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the same for the same samples, data set, options and versions: no times and no paths."""
        content: dict[str, Any] = plain(
            {
                "schema_version": self.schema_version,
                "kind": "score",
                "samples": self.samples,
                "data": self.data,
                "rows": self.rows,
                "findings": self.findings,
                "measurements": self.measurements,
                "skipped_metrics": self.skipped_metrics,
                "notes": self.notes,
                "versions": self.versions,
            }
        )
        return content

    def to_json(self) -> str:
        """`as_dict` as strict JSON (NaN and infinities are tagged, as in run folders)."""
        return dumps(self.as_dict(), indent=2)

    def table(self) -> list[dict[str, Any]]:
        """One flat row per measurement, for csv and parquet."""
        return [
            {
                "samples": self.samples["name"],
                "dataset": self.data["name"],
                "reference": self.data["reference"],
                **{name: entry[name] for name in _TABLE},
                **{f"floor_{name}": entry["floor"][name] if entry["floor"] else None for name in _FLOOR},
                **{name: entry[name] for name in ("n", "unit", "better")},
                "seed": self.rows["seed"],
                "schema_version": self.schema_version,
            }
            for entry in self.measurements
        ]


def score_samples(
    samples: Samples,
    dataset: Dataset,
    *,
    reference: Split = "test",
    metrics: Sequence[str] | None = None,
    features: str | None = None,
    n: int | None = None,
    seed: int = 0,
    train_size: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ScoreResult:
    """Measure ``samples`` against a data set as loaded, at equal n (`choose_rows` says which rows are taken).

    ``metrics`` are names as in `metric_list.create_metrics`, ``features`` the extractor of those that look at more than
    rows; None: `default_metrics`, `default_features`. ``train_size`` cuts the training rows. ``progress`` is told what
    is measured next. A metric that cannot be taken is left out with its reason. Raises ParameterError, SuiteError for
    options, CapabilityError when no metric can be taken.
    """
    features = default_features(dataset) if features is None else features
    plugins = create_metrics(list(default_metrics(dataset) if metrics is None else metrics), features)
    prepared = split_for(dataset, reference).with_train_size(train_size)
    tell = progress or (lambda _: None)
    tell("choosing rows")
    chosen = choose_rows(samples, prepared, reference, n=n, seed=seed)
    entries: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for label, plugin in plugins:
        tell(label)
        measured = _take(
            plugin, label, _input(chosen.samples, chosen.train, chosen, prepared, reference, seed), skipped
        )
        floor: dict[str, dict[str, Any]] = {}
        if measured and chosen.floor is not None:
            tell(f"{label}, floor")
            held_out = _input(chosen.floor.rows, chosen.floor.train, chosen, prepared, reference, seed)
            floor = {one.metric: _entry(one, plugin) for one in _take(plugin, f"{label}, floor", held_out, skipped)}
        for one in measured:
            entry = _entry(one, plugin)
            entries.append({**entry, "features": features_label(entry["details"]), "floor": floor.get(one.metric)})
    if not entries:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in skipped.items())
        raise CapabilityError("no metric can be taken of these samples", got=reasons, allowed="others, by --metrics")
    return ScoreResult(
        samples={
            "name": samples.name,
            "rows": len(samples),
            "sha256": samples.sha256,
            "read_as": list(samples.read_as),
            "outside": 0 if samples.scale is None else samples.scale.outside,
        },
        data={
            "name": dataset.name,
            "reference": f"{dataset.name}/{reference}",
            "fingerprint": dataset.fingerprint,
            "train_rows": len(chosen.train),
            "notes": list(dataset.notes),
        },
        rows={
            "n": chosen.n,
            "seed": seed,
            "features": features,
            "equal_to_reference_rows": chosen.overlap.reference,
            "equal_to_training_rows": chosen.overlap.train,
            "repeated": chosen.overlap.repeated,
            "left_out_of_reference": chosen.left_out,
            "floor": None if chosen.floor is None else chosen.floor.what,
        },
        measurements=entries,
        findings=findings_of(entries, samples.name, dataset.name),
        skipped_metrics=skipped,
        notes=_notes(samples, chosen, reference),
        versions={name: metadata.version(name) for name in PACKAGES},
    )


def _input(
    rows: NDArray[np.float32],
    train: NDArray[np.float32],
    chosen: ChosenRows,
    dataset: Dataset,
    reference: Split,
    seed: int,
) -> MetricInput:
    # copies: what one metric does to its rows is not what the next one gets
    return MetricInput(rows.copy(), chosen.reference.copy(), train, dataset, f"{dataset.name}/{reference}", seed)


def _take(plugin: MetricPlugin, label: str, data: MetricInput, skipped: dict[str, str]) -> list[Measurement]:
    """The measurements of one metric; where it cannot be taken none, and the reason in ``skipped``."""
    try:
        return plugin.evaluate(data)
    except (CapabilityError, NumericalError, ShapeError, ParameterError) as error:
        skipped[label] = str(error)
        return []


def _entry(measurement: Measurement, plugin: MetricPlugin) -> dict[str, Any]:
    return measurement_entry(measurement, plugin.outputs.get(measurement.metric, "neither"))


def _notes(samples: Samples, chosen: ChosenRows, reference: Split) -> list[str]:
    """What a reader must know of the choice of rows, beside the record of it."""
    notes = []
    if chosen.n < len(samples):
        notes.append(f"{chosen.n:,} of {len(samples):,} samples were drawn under the seed")
    if chosen.overlap.train:
        notes.append(f"{chosen.overlap.train:,} of {len(samples):,} samples equal training rows, value for value")
    if chosen.overlap.reference and reference != "train":
        notes.append(
            f"{chosen.overlap.reference:,} of {len(samples):,} samples are rows of {reference} themselves; "
            "such rows were left out of the reference"
        )
    if chosen.overlap.repeated:
        notes.append(f"{chosen.overlap.repeated:,} of {len(samples):,} samples repeat an earlier one")
    if chosen.floor is None:
        notes.append("no floor: the data set has too few rows left")
    return notes
