"""Axis order, channels and size of arrays of images."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from kfpbench.errors import DataError, ShapeError
from kfpbench.scoring.image_layout import channels_first, resize

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)  # (n, C, H, W)
GREY = COLOUR[:, :1]
LAST = COLOUR.transpose(0, 2, 3, 1)
OPAQUE = np.full((9, 1, 8, 8), 255, dtype=np.uint8)


@pytest.mark.parametrize(
    ("values", "shape", "expected", "words"),
    [
        (COLOUR, (3, 8, 8), COLOUR, ["(n, C, H, W)"]),
        (LAST, (3, 8, 8), COLOUR, ["(n, H, W, C)"]),
        (GREY[:, 0], (1, 8, 8), GREY, ["(n, H, W), grey"]),
        (GREY.reshape(9, 64), (1, 8, 8), GREY, ["rows of flattened grey images"]),
        (GREY, (3, 8, 8), COLOUR[:, [0, 0, 0]], ["(n, C, H, W)", "grey images, repeated over the channels"]),
        (COLOUR[:, [1, 1, 1]], (1, 8, 8), COLOUR[:, 1:2], ["(n, C, H, W)", "equal channels taken as grey"]),
        (
            np.concatenate([COLOUR, OPAQUE], axis=1).transpose(0, 2, 3, 1),
            (3, 8, 8),
            COLOUR,
            ["(n, H, W, C)", "an opaque alpha channel dropped"],
        ),
    ],
)
def test_layouts(values, shape, expected, words):
    images, decisions = channels_first(values, shape, "here")
    np.testing.assert_array_equal(images, expected)
    assert decisions == words


@pytest.mark.parametrize(
    ("values", "shape", "error", "message"),
    [
        (COLOUR.reshape(9, -1), (3, 8, 8), ShapeError, "flattened colour images do not say"),
        (COLOUR.reshape(9, -1)[:, :100], (3, 8, 8), ShapeError, "does not look like images"),
        (COLOUR[:, :2], (3, 8, 8), ShapeError, r"does not look like images.*got \(9, 2, 8, 8\)"),
        (COLOUR[:, :, :3, :3], (3, 3, 3), ShapeError, "does not look like images"),  # which axis are channels?
        (COLOUR[:, :, :6, :7], (3, 8, 8), ShapeError, "got '6 x 7 pixels.*Pass --resize"),
        (COLOUR, (1, 8, 8), ShapeError, "do not have the channels.*Convert them to grey"),
        (np.concatenate([COLOUR, COLOUR[:, :1]], axis=1), (3, 8, 8), DataError, "no opaque alpha"),
        (np.concatenate([COLOUR, 0 * OPAQUE], axis=1), (3, 8, 8), DataError, "no opaque alpha"),
    ],
)
def test_what_does_not_fit_is_refused(values, shape, error, message):
    with pytest.raises(error, match=f"here: .*{message}"):
        channels_first(values, shape, "here")


def test_resizing_is_pillows_antialiased_bicubic_without_rounding():
    levels = RNG.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    resized, words = resize(levels.astype(np.float32) / 127.5 - 1, 8, 8, "here")
    assert words.startswith("resized from 32 x 32 to 8 x 8 pixels by pillow ")
    for image, small in zip(levels, resized, strict=True):
        picture = PIL.Image.fromarray(image.transpose(1, 2, 0)).resize((8, 8), PIL.Image.Resampling.BICUBIC)
        # pillow's own 8-bit result is the same filter with every pass rounded to levels
        np.testing.assert_allclose(127.5 * (small.transpose(1, 2, 0) + 1), np.asarray(picture), atol=1.01)
    checks = np.indices((32, 32)).sum(axis=0) % 2 * 2.0 - 1  # the finest pattern there is
    flat, _ = resize(checks.astype(np.float32)[None, None], 8, 8, "here")
    assert np.abs(flat).max() < 0.1  # nothing of it is left: without antialiasing it would alias to full contrast
    edge, _ = resize(
        np.repeat(np.float32([[[-1, 1]]]), 2, axis=1)[None] * np.ones((1, 1, 2, 2), np.float32), 8, 8, "here"
    )
    assert (edge.min(), edge.max()) == (-1.0, 1.0)  # what the filter overshoots is clipped


def test_resizing_keeps_the_aspect():
    with pytest.raises(ShapeError, match="change the aspect"):
        resize(np.zeros((1, 3, 8, 16), np.float32), 8, 8, "here")
