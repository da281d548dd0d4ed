"""A picture of images in pairs, one above the other, with a line or two of text below each pair."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kfpbench.errors import ShapeError
from kfpbench.store.sample_grid import AXIS_COLOUR, GAP, GAP_LEVEL, TARGET_SIDE
from kfpbench.store.samples import to_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_WIDTH = 56  # pixels of a column: room for its text
LINE = 15  # pixels of a line of text
_TEXT_SIZE = 12


def pair_picture(above: NDArray[np.floating], below: NDArray[np.floating], texts: Sequence[tuple[str, ...]]) -> bytes:
    """Images (m, C, H, W) in [-1, 1], C = 1 or 3, as a PNG file: ``above[i]`` over ``below[i]`` over its text.

    Every pixel becomes a square of whole pixels, an image at most 64 pixels wide unless it is larger. Column i begins
    at ``GAP + i (w + GAP)`` with w = max(s W, 56); its images are centred in it. Raises ShapeError for images of
    different shapes, or another number of texts.
    """
    from PIL import Image, ImageDraw
    from PIL.ImageFont import load_default

    if above.ndim != 4 or above.shape != below.shape or above.shape[1] not in (1, 3) or not len(above):
        raise ShapeError(
            "no pairs of these images", got=(above.shape, below.shape), allowed="(m, C, H, W) twice, m > 0"
        )
    if len(texts) != len(above):
        raise ShapeError("every pair needs its text", got=len(texts), allowed=len(above))
    count, channels, height, width = above.shape
    scale = max(1, TARGET_SIDE // max(height, width))
    high, wide = height * scale, width * scale
    column = max(wide, LEAST_WIDTH)
    lines = max(len(text) for text in texts)
    size = (GAP + count * (column + GAP), 3 * GAP + 2 * high + lines * LINE)
    pixels = np.full((channels, size[1], size[0]), GAP_LEVEL, np.uint8)
    for row, images in enumerate((above, below)):
        levels = to_levels(images).repeat(scale, axis=2).repeat(scale, axis=3)  # nearest neighbour
        top = GAP + row * (high + GAP)
        for i, image in enumerate(levels):
            left = GAP + i * (column + GAP) + (column - wide) // 2
            pixels[:, top : top + high, left : left + wide] = image
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)))
    draw = ImageDraw.Draw(picture)
    font = load_default(_TEXT_SIZE)
    for i, text in enumerate(texts):
        middle = GAP + i * (column + GAP) + column / 2
        for k, line in enumerate(text):
            draw.text(
                (middle, 3 * GAP + 2 * high + k * LINE + LINE / 2), line, fill=AXIS_COLOUR, font=font, anchor="mm"
            )
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
