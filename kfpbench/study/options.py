"""The options that the verbs of `kfpbench study` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StudyOptions:
    """Which study of a suite: its folder, its storage and its name there; None is the default of each."""

    out: Path | None = None
    storage: str | None = None
    name: str | None = None
    overrides: Sequence[str] = ()
    allow_plugins: bool = False
