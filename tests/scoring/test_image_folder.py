"""A folder of pictures: order, modes, and what is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from kfpbench.errors import DataError
from kfpbench.scoring.image_folder import natural_key, read_image_folder

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 5, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 5, 6, 3), dtype=np.uint8)


def test_natural_order():
    assert natural_key("x²1") > natural_key("x1")  # not every digit of Unicode is part of a number
    names = ["b1", "a10", "a2", "a1", "a02", "a", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "a1", "a02", "a2", "a10", "b1"]


@pytest.mark.parametrize("images", [GREY, COLOUR])
def test_png_images_come_back_in_order(picture_folder, images):
    read = read_image_folder(picture_folder(images))
    np.testing.assert_array_equal(read.images, images.reshape(12, 5, 6, -1))
    assert read.names == [f"img{i}.png" for i in range(12)]
    assert read.notes == []


def test_lossless_modes_are_decoded(tmp_path):
    colour = PIL.Image.fromarray(COLOUR[0]).quantize(16)
    colour.save(tmp_path / "0.png")
    opaque = np.dstack([COLOUR[1], np.full((5, 6), 255, dtype=np.uint8)])
    PIL.Image.fromarray(opaque).save(tmp_path / "1.png")
    PIL.Image.fromarray(GREY[2]).save(tmp_path / "2.png")
    PIL.Image.fromarray(GREY[3] > 127).save(tmp_path / "3.png")
    PIL.Image.fromarray(np.dstack([GREY[4], opaque[:, :, 3]])).save(tmp_path / "4.png")
    (tmp_path / "labels.csv").write_text("1")
    (tmp_path / ".hidden").write_text("1")
    read = read_image_folder(tmp_path)
    np.testing.assert_array_equal(read.images[0], np.asarray(colour.convert("RGB")))
    np.testing.assert_array_equal(read.images[1], COLOUR[1])
    for channel in range(3):
        np.testing.assert_array_equal(read.images[2, :, :, channel], GREY[2])
        np.testing.assert_array_equal(read.images[3, :, :, channel], 255 * (GREY[3] > 127))
        np.testing.assert_array_equal(read.images[4, :, :, channel], GREY[4])
    assert read.notes == [
        "left out, being no images: 1 files and 0 folders",
        "3 grey images among coloured ones: their channel is repeated",
        "decoded to RGB or grey, without loss: 1 1, 1 P, 1 opaque LA, 1 opaque RGBA",
    ]


def test_jpeg_is_noted(tmp_path):
    for number in range(3):
        PIL.Image.fromarray(COLOUR[number]).save(tmp_path / f"{number}.jpg", quality=95)
    read = read_image_folder(tmp_path)
    assert read.images.shape == (3, 5, 6, 3)
    assert read.notes == ["3 of 3 images are JPEG: its artefacts are measured with them"]


def sixteen_bit_colour() -> bytes:
    """A PNG of 5 x 6 pixels with 16 bits a channel, which pillow would read as 8."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = b"".join(b"\0" + bytes(6 * 3 * 2) for _ in range(5))
    header = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_what_would_lose_something_is_refused(tmp_path, picture_folder):
    folder = picture_folder(COLOUR[:3])
    bad = folder / "img7.png"

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            read_image_folder(folder)
        assert str(folder) in str(caught.value)
        bad.unlink()

    bad.write_bytes(sixteen_bit_colour())
    with PIL.Image.open(bad) as image:
        assert image.mode == "RGB"  # so that the mode alone does not tell
    refused("more than 8 bits a channel")
    PIL.Image.fromarray(GREY[0].astype(np.uint16) * 257).save(bad)
    refused("more than 8 bits a channel")
    clear = np.dstack([COLOUR[0], np.full((5, 6), 255, dtype=np.uint8)])
    clear[2, 2, 3] = 254
    PIL.Image.fromarray(clear).save(bad)
    refused("transparent in places.*alpha down to 254")
    PIL.Image.fromarray(GREY[0]).save(bad, transparency=int(GREY[0, 0, 0]))
    refused("transparent in places")
    PIL.Image.fromarray(COLOUR[0]).convert("CMYK").save(bad, format="JPEG")
    refused("a mode that is not read; got 'CMYK'")
    frames = [PIL.Image.fromarray(image) for image in COLOUR[:2]]
    frames[0].save(bad, save_all=True, append_images=frames[1:])
    refused("animated; got '2 frames'")
    PIL.Image.fromarray(COLOUR[0][:4]).save(bad)
    refused("do not have one size; got '6 x 4 pixels'; allowed: 6 x 5, as img0.png has")
    bad.write_bytes((folder / "img0.png").read_bytes()[:60])
    refused("cannot be decoded")
    bad.write_bytes(b"GIF89a")
    refused("cannot be decoded")
    PIL.Image.new("RGB", (5000, 5)).save(bad)
    refused("too large; got '5000 x 5 pixels'")
    bad = folder / "img7.webp"
    bad.write_bytes(b"RIFF")
    refused("formats that are not read.*img7.webp")
    outside = tmp_path / "elsewhere.png"
    PIL.Image.fromarray(COLOUR[0]).save(outside)
    bad = folder / "img7.png"
    bad.symlink_to(outside)
    refused("link that leaves the folder; got 'img7.png'")
    bad.symlink_to(bad)
    refused("link|symlink")
    bad.symlink_to(folder / "img1.png")  # one that stays is a file like any other
    assert len(read_image_folder(folder).images) == 4


def test_a_folder_without_images_is_an_error(tmp_path, picture_folder):
    picture_folder(COLOUR, "class0")
    with pytest.raises(DataError, match=r"no image; got '1 folders and 0 other files'.*Name the one folder"):
        read_image_folder(tmp_path)
