"""What the models of suites share: strictness, and the patterns of names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

SLUG = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LABEL = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"  # no dot: labels are parts of dotted paths


class StrictModel(BaseModel):
    """Unknown keys, NaN, infinity, and one type in place of another are refused; an integer may stand for a
    float.

    Validate with ``model_validate_json``: strict JSON mode accepts a list for a tuple, and nothing else
    that is lax.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
        protected_namespaces=(),
    )
