"""Images from a folder of PNG and JPEG files, in natural order of their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kfpbench.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILES = 200_000
MAX_FILE_BYTES = 64 * 2**20
MAX_SIDE = 4096
MAX_TOTAL_BYTES = 4 * 2**30  # of the decoded images
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_OTHER_IMAGES = {".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jp2", ".ppm", ".pgm", ".jxl"}
_EIGHT_BITS = "Convert the images to 8 bits a channel."


@dataclass
class ImageFolder:
    """Images (n, H, W, C) uint8, C = 1 (every image grey) or 3, in order; ``notes`` say what was done or left out."""

    images: NDArray[np.uint8]
    names: list[str]
    notes: list[str] = field(default_factory=list)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts img2 before img10: runs of digits compare as numbers."""
    parts = re.split(r"([0-9]+)", name)  # text at even places, digits at odd ones
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)], name


def read_image_folder(folder: Path) -> ImageFolder:
    """All PNG and JPEG images directly in ``folder``; all must have one size.

    Palette and 1-bit images are decoded to what they show; an alpha channel is dropped where it is opaque everywhere.
    Nothing else is converted. Other files are left out and counted, hidden ones without a word. Raises DataError for a
    folder without images, files that are damaged, too large, of more than 8 bits a channel, transparent, animated or in
    CMYK, unequal sizes, links that leave the folder, and images in other formats.
    """
    files, notes = _image_files(folder)
    decoded: list[NDArray[np.uint8]] = []
    modes: dict[str, int] = {}
    total = 0
    for path in files:
        image, mode = _decode(path, decoded[0].shape[:2] if decoded else None, files[0].name)
        total += image.nbytes
        if total > MAX_TOTAL_BYTES:
            raise DataError(
                "the decoded images are too large together",
                got=f"more than {MAX_TOTAL_BYTES / 2**30:g} GiB after {len(decoded)} of {len(files)} images",
                allowed=f"{MAX_TOTAL_BYTES / 2**30:g} GiB",
                remedy="Measure fewer images, or reduce them first.",
                where=str(folder),
            )
        decoded.append(image)
        modes[mode] = modes.get(mode, 0) + 1
    colours = max(image.shape[2] for image in decoded)
    grey = sum(image.shape[2] == 1 for image in decoded)
    if colours == 3 and grey:
        notes.append(f"{grey} grey images among coloured ones: their channel is repeated")
    images = np.empty((len(decoded), *decoded[0].shape[:2], colours), dtype=np.uint8)
    for position, image in enumerate(decoded):
        images[position] = image  # a grey one is repeated over the channels
    jpeg = sum(_SUFFIXES[path.suffix.lower()] == "JPEG" for path in files)
    if jpeg:
        notes.append(f"{jpeg} of {len(files)} images are JPEG: its artefacts are measured with them")
    special = {mode: count for mode, count in modes.items() if mode not in ("L", "RGB")}
    if special:
        counts = ", ".join(f"{count} {mode}" for mode, count in sorted(special.items()))
        notes.append(f"decoded to RGB or grey, without loss: {counts}")
    return ImageFolder(images, [path.name for path in files], notes)


def _image_files(folder: Path) -> tuple[list[Path], list[str]]:
    where = str(folder)
    root = folder.resolve()
    files, folders, others, unreadable = [], [], [], []
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot be read: {error}", where=where) from error
    for entry in entries:
        if entry.is_dir():
            folders.append(entry.name)
        elif entry.suffix.lower() in _SUFFIXES:
            files.append(entry)
        elif entry.suffix.lower() in _OTHER_IMAGES:
            unreadable.append(entry.name)
        else:
            others.append(entry.name)
    if unreadable:
        raise DataError(
            "the folder holds images in formats that are not read",
            got=f"{len(unreadable)} files, such as {min(unreadable, key=natural_key)}",
            allowed=", ".join(_SUFFIXES),
            remedy="Convert them to PNG: leaving them out would measure other samples.",
            where=where,
        )
    if not files:
        raise DataError(
            "the folder holds no image",
            got=f"{len(folders)} folders and {len(others)} other files",
            allowed=f"files that end in {', '.join(_SUFFIXES)}, directly in the folder",
            remedy="Name the one folder that holds the images." if folders else "Check the path.",
            where=where,
        )
    if len(files) > MAX_FILES:
        raise DataError("too many images", got=len(files), allowed=MAX_FILES, remedy="Measure a part.", where=where)
    for path in files:
        if not _resolved(path).is_relative_to(root):
            raise DataError(
                "an image is a link that leaves the folder",
                got=path.name,
                allowed="files of the folder itself",
                remedy="Copy the images into one folder.",
                where=where,
            )
    notes = []
    if folders or others:
        notes.append(f"left out, being no images: {len(others)} files and {len(folders)} folders")
    return sorted(files, key=lambda path: natural_key(path.name)), notes


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise DataError(f"a link that leads nowhere: {error}", where=str(path)) from error


