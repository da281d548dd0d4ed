"""The digits in every form in which samples are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.data.digits import Digits


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return Digits().load()


@pytest.fixture
def picture_folder(tmp_path: Path) -> Callable[..., Path]:
    def write(images: NDArray[np.uint8], name: str = "pictures", start: int = 0) -> Path:
        """PNG files of images (n, H, W) or (n, H, W, C), numbered without leading zeros."""
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for number, image in enumerate(images, start):
            PIL.Image.fromarray(image).save(folder / f"img{number}.png")
        return folder

    return write
