"""The folder that a command writes its files into."""

from __future__ import annotations

from pathlib import Path

from kfpbench.errors import StoreError


def make_output_folder(path: Path) -> None:
    """Make the folder and those above it, where they are not there. Raises StoreError where a file is in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError("a file is where the folder should be", got=str(path), remedy="Name a folder.") from error
