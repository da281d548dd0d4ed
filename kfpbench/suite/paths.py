"""Dotted paths into a suite, as grids and overrides use them: ``samplers.spectral.operator.eta``."""

from __future__ import annotations

import copy
from typing import Any

from kfpbench.errors import PluginError, UnknownComponentError
from kfpbench.suite.components import PLACE_KEYS, component_entry
from kfpbench.suite.problems import Path, Problem, closest, dotted
from kfpbench.suite.schema import COMPONENT_FIELDS, COMPONENT_LISTS, NESTED_KEYS, SuiteModel
from kfpbench.suite.signature import Signature, read_signature
from kfpbench.suite.study_schema import STUDY_KEYS


class PathError(Exception):
    """A dotted path that leads nowhere; carries the problem, which the caller locates."""

    def __init__(self, what: str, **parts: Any) -> None:
        super().__init__(what)
        self.problem = Problem((), what, **parts)


def label_of(entry: object, kind: str) -> str | None:
    """The label of a `samplers:` or `spectrum:` entry: its own, or else its component's name."""
    if not isinstance(entry, dict):
        return None
    label = entry.get("label")
    if label is None:
        label = "spectrum" if kind == "spectrum" else entry.get("name")
    return label if isinstance(label, str) else None


def set_path(document: dict[str, Any], text: str, value: Any) -> Path:
    """Set a value in a suite document, in place; returns where it was set, list positions in place of labels.

    Nested blocks that the document leaves to their defaults are written out as far as the path goes. Raises
    PathError when the path does not exist in the schema, or in the parameters of the component that stands
    there.
    """
    parts = text.split(".")
    head, rest = parts[0], parts[1:]
    if head not in SuiteModel.model_fields:
        known = list(SuiteModel.model_fields)
        raise PathError("unknown path", got=text, allowed=", ".join(known), remedy=closest(head, known))
    if not rest:
        document[head] = value
        return (head,)
    if head == "grid":
        table = _mapping(document, head, head)
        table[".".join(rest)] = value
        return (head, ".".join(rest))
    if head == "study":
        return (head, *_set_in_study(_mapping(document, head, head), rest, value, text))
    if head in NESTED_KEYS:
        _check_known(rest[0], list(NESTED_KEYS[head]), text, head)
        if len(rest) > 1:
            raise PathError("the path goes on below a single value", got=text)
        _mapping(document, head, head)[rest[0]] = value
        return (head, rest[0])
    if head in COMPONENT_FIELDS:
        block = _block(document, head, None, head)
        return (head, *_set_in_component(COMPONENT_FIELDS[head], block, rest, value, text, head, True))
    if head in COMPONENT_LISTS:
        return _set_in_list(document, head, rest, value, text)
    raise PathError("the path goes on below a single value", got=text, allowed=head)


def _set_in_study(study: dict[str, Any], rest: list[str], value: Any, text: str) -> Path:
    """Into the study; what follows `space` is one key, a dotted path itself, and its parameter is set as a whole."""
    _check_known(rest[0], list(NESTED_KEYS["study"]), text, "study")
    if len(rest) == 1:
        study[rest[0]] = value
        return (rest[0],)
    if rest[0] == "space":
        table, key = _mapping(study, "space", "study.space"), ".".join(rest[1:])
        table[key] = value
        return ("space", key)
    if rest[0] not in STUDY_KEYS or len(rest) > 2:
        raise PathError("the path goes on below a single value", got=text)
    _check_known(rest[1], list(STUDY_KEYS[rest[0]]), text, f"study.{rest[0]}")
    _block(study, rest[0], None, f"study.{rest[0]}")[rest[1]] = value
    return (rest[0], rest[1])


def _set_in_list(document: dict[str, Any], head: str, rest: list[str], value: Any, text: str) -> Path:
    entries = document.get(head, [])
    if not isinstance(entries, list):
        raise PathError(f"{head} is not a list", got=text)
    kind = COMPONENT_LISTS[head]
    labels = [label_of(entry, kind) for entry in entries]
    if rest[0] not in labels:
        known = [label for label in labels if label]
        raise PathError(
            f"no entry of {head} has that label",
            got=text,
            allowed=", ".join(dotted((head, label)) for label in known) or "none, the list is empty",
            remedy=closest(rest[0], known, under=head),
        )
    index = labels.index(rest[0])
    if len(rest) == 1:
        entries[index] = {"name": value} if isinstance(value, str) else value
        # a whole block that is put in place of another one goes by the other one's label
        if isinstance(entries[index], dict) and head != "metrics":
            entries[index] = {**entries[index], "label": rest[0]}
        return (head, index)
    block = _block(entries, index, None, f"{head}.{rest[0]}")
    at = f"{head}.{rest[0]}"
    return (head, index, *_set_in_component(kind, block, rest[1:], value, text, at, head != "metrics"))