def _decode(path: Path, expected: Sequence[int] | None, first: str) -> tuple[NDArray[np.uint8], str]:
    """One image (H, W, C), C = 1 or 3, and the mode in which it was stored. ``expected`` is the (H, W) of the first."""
    import PIL.Image

    where = str(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(
                "an image file is too large", got=f"{size} bytes", allowed=f"{MAX_FILE_BYTES} bytes", where=where
            )
        with PIL.Image.open(path, formats=("PNG", "JPEG")) as image:
            _check_header(image, path, expected, first)
            image.load()
            return _levels(image, where)
    except (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot be decoded: {error}",
            allowed="a whole PNG or JPEG file",
            remedy="The file is damaged, cut short or not what its name says: write or copy it again.",
            where=where,
        ) from error


def _check_header(image: Image, path: Path, expected: Sequence[int] | None, first: str) -> None:
    where = str(path)
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise DataError(
            "an image is too large", got=f"{width} x {height} pixels", allowed=f"{MAX_SIDE} a side", where=where
        )
    if expected is not None and (height, width) != tuple(expected):
        raise DataError(
            "the images do not have one size",
            got=f"{width} x {height} pixels",
            allowed=f"{expected[1]} x {expected[0]}, as {first} has",
            remedy="Measure images of one size alone: a picture of many samples does not belong into the folder.",
            where=where,
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise DataError("an image is animated", got=f"{frames} frames", allowed="one", where=where)
    if image.format == "PNG" and _png_bit_depth(path) > 8:
        # pillow would cut 16-bit colours down to 8 bits without a word
        raise DataError(
            "an image has more than 8 bits a channel", got="16", allowed="8", remedy=_EIGHT_BITS, where=where
        )


def _png_bit_depth(path: Path) -> int:
    with path.open("rb") as stream:
        header = stream.read(25)  # signature (8), length and name of IHDR (8), width, height (8), bit depth (1)
    return header[24] if len(header) == 25 else 0


def _levels(image: Image, where: str) -> tuple[NDArray[np.uint8], str]:
    mode = image.mode
    transparent = "transparency" in image.info
    if mode in ("1", "L") and not transparent:
        return np.asarray(image.convert("L"))[:, :, None], mode
    if mode == "RGB" and not transparent:
        return np.asarray(image), mode
    if mode == "P" and not transparent:
        return np.asarray(image.convert("RGB")), mode
    if mode in ("LA", "RGBA", "PA") or (transparent and mode in ("1", "L", "RGB", "P")):
        pixels = np.asarray(image.convert("RGBA"))
        if (pixels[:, :, 3] < 255).any():
            raise DataError(
                "an image is transparent in places, so what it shows depends on the background",
                got=f"mode {mode}, alpha down to {int(pixels[:, :, 3].min())}",
                allowed="opaque images",
                remedy="Put the images on the background that you mean, and store them without alpha.",
                where=where,
            )
        grey = mode in ("1", "L", "LA")
        return np.ascontiguousarray(pixels[:, :, :1] if grey else pixels[:, :, :3]), f"opaque {mode}"
    raise DataError(
        "an image has a mode that is not read",
        got=mode,
        allowed="grey or RGB, with 8 bits a channel",
        remedy=_EIGHT_BITS if mode[0] in "IF" else "Convert the images to RGB.",
        where=where,
    )
