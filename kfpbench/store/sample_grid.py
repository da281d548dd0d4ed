"""Pictures of samples by pillow alone: a grid of images, or points over their reference."""

from __future__ import annotations

import functools
import io
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfpbench.errors import ShapeError
from kfpbench.store.samples import check_rows, to_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from kfpbench.data.dataset import Dataset

GAP = 2  # pixels between the images of a grid, and around it
GAP_LEVEL = 255
TARGET_SIDE = 64  # an image is enlarged by the largest whole factor that keeps it within this many pixels

CANVAS = 640
MARGIN_LEFT, MARGIN_TOP, MARGIN_RIGHT, MARGIN_BOTTOM = 64, 52, 40, 52  # leaves a square: equal units
SAMPLE_COLOUR = (213, 94, 0)  # vermillion and grey stay apart for colour-blind readers
REFERENCE_COLOUR = (150, 158, 168)
AXIS_COLOUR = (90, 98, 108)
RULE_COLOUR = (232, 235, 239)
MAX_POINTS = 4_000  # more would only cover each other
_OVERSAMPLE = 3  # a pixel at the edge of a dot is covered by its share of 3 x 3 points in it
_OPACITY = 215 / 255


def sample_picture(
    samples: NDArray[np.float32],
    dataset: Dataset,
    *,
    title: str = "",
    max_images: int = 64,
) -> bytes | None:
    """The samples (n, d) as a PNG file, points over the data set's test rows; None when they cannot be pictured (no
    row, or points with one coordinate).

    Raises ShapeError when the rows are not those of the data set.
    """
    check_rows(samples, dataset)
    if len(samples) == 0:
        return None
    buffer = io.BytesIO()
    if dataset.image_shape is not None:
        picture = image_grid(samples[:max_images].reshape(-1, *dataset.image_shape))
        picture.save(buffer, format="PNG", optimize=True)
    elif dataset.dimension >= 2:
        picture = _few_colours(scatter(samples, dataset.test, title=title))
        picture.save(buffer, format="PNG", compress_type=zlib.Z_RLE)  # a quarter of the time, and 15 % more bytes
    else:
        return None
    return buffer.getvalue()


def _few_colours(picture: Image) -> Image:
    """A drawing in the colours of `_palette`: half the file, and a fifth of the time that its compression takes."""
    from PIL.Image import Dither

    return picture.quantize(palette=_palette(), dither=Dither.NONE)


@functools.cache
def _palette() -> Image:
    """What a scatter picture is made of: ink on white, and dots on what lies under them, by the covers of a pixel."""
    from PIL import Image

    def over(colour: tuple[int, int, int], shares: NDArray[np.float64], under: NDArray[np.float64]) -> list[Any]:
        return [*((1 - shares[:, None]) * under + shares[:, None] * np.array(colour))]

    covers = np.arange(1, _OVERSAMPLE**2 + 1) / _OVERSAMPLE**2 * _OPACITY
    white = np.full(3, 255.0)
    ink = [white, *over(AXIS_COLOUR, np.linspace(0.05, 1, 20), white), np.array(RULE_COLOUR, float)]
    legend = [np.array(colour, float) for colour in (SAMPLE_COLOUR, REFERENCE_COLOUR)]
    reference = [one for under in (white, ink[-1]) for one in over(REFERENCE_COLOUR, covers, under)]
    grounds = (white, ink[-1], *reference[2 : len(covers) : 3])
    samples = [one for under in grounds for one in over(SAMPLE_COLOUR, covers, under)]
    colours = np.rint([*ink, *legend, *reference, *samples]).astype(np.uint8)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.tobytes())
    return palette


