"""The JSON Schema (draft 2020-12) of suites, with the parameters of every installed component, for editors.

A suite that has neither `include:` nor `grid:` stands alone, and its required keys are required here too.
With one of them, what is missing may come from elsewhere, so that every definition exists twice: `complete`
and `partial`.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import CoreSchema

from kfpbench.errors import PluginError
from kfpbench.protocols import KINDS
from kfpbench.registry import available
from kfpbench.suite.components import PLACE_KEYS, reference_problems, spectrum_entry
from kfpbench.suite.schema import COMPONENT_FIELDS, COMPONENT_LISTS, DYNAMICS, SuiteModel
from kfpbench.suite.signature import Nested, Signature, read_signature

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Variant = Literal["complete", "partial"]


def suite_json_schema() -> dict[str, Any]:
    """The schema of a suite file. A component that cannot be imported accepts anything, and says why."""
    definitions: dict[str, Any] = {}
    variants: tuple[Variant, Variant] = ("complete", "partial")
    for variant in variants:
        for kind in KINDS:
            define_kind(definitions, variant, kind)
        for kind in PLACE_KEYS:
            define_kind(definitions, variant, kind, in_place=True)
        definitions[f"{variant}.suite"] = _suite(variant)
    reads_elsewhere = {"anyOf": [{"required": ["include"]}, {"required": ["grid"]}]}
    return {
        "$schema": DIALECT,
        "title": "kfpbench suite",
        "type": "object",
        "if": reads_elsewhere,
        "then": {"$ref": "#/$defs/partial.suite"},
        "else": {"$ref": "#/$defs/complete.suite"},
        "$defs": definitions,
    }


def _suite(variant: Variant) -> dict[str, Any]:
    schema = model_schema(SuiteModel)
    properties = schema["properties"]
    for key, kind in COMPONENT_FIELDS.items():
        one = reference_to(variant, kind, in_place=kind in PLACE_KEYS)
        properties[key] = {"anyOf": [one, {"type": "null"}], "default": None} if key in DYNAMICS else one
    for key, kind in COMPONENT_LISTS.items():
        items = reference_to(variant, kind, in_place=kind in PLACE_KEYS)
        properties[key] = {"type": "array", "items": items, "default": []}
    if variant == "partial":
        schema.pop("required", None)
        for key in ("claim", "study"):
            for branch in properties[key]["anyOf"]:
                branch.pop("required", None)
    else:
        some = [{"required": [key], "properties": {key: {"minItems": 1}}} for key in ("samplers", "spectrum")]
        schema["allOf"] = [{"anyOf": some}, {"anyOf": [_given_dynamics(), _own_dynamics()]}]
    return schema


def _given_dynamics() -> dict[str, Any]:
    """A score and a process, which every sampler needs."""
    return {"required": list(DYNAMICS), "properties": {key: {"not": {"type": "null"}} for key in DYNAMICS}}


def _own_dynamics() -> dict[str, Any]:
    """Neither, where all entries are spectra and the data set has dynamics of its own."""
    names = {"enum": reference_problems()}
    block = {"type": "object", "properties": {"name": names}, "required": ["name"]}
    absent: dict[str, Any] = {key: {"type": "null"} for key in DYNAMICS}
    return {"properties": {**absent, "data": {"anyOf": [names, block]}, "samplers": {"maxItems": 0}}}


def reference_to(variant: Variant, kind: str, *, in_place: bool = False) -> dict[str, Any]:
    """A reference to what ``define_kind`` has defined."""
    return {"$ref": f"#/$defs/{variant}.{kind}{'.in_place' if in_place else ''}"}


def define_kind(definitions: dict[str, Any], variant: Variant, kind: str, *, in_place: bool = False) -> None:
    """Define a kind: one of its components, by name alone or as a block, discriminated by `name`.

    ``in_place`` adds the keys that a block has by its place in the suite. Nested components refer to the definitions of
    their kinds, which must be made too.
    """
    base = f"{variant}.{kind}{'.in_place' if in_place else ''}"
    place = copy.deepcopy(model_schema(PLACE_KEYS[kind])["properties"]) if in_place else {}
    if kind == "spectrum":
        definitions[base] = _component(variant, kind, None, place)
        return
    names = list(available(kind))
    for name in names:
        definitions[f"{base}.{name}"] = _component(variant, kind, name, place)
    choices = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {"$ref": f"#/$defs/{base}.{name}"},
        }
        for name in names
    ]
    block: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"enum": names}, **place},
        "allOf": choices,
    }
    if variant == "complete":
        block["required"] = ["name"]
    definitions[base] = {"anyOf": [{"enum": names}, block]}


def _component(variant: Variant, kind: str, name: str | None, place: dict[str, Any]) -> dict[str, Any]:
    entry = spectrum_entry() if name is None else available(kind)[name]
    try:
        signature = read_signature(entry.load())
        schema = _parameters(variant, signature)
    except PluginError as error:
        return {"type": "object", "description": f"Not checked: {error.what}"}
    schema["title"] = name or kind
    schema["description"] = " ".join((signature.component.__doc__ or "").strip().split("\n\n")[0].split())
    own = {} if name is None else {"name": {"const": name}}
    schema["properties"] = {**own, **place, **schema["properties"]}
    return schema


def _parameters(variant: Variant, signature: Signature) -> dict[str, Any]:
    """The parameters of one class; nested components refer to the definition of their kind."""
    schema = model_schema(signature.model)
    properties = schema.setdefault("properties", {})
    for name, nested in signature.nested.items():
        properties[name] = _nested(variant, nested)
    if variant == "partial":
        schema.pop("required", None)
    return schema


def _nested(variant: Variant, nested: Nested) -> dict[str, Any]:
    if nested.kind is not None:
        schema = reference_to(variant, nested.kind)
    else:
        assert nested.options is not None  # Nested has one or the other
        schema = _parameters(variant, read_signature(nested.options))
    if nested.many:
        schema = {"type": "array", "items": schema}
    if nested.optional:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema if nested.required else {**schema, "default": nested.default}


class _Inlined(GenerateJsonSchema):
    """Pydantic's schemas; values that JSON has no word for (an infinite default) are left out."""

    def encode_default(self, dft: Any) -> Any:
        value = super().encode_default(dft)
        return None if isinstance(value, float) and not abs(value) < float("inf") else value

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        return _inline(super().generate(schema, mode))


def model_schema(model: type[Any]) -> dict[str, Any]:
    """The schema of a pydantic model without definitions of its own: they are put where they are used."""
    schema: dict[str, Any] = model.model_json_schema(schema_generator=_Inlined)
    return schema


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its own definitions put where they are used, so that those of several models cannot
    clash."""
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, dict):
            target = part.get("$ref", "")
            if isinstance(target, str) and target.startswith("#/$defs/"):
                rest = {key: resolve(value) for key, value in part.items() if key != "$ref"}
                return {**resolve(definitions[target.removeprefix("#/$defs/")]), **rest}
            return {key: resolve(value) for key, value in part.items()}
        return [resolve(item) for item in part] if isinstance(part, list) else part

    inlined: dict[str, Any] = resolve(schema)
    return inlined
