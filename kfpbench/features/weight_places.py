"""Where extractors look for weights that do not come with the package, and what they say when there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kfpbench.cache.location import user_cache
from kfpbench.data.locations import DATA_DIR_VARIABLE, data_places
from kfpbench.errors import CapabilityError, DataError

_FOLDER = "weights"


def find_weights(
    features: str, names: Sequence[str], stated: str | None, *, more: Sequence[Path] = (), remedy: str
) -> Path:
    """The first file or folder of one of these names: ``stated`` alone, or in the places where weights may lie.

    Those are $KFPBENCH_DATA_DIR, its folder weights, the folder weights in the user's cache, and ``more``. Nothing is
    downloaded. Raises DataError where the stated path does not exist, CapabilityError with the places and ``remedy``
    where none of them has the weights.
    """
    if stated is not None:
        path = Path(stated).expanduser()
        if not path.exists():
            raise DataError(f"no weights of features {features} there", got=stated, remedy=remedy)
        return path
    for place in [*data_places(_FOLDER, None), *more]:
        for name in names:
            if (place / name).exists():
                return place / name
    raise CapabilityError(
        f"the weights of features {features} are not on this machine",
        allowed=f"{' or '.join(names)} in ${DATA_DIR_VARIABLE}/{_FOLDER} or {_shown(user_cache() / _FOLDER)}",
        remedy=f"{remedy} Nothing is downloaded.",
    )


def _shown(path: Path) -> str:
    """The path, with ~ for the home folder: errors are part of a run's records."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except ValueError:
        return str(path)
