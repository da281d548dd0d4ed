import json
import math
import struct
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfpbench.store.json_values import dumps, loads
from kfpbench.store.records import CellRecord

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.complex_numbers()
keys = st.text() | st.sampled_from(["$float", "$complex", "$", "$$float"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def same(a, b):
    """Equal with equal types, floats bit for bit (any NaN equals any NaN)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b


names = st.text(min_size=1)
integers = st.integers(0, 2**63 - 1)
numbers = st.floats()
entries = st.fixed_dictionaries(
    {"metric": names, "value": numbers},
    optional={
        "ci_low": st.none() | numbers,
        "ci_high": st.none() | numbers,
        "n": st.none() | integers,
        "unit": st.text(),
        "better": st.sampled_from(["lower", "higher", "neither"]),
        "details": st.dictionaries(keys, values, max_size=2),
    },
)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.isoformat() + "+00:00")
mappings = st.dictionaries(keys, values, max_size=3)
records = st.builds(
    CellRecord,
    cell=names,
    index=integers,
    label=st.text(),
    kind=st.text(),
    status=st.sampled_from(["ok", "skipped", "failed", "timeout"]),
    reason=names,
    started=times,
    finished=times,
    axes=mappings,
    spec=mappings,
    seed=integers,
    repeat=integers,
    seconds=numbers,
    measurements=st.lists(entries, max_size=3, unique_by=lambda entry: entry["metric"]),
    phases=st.dictionaries(names, numbers, max_size=3),
    files=st.dictionaries(names, st.text(), max_size=2),
    details=mappings,
    device=st.text(),
    backend=st.text(),
    traceback=st.text(),
)


@settings(max_examples=60, deadline=None)
@given(values)
def test_a_value_comes_back_exactly(value):
    text = dumps(value)
    assert same(loads(text), value)
    assert "\n" not in text
    assert text.isascii()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records)
def test_a_record_comes_back_exactly(record):
    line = record.to_json()
    assert "\n" not in line
    assert same(vars(CellRecord.from_json(line)), vars(record))
    assert same(vars(CellRecord.from_json(line.encode())), vars(record))
