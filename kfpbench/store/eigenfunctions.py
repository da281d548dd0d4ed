"""Eigenfunctions on a grid, for figures: one small npz a spectrum cell of one or two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import StoreError
from kfpbench.store.atomic import atomic_path


@dataclass(frozen=True)
class FunctionGrid:
    """Real parts of eigenfunctions on a tensor grid.

    ``axes`` are the coordinates of the grid, (n,) each, one or two; ``modes`` the places of the functions in the list
    of eigenvalues, from 0; ``values`` (k, n) or (k, n_1, n_2); ``density`` (n,) or (n_1, n_2), None where not known.
    """

    axes: tuple[NDArray[np.float64], ...]
    modes: tuple[int, ...]
    values: NDArray[np.float64]
    density: NDArray[np.float64] | None = None


def write_function_grid(path: Path, grid: FunctionGrid) -> None:
    """Write the grid atomically as float32: keys axis_1 (and axis_2), modes, values, and density where there is one."""
    arrays = {f"axis_{number}": axis.astype(np.float32) for number, axis in enumerate(grid.axes, start=1)}
    arrays |= {"modes": np.array(grid.modes, dtype=np.int64), "values": grid.values.astype(np.float32)}
    if grid.density is not None:
        arrays["density"] = grid.density.astype(np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # its stub takes allow_pickle for any key


def read_function_grid(path: Path) -> FunctionGrid:
    """The grid that `write_function_grid` wrote. Raises StoreError for anything else."""
    from zipfile import BadZipFile

    try:
        with np.load(path, allow_pickle=False) as content:
            names = [name for name in ("axis_1", "axis_2") if name in content]
            axes = tuple(content[name].astype(np.float64) for name in names)
            modes = tuple(content["modes"].tolist())
            values = content["values"].astype(np.float64)
            density = content["density"].astype(np.float64) if "density" in content else None
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise StoreError(f"not a file of eigenfunctions: {error}", where=str(path)) from error
    if not axes or values.shape != (len(modes), *map(len, axes)):
        raise StoreError("eigenfunctions do not fit their grid", got=values.shape, where=str(path))
    return FunctionGrid(axes, modes, values, density)
