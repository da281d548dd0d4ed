from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from kfpbench.errors import ShapeError
from kfpbench.store.pair_grid import LEAST_WIDTH, LINE, pair_picture
from kfpbench.store.sample_grid import GAP, GAP_LEVEL


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 32, 32), (3, 70, 70), (1, 16, 4)])
def test_every_pixel_is_where_it_belongs(channels, height, width):
    levels = np.random.default_rng(0).integers(0, 255, size=(2, 3, channels, height, width))
    above, below = levels / 127.5 - 1
    picture = np.asarray(Image.open(io.BytesIO(pair_picture(above, below, [("a", "b")] * 3))))
    scale = max(1, 64 // max(height, width))
    high, wide = scale * height, scale * width
    column = max(wide, LEAST_WIDTH)
    assert picture.shape == (3 * GAP + 2 * high + 2 * LINE, GAP + 3 * (column + GAP), 3)
    for row in range(2):
        for i in range(3):
            top, left = GAP + row * (high + GAP), GAP + i * (column + GAP) + (column - wide) // 2
            shown = picture[top : top + high, left : left + wide].transpose(2, 0, 1)
            wanted = levels[row, i].repeat(scale, axis=1).repeat(scale, axis=2)
            np.testing.assert_array_equal(shown, np.broadcast_to(wanted, (3, high, wide)))
    text = picture[3 * GAP + 2 * high :]
    for i in range(3):  # every pair has something written below it
        assert (text[:, GAP + i * (column + GAP) : (i + 1) * (column + GAP)] < GAP_LEVEL).any()


def test_text_stays_in_its_column():
    images = np.full((2, 1, 8, 8), 1.0)  # white, as the ground is
    picture = np.asarray(Image.open(io.BytesIO(pair_picture(images, images, [("0.000123", "ratio 0.01"), ("",)]))))
    assert (picture[:, GAP + 64 + GAP :] == GAP_LEVEL).all()


def test_what_is_no_pair_is_refused():
    images = np.zeros((2, 1, 8, 8))
    for above, below, texts in (
        (images, images[:1], [("",)] * 2),
        (images, images, [("",)]),
        (images[:0], images[:0], []),
        (images[:, 0], images[:, 0], [("",)] * 2),
    ):
        with pytest.raises(ShapeError):
            pair_picture(above, below, texts)
