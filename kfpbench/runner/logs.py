"""Where kfpbench's log goes: nowhere by default; to the console with ``-v``, to a file with ``--log-file``.

Modules log to ``logging.getLogger(__name__)``, so below the logger "kfpbench": INFO for what a run does (suites, data,
cells with their phases), DEBUG for the phases as they begin and for hits of caches, WARNING for failures and for what
Python's ``warnings`` say. A program that uses kfpbench as a library attaches handlers of its own.
"""

from __future__ import annotations

import logging
import platform
import shlex
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kfpbench import __version__
from kfpbench.errors import StoreError
from kfpbench.runner.environment import PACKAGES

if TYPE_CHECKING:
    from rich.console import Console

_ROOT = "kfpbench"
_log = logging.getLogger(__name__)


class _Printable(logging.Formatter):
    """Lines with time (UTC), level and module; control characters of a stranger's message become question marks."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)


class _ConsoleHandler(logging.Handler):
    """Prints through a rich console, which keeps a progress bar below what is printed."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), markup=False, highlight=False, emoji=False, soft_wrap=True)


@contextmanager
def logging_to(
    console: Console, *, verbosity: int = 0, file: Path | None = None, command: Sequence[str] = ()
) -> Iterator[None]:
    """Send the log of the block to the console (``verbosity`` 1: INFO, 2: DEBUG) and, with DEBUG, to a file.

    The file is appended to; its first lines of each command are versions and the command. Raises StoreError for a file
    that cannot be written.
    """
    handlers: list[logging.Handler] = []
    if verbosity:
        handlers.append(_ConsoleHandler(console))
        handlers[0].setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
    if file is not None:
        handlers.append(_file_handler(file, command))
    if not handlers:
        yield
        return
    root = logging.getLogger(_ROOT)
    level = root.level
    root.setLevel(logging.DEBUG)
    for handler in handlers:
        handler.setFormatter(_Printable())
        root.addHandler(handler)
    try:
        with _logged_warnings(shown=not verbosity):
            yield
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


@contextmanager
def _logged_warnings(*, shown: bool) -> Iterator[None]:
    """Python's warnings become lines of the log; ``shown``: they appear on standard error as before, too."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        _log.warning("%s: %s (%s:%d)", category.__name__, message, Path(filename).name, lineno)
        if shown:
            before(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _file_handler(file: Path, command: Sequence[str]) -> logging.Handler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(_head(command))
        return logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StoreError(
            f"the log file cannot be written: {error.strerror}",
            got=str(file),
            remedy="Name another file with --log-file.",
        ) from error


def _head(command: Sequence[str]) -> str:
    versions = []
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    return (
        f"# kfpbench {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"# {', '.join(versions)}\n"
        f"# {shlex.join(command)}\n"
    )
