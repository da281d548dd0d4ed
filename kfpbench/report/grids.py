"""The sample grids of a run as data URIs, each within its share of a budget for the whole file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# With plotly.js (5 MB) and the text this keeps the report under 10 MB.
BUDGET = 4_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
_SMALL = 400  # pixels; a narrower picture is enlarged on the page, where its pixels should stay squares
_SMALLEST = 64


@dataclass(frozen=True)
class Embedded:
    """An image as a data URI; ``reduced`` when it is a smaller copy of the file."""

    uri: str
    pixelated: bool
    reduced: bool


class Gallery:
    """Embeds the grids of a run folder; ``count`` grids share the budget equally."""

    def __init__(self, folder: Path, count: int, budget: int = BUDGET) -> None:
        self.folder = folder.resolve()
        self.share = budget // max(count, 1)

    def embed(self, relative: str) -> Embedded | str:
        """The grid, or in words why it cannot be shown. A path may not leave the run folder."""
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder):
            return "its path leaves the run folder"
        try:
            content = path.read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                if content.startswith(_PNG) and len(content) * 4 // 3 <= self.share:
                    return Embedded(_uri("png", content), image.width < _SMALL, False)
                return Embedded(_uri("webp", self._reduce(image)), False, True)
        except FileNotFoundError:
            return f"{relative} is missing"
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            return f"{relative} cannot be read ({type(error).__name__})"

    def _reduce(self, image: Image.Image) -> bytes:
        """The image as WebP, halved until it fits its share; at 64 pixels it is taken as it is."""
        reduced = image.convert("RGB")
        while True:
            buffer = io.BytesIO()
            reduced.save(buffer, "WEBP", quality=88)
            if buffer.tell() * 4 // 3 <= self.share or min(reduced.size) <= _SMALLEST:
                return buffer.getvalue()
            half = (max(reduced.width // 2, 1), max(reduced.height // 2, 1))
            reduced = reduced.resize(half, Image.Resampling.LANCZOS)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
