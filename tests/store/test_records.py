import json
import math
from datetime import datetime, timedelta

import pytest

from kfpbench.errors import StoreError
from kfpbench.protocols import Measurement
from kfpbench.store.records import SCHEMA_VERSION, CellRecord, measurement_entry, utc_now


def test_nan_and_infinity_survive(make_record):
    entries = [{"metric": "frechet", "value": math.nan, "ci_low": -math.inf, "ci_high": math.inf}]
    back = CellRecord.from_json(make_record(measurements=entries).to_json()).measurements[0]
    assert math.isnan(back["value"])
    assert (back["ci_low"], back["ci_high"]) == (-math.inf, math.inf)


def test_measurement_entry_takes_every_field_of_a_measurement(make_record):
    measurement = Measurement("kid", 0.5, 0.25, 0.75, n=100, unit="u", details={"features": "pca"})
    (entry,) = make_record(measurements=[measurement_entry(measurement, "lower")]).measurements
    assert entry == {
        "metric": "kid",
        "value": 0.5,
        "ci_low": 0.25,
        "ci_high": 0.75,
        "n": 100,
        "unit": "u",
        "better": "lower",
        "details": {"features": "pca"},
    }


def test_a_record_does_not_share_its_values_with_the_caller(make_record):
    axes = {"rank": [1]}
    record = make_record(axes=axes)
    axes["rank"].append(2)
    assert record.axes == {"rank": [1]}
    assert make_record().measurements[0]["details"] is not make_record().measurements[1]["details"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "fine"}, "ok, skipped, failed, timeout"),
        ({"status": "failed"}, "reason"),
        ({"cell": ""}, "cell"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"index": True}, "index"),
        ({"index": 1.0}, "index"),
        ({"label": None}, "label"),
        ({"seconds": "1"}, "seconds"),
        ({"axes": []}, "axes"),
        ({"started": "yesterday"}, "UTC"),
        ({"started": "2026-01-31T12:00:00"}, "UTC"),
        ({"finished": "2026-01-31T12:00:00+02:00"}, "UTC"),
        ({"details": {"f": print}}, r"details\.f"),
        ({"measurements": [{"metric": "m", "value": None}]}, r"measurements\.m\.value"),
        ({"measurements": [{"metric": "m", "value": 1, "n": 1.5}]}, r"measurements\.m\.n"),
        ({"measurements": [{"metric": "m", "value": 1, "better": "more"}]}, "lower, higher, neither"),
        ({"measurements": [{"metric": "m", "value": 1, "ci": 2}]}, "ci_low"),
        ({"measurements": [{"value": 1}]}, "metric"),
        ({"measurements": [{"metric": "m", "value": 1}] * 2}, "each metric once"),
        ({"schema_version": SCHEMA_VERSION + 1}, "newer schema_version"),
    ],
)
def test_an_impossible_record_is_refused(make_record, changes, message):
    with pytest.raises(StoreError, match=message):
        make_record(**changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=SCHEMA_VERSION + 1, novelty=1), "Upgrade kfpbench"),
        (lambda c: c.pop("schema_version"), "schema_version"),
        (lambda c: c.update(novelty=1), "unknown fields"),
        (lambda c: c.pop("status"), "lacks fields"),
    ],
)
def test_a_line_of_another_form_is_refused(make_record, change, message):
    content = json.loads(make_record().to_json())
    change(content)
    with pytest.raises(StoreError, match=message):
        CellRecord.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", b"\xff"])
def test_what_is_not_a_record_is_refused(text):
    with pytest.raises(StoreError):
        CellRecord.from_json(text)


def test_utc_now_is_utc():
    assert datetime.fromisoformat(utc_now()).utcoffset() == timedelta(0)
