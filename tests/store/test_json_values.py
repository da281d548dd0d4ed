import json
import math
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from kfpbench.errors import StoreError
from kfpbench.store.json_values import dumps, loads, plain


def test_nonfinite_numbers_are_tagged():
    assert json.loads(dumps([math.nan, math.inf, -math.inf])) == [
        {"$float": "nan"},
        {"$float": "inf"},
        {"$float": "-inf"},
    ]


def test_arrays_paths_and_members_become_plain():
    class Colour(Enum):
        RED = "red"

    given_values = {
        "f32": np.float32(0.1),
        "i": np.int64(3),
        "b": np.bool_(True),
        "a": np.arange(4).reshape(2, 2),
        "c": np.array([1 + 2j]),
        "t": (1, 2),
        "p": Path("a") / "b",
        "e": Colour.RED,
        7: "integer key",
    }
    expected = {
        "f32": float(np.float32(0.1)),
        "i": 3,
        "b": True,
        "a": [[0, 1], [2, 3]],
        "c": [1 + 2j],
        "t": [1, 2],
        "p": str(Path("a") / "b"),
        "e": "red",
        "7": "integer key",
    }
    assert plain(given_values) == expected
    assert json.dumps(plain({**given_values, "c": None}))  # nothing of numpy is left


@pytest.mark.parametrize(
    "bad", [object(), {1, 2}, b"bytes", np.datetime64("2020-01-01"), np.longdouble(1), np.array([object()])]
)
def test_what_cannot_be_stored_is_refused_with_its_place(bad):
    with pytest.raises(StoreError, match=r"details\.deep\[1\]"):
        plain({"deep": [1, bad]}, "details")


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "{", "", "[1,]", '{"$float": "many"}', '{"$complex": 3}', '{"$float": []}']
)
def test_what_is_not_strict_json_is_refused(text):
    with pytest.raises(StoreError, match="strict JSON"):
        loads(text)
