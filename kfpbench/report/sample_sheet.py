"""A figure for papers of samples: a row for each sampler, its first images side by side, all from the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfpbench.errors import StoreError
from kfpbench.report.aggregate import group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.naming import of_label, with_own_labels
from kfpbench.report.paper_style import TEXT, figure_bytes, shortened, styled
from kfpbench.store.atomic import write_bytes
from kfpbench.store.output_folder import make_output_folder
from kfpbench.store.records import CellRecord
from kfpbench.store.run_folder import RunFolder
from kfpbench.store.sample_grid import GAP, GAP_LEVEL
from kfpbench.store.samples import read_levels

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_COLUMNS = 14  # images in a row: of 32 pixels, a tenth of an inch each in the width of a text
_MARGIN, _LETTER = 0.12, 0.055  # inches left of the images: beside a name, and for each letter of it


def write_sample_sheet(run: RunFolder, labels: Sequence[str], folder: Path, form: str) -> Path:
    """Write `sample_sheet` into ``folder`` as ``samples.FORM``. Raises CapabilityError without matplotlib too."""
    with styled():
        content = figure_bytes(sample_sheet(run, labels), form)
    make_output_folder(folder)
    path = folder / f"samples.{form}"
    write_bytes(path, content)
    return path


def sample_sheet(run: RunFolder, labels: Sequence[str]) -> Figure:
    """The first 14 images of each cell of ``labels``, a row each in that order; to be used inside ``styled()``.

    Row i of every sampler starts from the same noise, so that a column is one draw. Raises StoreError for a label that
    not one finished cell has, a cell that kept no images, or rows of different data sets.
    """
    from matplotlib.figure import Figure

    records = {record.cell: record for record in run.records()}
    groups = [group for group in with_own_labels(group_repeats(read_cells(records.values()))) if group.ok]
    chosen = [of_label(groups, label) for label in labels]
    if len(datasets := sorted({group.first.dataset for group in chosen})) > 1:
        raise StoreError("the cells of one sheet are of several data sets", got=", ".join(datasets))
    rows = [_row(_images(run, records[group.first.ident])) for group in chosen]
    names = [shortened(group.label, 44) for group in chosen]
    left = (_MARGIN + _LETTER * max(map(len, names))) / TEXT
    height = TEXT * (1.0 - left) * max(row.shape[0] / row.shape[1] for row in rows)
    figure = Figure(figsize=(TEXT, 1.1 * height * len(rows)))  # every row gets the same place, beside the longest name
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(left=left, right=1.0, bottom=0.0, top=1.0, hspace=0.1)
    for axes, name, row in zip(panels, names, rows, strict=True):
        axes.imshow(row, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([row.shape[0] / 2], [name])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return figure


def _images(run: RunFolder, record: CellRecord) -> NDArray[np.uint8]:
    """The first images (k, C, H, W) of a cell. Raises StoreError where it kept none."""
    name = record.files.get("samples")
    path = (run.path / str(name)).resolve()
    if name is None or not path.is_relative_to(run.path.resolve()) or not path.is_file():
        raise StoreError(
            "the samples of the cell are not in the run folder",
            got=record.label,
            remedy="Take the folder of the run itself; a published one holds numbers alone.",
            where=str(run.path),
        )
    images = read_levels(path)
    if images.ndim != 4:
        raise StoreError("the samples of the cell are no images", got=record.label, where=str(path))
    return images[:_COLUMNS]


def _row(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images (k, C, H, W) side by side, (H, k (W + gap) - gap, 3), on white."""
    pixels = images.transpose(0, 2, 3, 1)
    pixels = pixels.repeat(3, axis=3) if pixels.shape[3] == 1 else pixels
    count, height, width, _ = pixels.shape
    row = np.full((height, count * (width + GAP) - GAP, 3), GAP_LEVEL, dtype=np.uint8)
    for k, image in enumerate(pixels):
        row[:, k * (width + GAP) : k * (width + GAP) + width] = image
    return row
