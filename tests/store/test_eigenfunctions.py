from __future__ import annotations

import numpy as np
import pytest

from kfpbench.errors import StoreError
from kfpbench.store.eigenfunctions import FunctionGrid, read_function_grid, write_function_grid
from kfpbench.store.run_folder import RunFolder


def made(dimension: int, density: bool) -> FunctionGrid:
    rng = np.random.default_rng(0)
    axes = tuple(np.linspace(-1.0, 1.0, 5 + axis) for axis in range(dimension))
    shape = tuple(map(len, axes))
    return FunctionGrid(axes, (1, 3), rng.standard_normal((2, *shape)), rng.random(shape) if density else None)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("density", [False, True])
def test_a_grid_comes_back_in_single_precision(tmp_path, dimension, density):
    grid = made(dimension, density)
    folder = RunFolder.create(tmp_path / "run", {})
    files = folder.save_eigenfunctions("cell/1", grid)
    back = read_function_grid(folder.path / files["eigenfunctions"])
    assert files["eigenfunctions"].startswith("eigenfunctions/")
    assert "/1" not in files["eigenfunctions"].removeprefix("eigenfunctions/")  # the id does not leave the folder
    assert back.modes == grid.modes
    for ours, theirs in zip(back.axes, grid.axes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(back.values, grid.values, rtol=1e-6)
    assert (back.density is not None) is density
    if density:
        np.testing.assert_allclose(back.density, grid.density, rtol=1e-6)


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match="not a file of eigenfunctions"):
        read_function_grid(path)


def test_functions_must_fit_their_grid(tmp_path):
    path = tmp_path / "grid.npz"
    grid = made(1, False)
    write_function_grid(path, FunctionGrid(grid.axes, (1, 2, 3), grid.values))
    with pytest.raises(StoreError, match="do not fit"):
        read_function_grid(path)
