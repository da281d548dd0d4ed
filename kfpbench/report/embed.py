"""Putting data and source into script elements, which they must not end, and names into plotly's labels."""

from __future__ import annotations

import base64
import gzip
import json
import math
import pkgutil
import re
from typing import Any

from kfpbench.errors import StoreError

# Every character with which a string could leave its script element or its line.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element; numbers get six significant digits, what is not finite is
    null.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def script_source(source: str) -> str:
    """JavaScript that cannot end its script element: inside its strings and expressions '<\\/' means '</'."""
    return re.sub("</(?=script)", r"<\\/", source, flags=re.IGNORECASE)


def packed(text: str) -> str:
    """The text as gzip in base64, which the page unpacks: a third of its length. The same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode("ascii")


def plotly_source() -> str:
    """plotly.js, read without an import of plotly's figures, which takes a second.

    Raises StoreError when the installed plotly has no such file.
    """
    try:
        content = pkgutil.get_data("plotly", "package_data/plotly.min.js")
    except (ImportError, OSError):
        content = None
    if content is None:
        remedy = "Install it again: pip install --force-reinstall plotly."
        raise StoreError("the installed plotly has no plotly.js", remedy=remedy)
    return content.decode()


def plotly_text(text: str) -> str:
    """Text that plotly shows as it is: it reads a small HTML in its labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
