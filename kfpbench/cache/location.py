"""Where kfpbench keeps what it can make or fetch again, and how large the cache of results may grow."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kfpbench.errors import ParameterError

CACHE_DIR_VARIABLE = "KFPBENCH_CACHE_DIR"
MAX_SIZE_VARIABLE = "KFPBENCH_CACHE_MAX_SIZE"
DEFAULT_MAX_SIZE = "20GiB"

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def user_cache() -> Path:
    """The user's cache folder for kfpbench, not created here. A relative XDG_CACHE_HOME does not count."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(stated) if stated and Path(stated).is_absolute() else Path.home() / ".cache"
    return root / "kfpbench"


def cache_folder() -> Path:
    """``KFPBENCH_CACHE_DIR``, else ``results`` in the user's cache for kfpbench. Not created here."""
    stated = os.environ.get(CACHE_DIR_VARIABLE, "")
    return Path(stated).expanduser().absolute() if stated else user_cache() / "results"


def largest_size() -> int:
    """Bytes to which the cache is cut after a run: ``KFPBENCH_CACHE_MAX_SIZE``, else 20 GiB. Raises ParameterError."""
    return parse_size(os.environ.get(MAX_SIZE_VARIABLE, "") or DEFAULT_MAX_SIZE)


def parse_size(text: str) -> int:
    """Bytes of ``500MB``, ``2GiB``, ``2G`` or ``1000``. Raises ParameterError."""
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    if match is None or match[2].lower() not in _UNITS:
        raise ParameterError("not a size", got=text, allowed="a number and a unit, as in 500MB, 2GiB or 0")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_age(text: str) -> float:
    """Seconds of ``30d``, ``12h``, ``2w``. Raises ParameterError."""
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smhdw])\s*", text, re.IGNORECASE)
    if match is None:
        raise ParameterError("not an age", got=text, allowed="a number and s, m, h, d or w, as in 12h or 30d")
    return float(match[1]) * _AGES[match[2].lower()]
