from __future__ import annotations

import math

import pytest

from kfpbench.errors import SuiteError
from kfpbench.suite.yaml_source import MAX_DEPTH, MAX_NODES, parse_value, parse_yaml


def where(text: str) -> tuple[str | None, str]:
    """The place and the text of the error that a document gives."""
    with pytest.raises(SuiteError) as caught:
        parse_yaml(text, "f.yaml")
    return caught.value.where, str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-1E+5", -1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("12", 12),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("2001-01-01", "2001-01-01"),
        ("1:30", "1:30"),
        ("'1'", "1"),
        ("! 12", 12),
        ("!!str 12", "12"),
        ("!!float 3", 3.0),
        ("=", "="),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_value(text, "value")
    assert parsed == value
    assert type(parsed) is type(value)


def test_special_floats() -> None:
    assert math.isnan(parse_value(".NaN", "value"))
    assert parse_value("-.inf", "value") == -math.inf


def test_places_of_keys_and_values() -> None:
    source = parse_yaml("a: 1\nlist:\n  - x\n  - {b: 2}\n", "f.yaml")
    assert source.data == {"a": 1, "list": ["x", {"b": 2}]}
    assert source.places.where(("a",)) == "f.yaml:1:4"
    assert source.places.where(("a",), at_key=True) == "f.yaml:1:1"
    assert source.places.where(("list", 1, "b")) == "f.yaml:4:9"
    assert source.places.where(("list", 1, "b"), at_key=True) == "f.yaml:4:6"
    assert source.places.where(("list", 1, "c", "d")) == "f.yaml:4:5"  # the nearest that exists


def test_anchors_and_merge_keys() -> None:
    source = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}\nd: *a\n", "f.yaml")
    assert source.data["b"] == {"x": 1, "y": 3}
    assert source.data["c"] == {"x": 1, "y": 2, "z": 4}
    assert source.data["d"] == {"x": 1, "y": 2}
    assert source.places.where(("b", "x")) == "f.yaml:1:11"  # where it was written
    source.data["d"]["x"] = 9
    assert source.data["a"]["x"] == 1  # an alias is a copy


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", "f.yaml:1:1", "empty"),
        ("# only a comment\n", "f.yaml:1:1", "empty"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1", "duplicate key; the first is at f.yaml:1:1; got 'a'"),
        ("a: {b: 1, b: 2}", "f.yaml:1:11", "duplicate key"),
        ("a: [1\n", "f.yaml:2:1", "not valid YAML"),
        ("a: 1\n\tb: 2\n", "f.yaml:2:1", "not valid YAML"),
        ("a: 'x", "f.yaml:1:6", "not valid YAML"),
        ("a: 1\n2: b\n", "f.yaml:2:1", "a key must be text; got 2"),
        ("? [a]\n: b", "f.yaml:1:3", "a key must be text"),
        ("a: 1\n~: b\n", "f.yaml:2:1", "a key must be text"),
        ("a: &x [*x]", "f.yaml:1:4", "contains itself"),
        ("a: *x", "f.yaml:1:4", "unknown alias; got '*x'"),
        ("a: !!python/object:os.system x", "f.yaml:1:4", "tags are not allowed"),
        ("a: !local {}", "f.yaml:1:4", "tags are not allowed"),
        ("a: !!set {b}", "f.yaml:1:4", "tags are not allowed"),
        ("%YAML 1.1\n---\na: 1", "f.yaml:2:1", "YAML 1.2"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1", "one YAML document"),
        ("a: 1\nb: \x07", "f.yaml:2:4", "a character that YAML does not allow; got 'U+0007'"),
        ('a: "\\ud800"', "f.yaml:1:4", "cannot be read as str"),
        ('a: "\\UFFFFFFFF"', "f.yaml:1:2", "not valid YAML after this place"),
        ("a: " + "1" * 5000, "f.yaml:1:4", "more than 400 digits"),
        ("a: !!int x", "f.yaml:1:4", "cannot be read as int"),
        ("a: !!bool 1", "f.yaml:1:4", "neither true nor false"),
        ("a: {<<: 3}", "f.yaml:1:9", "`<<` needs a mapping"),
    ],
)
def test_faults_are_located(text: str, place: str, says: str) -> None:
    found, message = where(text)
    assert says in message
    assert found == place


def test_deep_nesting_is_refused_before_any_recursion() -> None:
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f.yaml")
    found, message = where("[" * 100_000)
    assert found == f"f.yaml:1:{MAX_DEPTH + 1}"
    assert "nested too deeply" in message


def test_aliases_may_not_nest_more_deeply_than_text() -> None:
    lines = ["a0: &a0 [[[[1]]]]"]
    lines += [f"a{i}: &a{i} [[[[*a{i - 1}]]]]" for i in range(1, 20)]
    _, message = where("\n".join(lines))
    assert "nested too deeply" in message


def test_billion_laughs() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    found, message = where("\n".join(lines))
    assert f"allowed: {MAX_NODES} nodes" in message
    assert found is not None
    assert found.startswith("f.yaml:1:")  # in the text that is repeated


def test_a_huge_text_is_refused() -> None:
    assert "too large" in where("a: " + "x" * 2**20)[1]
