"""The JSON Schema (draft 2020-12) of training files, with the parameters of every installed data set, for editors."""

from __future__ import annotations

from typing import Any

from kfpbench.protocols import KINDS
from kfpbench.suite.json_schema import DIALECT, Variant, define_kind, model_schema, reference_to
from kfpbench.training.options import TrainingOptions


def training_json_schema() -> dict[str, Any]:
    """The schema of a training file. With `include:` no key is required, since what is missing may come from there."""
    definitions: dict[str, Any] = {}
    variants: tuple[Variant, Variant] = ("complete", "partial")
    for variant in variants:
        for kind in KINDS:  # a data set may have components of its own
            define_kind(definitions, variant, kind)
        definitions[f"{variant}.training"] = _training(variant)
    return {
        "$schema": DIALECT,
        "title": "kfpbench training file",
        "type": "object",
        "if": {"required": ["include"]},
        "then": {"$ref": "#/$defs/partial.training"},
        "else": {"$ref": "#/$defs/complete.training"},
        "$defs": definitions,
    }


def _training(variant: Variant) -> dict[str, Any]:
    schema = model_schema(TrainingOptions)
    properties = schema["properties"]
    properties["data"] = reference_to(variant, "datasets")
    properties["include"] = {"type": "array", "items": {"type": "string"}, "default": []}
    if variant == "partial":
        schema.pop("required", None)
    return schema
