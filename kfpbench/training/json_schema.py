"""The JSON Schema (draft 2020-12) of training files, with the parameters of every installed data set, for editors."""

from __future__ import annotations

from typing import Any

from kfpbench.protocols import KINDS
from kfpbench.suite.json_schema import DIALECT, Variant, define_kind, model_schema, reference_to
from kfpbench.training.options import KINDS as TRAINED


def training_json_schema() -> dict[str, Any]:
    """The schema of a training file, by its `kind`. With `include:` no key is required, since what is missing may come
    from there, the kind too.
    """
    definitions: dict[str, Any] = {}
    variants: tuple[Variant, Variant] = ("complete", "partial")
    for variant in variants:
        for kind in KINDS:  # a data set may have components of its own
            define_kind(definitions, variant, kind)
        for kind in TRAINED:
            definitions[f"{variant}.training.{kind}"] = _training(variant, kind)
    return {
        "$schema": DIALECT,
        "title": "kfpbench training file",
        "type": "object",
        "if": {"required": ["include"]},
        "then": {"if": {"required": ["kind"]}, "then": _by_kind("partial"), "else": {"anyOf": _all("partial")}},
        "else": _by_kind("complete"),
        "$defs": definitions,
    }


def _by_kind(variant: Variant) -> dict[str, Any]:
    classifier = {"required": ["kind"], "properties": {"kind": {"const": "classifier"}}}
    score, other = _all(variant)
    return {"if": classifier, "then": other, "else": score}


def _all(variant: Variant) -> list[dict[str, Any]]:
    return [{"$ref": f"#/$defs/{variant}.training.{kind}"} for kind in TRAINED]


def _training(variant: Variant, kind: str) -> dict[str, Any]:
    schema = model_schema(TRAINED[kind])
    properties = schema["properties"]
    properties["data"] = reference_to(variant, "datasets")
    properties["include"] = {"type": "array", "items": {"type": "string"}, "default": []}
    if variant == "partial":
        schema.pop("required", None)
    return schema
