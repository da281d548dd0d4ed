import math

import numpy as np
import pandas as pd
import pytest

from kfpbench.store.results import results_frame

COLUMNS = [
    "cell",
    "index",
    "label",
    "kind",
    "status",
    "reason",
    "dataset",
    "reference",
    "score",
    "process",
    "sampler",
    "kernel",
    "operator",
    "eta",
    "time",
    "frame",
    "rank",
    "eigensolver",
    "backend",
    "device",
    "dtype",
    "seed",
    "repeat",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "unit",
    "better",
    "features",
    "features_version",
    "resize",
    "schema_version",
]


def test_one_row_per_cell_and_metric_with_the_named_columns(make_record):
    frame = results_frame([make_record("c1"), make_record("c0")])
    assert list(frame.columns) == [*COLUMNS, "axis:sampler.rank"]
    assert frame[["cell", "metric"]].values.tolist() == [
        ["c0", "energy_distance"],
        ["c0", "latency"],
        ["c1", "energy_distance"],
        ["c1", "latency"],
    ]


def test_a_row_holds_the_settings_of_its_cell(make_record):
    details = {"features": "pca", "features_version": "pca-64/1", "resize": "none", "k": 3}
    measured = {"metric": "energy_distance", "value": 0.1, "ci_low": 0.05, "ci_high": 0.2, "n": 1000}
    record = make_record("c4", repeat=2, measurements=[{**measured, "details": details}])
    row = results_frame([record]).iloc[0].to_dict()
    assert row == {
        "cell": "c4",
        "index": 4,
        "label": "koopman",
        "kind": "sample",
        "status": "ok",
        "reason": "",
        "dataset": "gmm_ring",
        "reference": "test",
        "score": "mixture",
        "process": "ve",
        "sampler": "koopman",
        "kernel": "rbf",
        "operator": "generator",
        "eta": 0.0,
        "time": "piecewise",
        "frame": "raw",
        "rank": 16,
        "eigensolver": "dense",
        "backend": "tiled",
        "device": "cpu",
        "dtype": "float64",
        "seed": 3,
        "repeat": 2,
        "metric": "energy_distance",
        "value": 0.1,
        "ci_low": 0.05,
        "ci_high": 0.2,
        "n": 1000,
        "unit": "",
        "better": "neither",
        "features": "pca",
        "features_version": "pca-64/1",
        "resize": "none",
        "schema_version": 1,
        "axis:sampler.rank": 16,
    }


def test_a_baseline_has_null_where_it_has_no_such_part(make_record):
    spec = {
        "data": {"name": "digits", "rank": 3, "time": "noon"},
        "sampler": {"name": "gaussian", "label": "gaussian"},
    }
    row = results_frame([make_record(spec=spec, axes={})]).iloc[0]
    missing = [
        "reference",
        "score",
        "process",
        "kernel",
        "operator",
        "eta",
        "time",
        "frame",
        "rank",
        "eigensolver",
        "backend",
        "dtype",
    ]
    assert row[missing].isna().all()
    assert row["sampler"] == "gaussian"


def test_a_spectrum_cell_names_its_parts(make_record):
    spectrum = {"name": "spectrum", "kernel": {"name": "rbf"}, "operator": {"eta": 1.0}, "rank": 6}
    row = results_frame([make_record(kind="spectrum", spec={"spectrum": spectrum})]).iloc[0]
    assert (row["kernel"], row["operator"], row["eta"], row["rank"]) == ("rbf", "generator", 1.0, 6)
    assert pd.isna(row["sampler"])


@pytest.mark.parametrize("status", ["skipped", "failed", "timeout"])
def test_a_cell_without_numbers_has_one_row_with_null_metric(make_record, status):
    frame = results_frame([make_record(status=status, reason="because", measurements=[]), make_record("c1")])
    row = frame[frame["cell"] == "c0"]
    assert len(row) == 1
    assert row[["metric", "value", "ci_low", "ci_high", "n", "unit", "better", "features"]].isna().all(axis=None)
    assert row.iloc[0][["status", "reason"]].tolist() == [status, "because"]
    assert (frame["metric"] == "latency").sum() == 1  # a null does not spoil a comparison


def test_types_do_not_depend_on_the_content(make_record):
    empty, full = results_frame([]), results_frame([make_record(axes={})])
    skipped = results_frame([make_record(status="skipped", reason="r", measurements=[], spec={}, axes={})])
    assert empty.dtypes.to_dict() == full.dtypes.to_dict() == skipped.dtypes.to_dict()


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2], "Int64", [1, 2]),
        ([1, 0.5], "float64", [1.0, 0.5]),
        ([True, False], "boolean", [True, False]),
        (["a", 1], "string", ["a", "1"]),
        ([True, 1], "string", ["true", "1"]),
        ([{"name": "rbf"}, [1, 2]], "string", ['{"name": "rbf"}', "[1, 2]"]),
        ([2**70, 1], "float64", [2.0**70, 1.0]),
        ([math.inf, 1], "float64", [math.inf, 1.0]),
    ],
)
def test_an_axis_column_has_the_type_of_its_values(make_record, values, dtype, expected):
    one = [{"metric": "m", "value": 0}]
    cells = [make_record(f"c{i}", axes={"a": value}, measurements=one) for i, value in enumerate(values)]
    cells.append(make_record("c9", axes={}, measurements=one))  # this one does not have the axis
    column = results_frame(cells)["axis:a"]
    assert column.dtype == dtype
    assert column.tolist()[:2] == expected
    assert pd.isna(column.iloc[2])


def test_a_retried_cell_replaces_its_failure(make_record):
    failed = make_record("c0", status="failed", reason="no luck", measurements=[])
    frame = results_frame([failed, make_record("c1"), make_record("c0")])
    assert (frame["status"] == "ok").all()
    assert len(frame) == 4


def test_infinite_values_are_kept(make_record):
    entries = [{"metric": "a", "value": -math.inf}, {"metric": "b", "value": math.nan}]
    assert np.array_equal(
        results_frame([make_record(measurements=entries)])["value"], [-math.inf, math.nan], equal_nan=True
    )
