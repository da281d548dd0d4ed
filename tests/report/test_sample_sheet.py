"""A sheet of samples holds the images that the run kept, a row for each cell that was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kfpbench.cli import main
from kfpbench.errors import StoreError
from kfpbench.report.paper_style import styled
from kfpbench.report.sample_sheet import sample_sheet, write_sample_sheet
from kfpbench.runner.execute import run
from kfpbench.store.run_folder import RunFolder
from kfpbench.store.samples import read_levels

SUITE = """\
name: sheet
data: {name: digits}
score: {name: empirical}
process: {name: ve, sigma_min: 0.05, sigma_max: 20.0}
samplers: [gaussian, {name: pf_ode_heun, label: heun}]
grid: {samplers.heun.steps: [2, 5]}
metrics: [{name: energy_distance}]
n_samples: 20
batch_size: 20
latency_repeats: 1
"""

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'kfpbench[figures]'")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("sheet")
    (folder / "suite.yaml").write_text(SUITE)
    run(folder / "suite.yaml", out=folder / "run")
    return RunFolder.open(folder / "run")


def test_every_row_is_a_cells_first_images(finished: RunFolder, tmp_path: Path) -> None:
    records = {record.label + str(record.axes.get("samplers.heun.steps", "")): record for record in finished.records()}
    with styled():
        figure = sample_sheet(finished, ["heun (steps 5)", "gaussian"])
        assert [axes.get_yticklabels()[0].get_text() for axes in figure.axes] == ["heun (steps 5)", "gaussian"]
    for axes, key in zip(figure.axes, ("heun5", "gaussian"), strict=True):
        kept = read_levels(finished.path / records[key].files["samples"])
        shown = np.asarray(axes.images[0].get_array())
        assert shown.shape == (8, 14 * 10 - 2, 3)
        for k in range(14):
            for channel in range(3):
                assert np.array_equal(shown[:, 10 * k : 10 * k + 8, channel], kept[k, 0])
    path = write_sample_sheet(finished, ["gaussian"], tmp_path, "png")
    assert Image.open(path).width > 1500  # 6.75 inches of 300 pixels


def test_what_cannot_be_shown_is_said(finished: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no cell has that label; got 'heun'.*heun \(steps 2\)"):
        write_sample_sheet(finished, ["heun"], tmp_path, "png")
    bare = tmp_path / "bare"
    shutil.copytree(finished.path, bare, ignore=shutil.ignore_patterns("samples"))
    with pytest.raises(StoreError, match="a published one holds numbers alone"):
        write_sample_sheet(RunFolder.open(bare), ["gaussian"], tmp_path, "png")
    assert not (tmp_path / "samples.png").exists()


def test_the_command_writes_the_sheet_alone(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["figures", str(finished.path), "--out", str(tmp_path), "--format", "svg", "--samples", "gaussian"])
    assert not end.value.code
    assert capsys.readouterr().out.split() == [str(tmp_path / "samples.svg")]
    assert [path.name for path in tmp_path.iterdir()] == ["samples.svg"]
