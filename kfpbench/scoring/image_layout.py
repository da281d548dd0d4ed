"""Arrays of images in any usual layout as (n, C, H, W) of a data set: axis order, channels and size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import DataError, ShapeError

_CHANNELS = (1, 3, 4)
_ROWS = 512

Shape = tuple[int, int, int]


def channels_first(
    values: NDArray[Any], shape: Shape, where: str, *, resized: bool = False
) -> tuple[NDArray[Any], list[str]]:
    """Images as (n, C, H, W) with the channels of ``shape`` = (C, H, W), and what was decided on the way.

    Read are (n, C, H, W), (n, H, W, C), (n, H, W) of grey images, and (n, d) where the data set is grey. Grey images
    are repeated over the channels of a coloured data set; coloured ones whose channels are equal become grey; an alpha
    channel that is opaque everywhere is dropped. Height and width may differ from the data set's only when they are to
    be ``resized``. Raises ShapeError, DataError.
    """
    channels, height, width = shape
    if values.ndim == 2 and values.shape[1] == channels * height * width:
        if channels > 1:
            raise ShapeError(
                "flattened colour images do not say whether channels or pixels come first",
                got=values.shape,
                allowed=f"(n, {channels}, {height}, {width}) or (n, {height}, {width}, {channels})",
                remedy="Reshape them before they are stored.",
                where=where,
            )
        values = values.reshape(-1, *shape)
        order = "rows of flattened grey images"
    else:
        values, order = _with_axis(values, shape, where)
    found = values.shape[2:]
    if found != (height, width) and not resized:
        raise ShapeError(
            "the images do not have the size of the data set's",
            got=f"{found[0]} x {found[1]} pixels (height x width)",
            allowed=f"{height} x {width}",
            remedy="Pass --resize to resize them (bicubic, with antialiasing; the record says so).",
            where=where,
        )
    values, decisions = _with_channels(values, channels, where)
    return values, [order, *decisions]


def _with_axis(values: NDArray[Any], shape: Shape, where: str) -> tuple[NDArray[Any], str]:
    """(n, C', H', W') as a view, and how the axes were read."""
    channels, height, width = shape
    if values.ndim == 3:
        return values[:, None], "(n, H, W), grey"
    if values.ndim == 4:
        first, last = values.shape[1:] == shape, values.shape[1:] == (height, width, channels)
        if first == last:  # of another size or number of channels: only one end may look like channels
            first, last = values.shape[1] in _CHANNELS, values.shape[3] in _CHANNELS
        if first != last:
            return (values, "(n, C, H, W)") if first else (np.moveaxis(values, 3, 1), "(n, H, W, C)")
    raise ShapeError(
        "the array does not look like images of the data set",
        got=values.shape,
        allowed=f"(n, {height}, {width}, {channels}) or (n, {channels}, {height}, {width})",
        remedy="Reshape the array, or measure against another data set with --data.",
        where=where,
    )


def _with_channels(values: NDArray[Any], channels: int, where: str) -> tuple[NDArray[Any], list[str]]:
    decisions = []
    if values.shape[1] == 4:
        alpha = values[:, 3]
        # opaque is white, which is not known yet: one value everywhere, the greatest of all
        if alpha.min() < alpha.max() or alpha.max() < values[:, :3].max():
            raise DataError(
                "the fourth channel is no opaque alpha, so what the images show depends on the background",
                got=f"values from {alpha.min():g} to {alpha.max():g}",
                allowed="no alpha, or opaque images",
                remedy="Put the images on the background that you mean, and store three channels.",
                where=where,
            )
        values = values[:, :3]
        decisions.append("an opaque alpha channel dropped")
    if values.shape[1] == channels:
        return values, decisions
    if values.shape[1] == 1:
        shape = (len(values), channels, *values.shape[2:])
        return np.broadcast_to(values, shape), [*decisions, "grey images, repeated over the channels"]
    if channels == 1 and all((part == part[:, :1]).all() for part in np.array_split(values, len(values) // _ROWS + 1)):
        return values[:, :1], [*decisions, "equal channels taken as grey"]
    raise ShapeError(
        "the images do not have the channels of the data set's",
        got=values.shape[1],
        allowed=str(channels),
        remedy="Convert them to grey first, by the weights that your data set was made with."
        if channels == 1
        else "Store that many channels.",
        where=where,
    )


def resize(images: NDArray[np.float32], height: int, width: int, where: str) -> tuple[NDArray[np.float32], str]:
    """Images (n, C, H', W') in [-1, 1] as (n, C, height, width), and the words for the record.

    Pillow's bicubic filter (a = -1/2), whose support grows with the reduction, which is antialiasing, on every channel
    in float32 without rounding to levels; clipped to [-1, 1]. The order of magnitude of a Frechet distance can hang on
    this choice (Parmar, Zhang and Zhu, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022).
    Raises ShapeError where the aspect would change. Cost O(n C H' W').
    """
    import PIL
    import PIL.Image

    n, channels, old_height, old_width = images.shape
    if old_height * width != old_width * height:
        raise ShapeError(
            "resizing would change the aspect of the images",
            got=f"{old_height} x {old_width} pixels (height x width)",
            allowed=f"the aspect of {height} x {width}",
            remedy="Crop them first.",
            where=where,
        )
    resized = np.empty((n, channels, height, width), dtype=np.float32)
    for target, image in zip(resized, images, strict=True):
        for channel in range(channels):
            plane = PIL.Image.fromarray(np.ascontiguousarray(image[channel]))
            target[channel] = np.asarray(plane.resize((width, height), PIL.Image.Resampling.BICUBIC))
    np.clip(resized, -1.0, 1.0, out=resized)
    words = (
        f"resized from {old_height} x {old_width} to {height} x {width} pixels by pillow {PIL.__version__}'s bicubic "
        "filter with antialiasing, in float32"
    )
    return resized, words
