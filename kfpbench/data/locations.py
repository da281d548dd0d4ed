"""Where data files are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from kfpbench.cache.location import user_cache

DATA_DIR_VARIABLE = "KFPBENCH_DATA_DIR"


def data_places(name: str, data_dir: str | None) -> list[Path]:
    """The folders in which to look for the data set ``name``, in order.

    A stated ``data_dir`` is the only place, so that a mistyped one is an error and never another copy of
    the data.
    """
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    places = []
    stated = os.environ.get(DATA_DIR_VARIABLE, "")
    if stated:
        folder = Path(stated).expanduser()
        places += [folder, folder / name]
    return [*places, user_cache() / name]