def _set_in_component(
    kind: str, block: dict[str, Any], rest: list[str], value: Any, text: str, at: str, in_place: bool
) -> Path:
    by_place = list(PLACE_KEYS[kind].model_fields) if in_place and kind in PLACE_KEYS else []
    head = [] if kind == "spectrum" else ["name"]
    if len(rest) == 1 and rest[0] in (*head, *by_place):
        block[rest[0]] = value
        return (rest[0],)
    try:
        signature = read_signature(component_entry(kind, str(block.get("name"))).load())
    except (UnknownComponentError, PluginError):
        return _set_blindly(block, rest, value)  # the check of the block reports the component
    return _set_in_parameters(signature, block, rest, value, text, at, [*head, *by_place])


def _set_in_parameters(
    signature: Signature,
    block: dict[str, Any],
    rest: list[str],
    value: Any,
    text: str,
    at: str,
    also: list[str],
) -> Path:
    key = rest[0]
    _check_known(key, [*also, *signature.names], text, at)
    if len(rest) == 1:
        block[key] = value
        return (key,)
    nested = signature.nested.get(key)
    if nested is None:
        if isinstance(block.get(key), dict):
            return (key, *_set_blindly(block[key], rest[1:], value))
        raise PathError(f"{at}.{key} is a single value, and the path goes on below it", got=text)
    below = f"{at}.{key}"
    if nested.many:
        return (key, *_set_in_sequence(nested.kind, block, key, rest[1:], value, text, below))
    child = _block(block, key, nested.default, below)
    if nested.kind is not None:
        return (key, *_set_in_component(nested.kind, child, rest[1:], value, text, below, False))
    assert nested.options is not None  # Nested has one or the other
    options = read_signature(nested.options)
    return (key, *_set_in_parameters(options, child, rest[1:], value, text, below, []))


def _set_in_sequence(
    kind: str | None, block: dict[str, Any], key: str, rest: list[str], value: Any, text: str, at: str
) -> Path:
    """Into a list of nested components, by position."""
    items = block.get(key)
    if not isinstance(items, list) or not rest[0].isdecimal() or int(rest[0]) >= len(items):
        count = len(items) if isinstance(items, list) else 0
        allowed = f"{at}.0 to {at}.{count - 1}" if count else "none, the list is empty"
        raise PathError("no such position in the list", got=text, allowed=allowed)
    index = int(rest[0])
    if len(rest) == 1:
        items[index] = value
        return (index,)
    child = _block(items, index, None, f"{at}.{index}")
    if kind is None:
        return (index, *_set_blindly(child, rest[1:], value))
    return (index, *_set_in_component(kind, child, rest[1:], value, text, f"{at}.{index}", False))


def _set_blindly(block: dict[str, Any], rest: list[str], value: Any) -> Path:
    """Set a path whose parameters are not known."""
    for key in rest[:-1]:
        block = block.setdefault(key, {}) if isinstance(block.get(key, {}), dict) else {}
    block[rest[-1]] = value
    return tuple(rest)


def _block(container: Any, key: str | int, default: Any, at: str) -> dict[str, Any]:
    """The mapping at ``container[key]``, to be changed in place; a name or a default becomes a mapping."""
    present = isinstance(key, int) or key in container
    value = container[key] if present else default
    if isinstance(value, str):
        value = {"name": value}
    elif value is None and not present:
        value = {}
    if not isinstance(value, dict):
        shown = "null" if value is None else "not a mapping"
        raise PathError(f"{at} is {shown}, so nothing below it can be set", remedy="Set the whole block.")
    container[key] = value if present else copy.deepcopy(value)
    block: dict[str, Any] = container[key]
    return block


def _mapping(document: dict[str, Any], key: str, at: str) -> dict[str, Any]:
    value = document.setdefault(key, {})
    if not isinstance(value, dict):
        raise PathError(f"{at} is not a mapping")
    return value


def _check_known(key: str, known: list[str], text: str, at: str) -> None:
    if key not in known:
        allowed = ", ".join(dotted((at, name)) for name in known) or "none"
        raise PathError("unknown path", got=text, allowed=allowed, remedy=closest(key, known, under=at))