def grid_layout(n: int, height: int, width: int) -> tuple[int, int, int]:
    """Columns, rows and enlargement of a grid of n images: nearly square, each image at most 64 pixels unless
    larger.
    """
    columns = math.ceil(math.sqrt(n))
    return columns, math.ceil(n / columns), max(1, TARGET_SIDE // max(height, width))


def image_grid(images: NDArray[np.floating]) -> Image:
    """Images (n, C, H, W) in [-1, 1], C = 1 or 3, row by row; every pixel becomes a square of whole pixels.

    The pixel (y, x) of image i covers rows ``GAP + (i // columns)(s H + GAP) + s y`` and the s - 1 below,
    columns alike. Raises ShapeError.
    """
    from PIL import Image

    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] not in (1, 3):
        raise ShapeError("no grid of these images", got=images.shape, allowed="(n, C, H, W), C = 1 or 3, n > 0")
    n, channels, height, width = images.shape
    columns, rows, scale = grid_layout(n, height, width)
    levels = to_levels(images).repeat(scale, axis=2).repeat(scale, axis=3)  # nearest neighbour
    high, wide = height * scale, width * scale
    canvas = np.full((channels, GAP + rows * (high + GAP), GAP + columns * (wide + GAP)), GAP_LEVEL, np.uint8)
    for i, image in enumerate(levels):
        top, left = GAP + (i // columns) * (high + GAP), GAP + (i % columns) * (wide + GAP)
        canvas[:, top : top + high, left : left + wide] = image
    return Image.fromarray(canvas[0] if channels == 1 else np.ascontiguousarray(canvas.transpose(1, 2, 0)))


@dataclass(frozen=True)
class Frame:
    """The square of the plane that a scatter picture shows, and where its points fall."""

    low_x: float
    low_y: float
    side: float

    @classmethod
    def around(cls, points: NDArray[np.floating]) -> Frame:
        """The smallest square around the finite points (m, 2) with 10 % to spare on each side."""
        points = points[np.isfinite(points).all(axis=1)].astype(np.float64)
        if len(points) == 0:
            return cls(-1.0, -1.0, 2.0)
        low, high = points.min(axis=0), points.max(axis=0)
        side = 1.2 * float((high - low).max()) or 2.0  # one point alone: a square of 2 around it
        centre = (low + high) / 2
        return cls(float(centre[0]) - side / 2, float(centre[1]) - side / 2, side)

    def pixels(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Picture coordinates (m, 2) of points (m, 2): x to the right, y upwards."""
        wide = CANVAS - MARGIN_LEFT - MARGIN_RIGHT
        high = CANVAS - MARGIN_TOP - MARGIN_BOTTOM
        unit = (points.astype(np.float64) - (self.low_x, self.low_y)) / self.side
        return np.stack([MARGIN_LEFT + wide * unit[:, 0], CANVAS - MARGIN_BOTTOM - high * unit[:, 1]], axis=1)

    def contains(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which points (m, 2) lie inside; NaN does not."""
        unit = (points.astype(np.float64) - (self.low_x, self.low_y)) / self.side
        return np.asarray(((unit >= 0) & (unit <= 1)).all(axis=1))


def scatter(
    samples: NDArray[np.floating], reference: NDArray[np.floating], *, title: str = "", radius: float = 2.0
) -> Image:
    """Samples (n, d) over the reference (m, d), first two coordinates, 640 x 640 pixels.

    The frame follows the reference alone, so that the pictures of several cells compare; samples outside it
    are counted in the picture. At most ``MAX_POINTS`` rows of each are drawn, the first ones.
    """
    from PIL import Image, ImageDraw

    dimension = samples.shape[1]
    samples, reference = samples[:, :2], reference[:, :2]
    if len(reference):
        frame, shown = _framed(np.ascontiguousarray(reference, np.float64).tobytes())
    else:
        frame, shown = Frame.around(samples), b""
    labels = f"samples ({len(samples)})", f"reference ({len(reference)})"
    canvas = _backdrop(frame, labels, shown, radius).copy()
    draw = ImageDraw.Draw(canvas)
    inside = frame.contains(samples)
    draw.text((MARGIN_LEFT, 14), _fitting(draw, title), fill=AXIS_COLOUR, font=_font(15), anchor="lm")
    notes = [f"coordinates 1 and 2 of {dimension}"] if dimension > 2 else []
    if lost := len(samples) - int(np.count_nonzero(inside)):
        notes.append(f"{lost} of {len(samples)} samples outside the frame")
    below = (CANVAS - MARGIN_RIGHT, CANVAS - 14)
    draw.text(below, "; ".join(notes), fill=AXIS_COLOUR, font=_font(13), anchor="rm")
    pixels = np.array(canvas)
    _dots(pixels, frame.pixels(samples[inside][:MAX_POINTS]), SAMPLE_COLOUR, radius)
    return Image.fromarray(pixels)


@functools.lru_cache(maxsize=4)  # the cells of a data set share it
def _framed(reference: bytes) -> tuple[Frame, bytes]:
    """The frame around a reference, the bytes of its rows (m, 2) as float64, and of those rows in it that are drawn."""
    rows = np.frombuffer(reference).reshape(-1, 2)
    frame = Frame.around(rows)
    return frame, rows[frame.contains(rows)][:MAX_POINTS].tobytes()


@functools.lru_cache(maxsize=4)  # the cells of a data set share it; 1.2 MB each
def _backdrop(frame: Frame, labels: tuple[str, str], reference: bytes, radius: float) -> Image:
    """Axes, legend and the reference: the bytes of its rows (m, 2) in the frame as float64. Not to be drawn on."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
    draw = ImageDraw.Draw(canvas)
    _axes(draw, frame)
    _legend(draw, list(zip((SAMPLE_COLOUR, REFERENCE_COLOUR), labels, strict=True)))
    pixels = np.array(canvas)
    _dots(pixels, frame.pixels(np.frombuffer(reference).reshape(-1, 2)), REFERENCE_COLOUR, radius)
    return Image.fromarray(pixels)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from low to high, at most ``most`` of them."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _axes(draw: ImageDraw, frame: Frame) -> None:
    right, bottom = CANVAS - MARGIN_RIGHT, CANVAS - MARGIN_BOTTOM
    for x in ticks(frame.low_x, frame.low_x + frame.side):
        at = round(float(frame.pixels(np.array([[x, frame.low_y]]))[0, 0]))
        draw.line([(at, MARGIN_TOP), (at, bottom)], fill=RULE_COLOUR)
        draw.text((at, bottom + 16), f"{x:g}", fill=AXIS_COLOUR, font=_font(13), anchor="mm")
    for y in ticks(frame.low_y, frame.low_y + frame.side):
        at = round(float(frame.pixels(np.array([[frame.low_x, y]]))[0, 1]))
        draw.line([(MARGIN_LEFT, at), (right, at)], fill=RULE_COLOUR)
        draw.text((MARGIN_LEFT - 8, at), f"{y:g}", fill=AXIS_COLOUR, font=_font(13), anchor="rm")
    draw.rectangle([(MARGIN_LEFT, MARGIN_TOP), (right, bottom)], outline=AXIS_COLOUR)


def _dots(pixels: NDArray[np.uint8], centres: NDArray[np.float64], colour: tuple[int, int, int], radius: float) -> None:
    """Draw smooth, slightly transparent dots: dots of one call do not add up, the layer is laid over the picture.

    Cost O(n) in the dots, not in the pixels (CANVAS, CANVAS, 3).
    """
    if len(centres) == 0:
        return
    reach = math.ceil(radius) + 1
    corner = np.floor(centres).astype(int)  # the pixel of the centre
    offsets = np.arange(-reach, reach + 1)
    # subpixels of the pixels around, relative to the centre of the dot; the centre of a pixel is half a pixel from its
    # corner
    fine = (np.arange(_OVERSAMPLE) + 0.5) / _OVERSAMPLE
    points = (offsets[:, None] + fine).ravel()  # (k f,)
    away = points[None, None, :] - (centres + 0.5 - corner)[:, :, None]  # (n, 2, k f)
    within = away[:, 1, :, None] ** 2 + away[:, 0, None, :] ** 2 <= radius**2  # (n, k f, k f): rows are y
    k = len(offsets)
    cover = within.reshape(-1, k, _OVERSAMPLE, k, _OVERSAMPLE).mean(axis=(2, 4))  # (n, k, k)
    rows = corner[:, 1, None, None] + offsets[:, None]
    columns = corner[:, 0, None, None] + offsets[None, :]
    known = (cover > 0) & (rows >= 0) & (rows < CANVAS) & (columns >= 0) & (columns < CANVAS)
    place, which = np.unique((rows * CANVAS + columns)[known], return_inverse=True)
    layer = np.zeros(len(place))
    np.maximum.at(layer, which, cover[known])
    share = (layer * _OPACITY)[:, None]
    flat = pixels.reshape(-1, 3)
    flat[place] = np.rint((1 - share) * flat[place] + share * np.array(colour))


def _legend(draw: ImageDraw, entries: list[tuple[tuple[int, int, int], str]]) -> None:
    x = float(MARGIN_LEFT)
    for colour, text in entries:
        draw.ellipse([(x, 32), (x + 10, 42)], fill=colour)
        draw.text((x + 16, 37), text, fill=AXIS_COLOUR, font=_font(14), anchor="lm")
        x += 16 + draw.textlength(text, font=_font(14)) + 20


def _fitting(draw: ImageDraw, text: str) -> str:
    """The text, cut so that it fits above the plot."""
    while draw.textlength(text, font=_font(15)) > CANVAS - MARGIN_LEFT - MARGIN_RIGHT:
        text = text.removesuffix("...")[:-1] + "..."
    return text


@functools.cache
def _font(size: int) -> FreeTypeFont | ImageFont:
    """Pillow's own scalable font, so that a picture is the same on every machine."""
    from PIL.ImageFont import load_default

    return load_default(size)
