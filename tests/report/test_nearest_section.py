"""Samples beside their nearest training images on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kfpbench.report.aggregate import group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.html import render_report
from kfpbench.report.nearest_section import BUDGET, MOST, build_nearest

PAIRS = {"features": "identity", "distance": [0.5, 1.25], "median_held_out_distance": 2.5}


def record(folder: Path, label: str, memorised: float = 0.0, side: int = 40) -> dict[str, Any]:
    name = f"samples/{label}.nearest.png"
    (folder / "samples").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (side, 2 * side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / name)
    return {
        "cell": label,
        "label": label,
        "status": "ok",
        "spec": {"data": {"name": "digits"}, "sampler": {"name": label}},
        "files": {"nearest": name},
        "details": {"nearest_training": PAIRS},
        "measurements": [
            {"metric": "memorised_fraction", "value": memorised, "ci_low": memorised, "ci_high": memorised, "n": 9}
        ],
    }


def section(records: list[dict[str, Any]], folder: Path) -> Any:
    return build_nearest(group_repeats(read_cells(records)), folder)


def test_pictures_are_embedded_with_the_distances_in_words(tmp_path: Path) -> None:
    page = render_report({}, [record(tmp_path, "heun")], tmp_path)
    assert 'src="data:image/png;base64,' in page
    assert "Distances in pixels. Held-out images: median 2.5" in page
    assert "each above its nearest training image: distances 0.500, 1.25" in page


def test_cells_that_copy_come_first(tmp_path: Path) -> None:
    records = [record(tmp_path, "fine"), record(tmp_path, "copier", 0.8), record(tmp_path, "other")]
    assert [picture.label for picture in section(records, tmp_path).pictures] == ["copier", "fine", "other"]


def test_a_missing_picture_is_named_and_a_run_without_any_has_no_section(tmp_path: Path) -> None:
    gone = record(tmp_path, "gone")
    (tmp_path / gone["files"]["nearest"]).unlink()
    assert "is missing" in section([gone], tmp_path).left_out[0]
    page = render_report({}, [{**gone, "files": {}}], tmp_path)
    assert 'id="nearest"' not in page


@pytest.mark.parametrize(("count", "side"), [(MOST + 3, 40), (4, 500)])
def test_the_page_holds_no_more_than_its_budget(tmp_path: Path, count: int, side: int) -> None:
    records = [record(tmp_path, f"cell-{i}", side=side) for i in range(count)]
    made = section(records, tmp_path)
    assert sum(len(picture.uri) for picture in made.pictures) <= BUDGET
    assert len(made.pictures) == min(count, MOST)
    assert ("3 more cells" in "".join(made.left_out)) == (count > MOST)
