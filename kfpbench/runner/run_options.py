"""The options that the verbs `run` and `spectrum` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfpbench.runner.executor_options import ExecutorOptions


@dataclass(frozen=True)
class RunOptions:
    """What runs, into which folder, where, and what is shown of it."""

    executor: ExecutorOptions
    out: Path | None = None
    overrides: Sequence[str] = ()
    select: Sequence[str] = ()
    allow_plugins: bool = False
    retry_failed: bool = False
    force: bool = False
    no_cache: bool = False
    dry_run: bool = False
    as_json: bool = False
    verbosity: int = 0
    log_file: Path | None = None
    debug: bool = False
    profile: bool = False
