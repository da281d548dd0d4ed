"""The published CIFAR-10 suite, cut down, on real images: the whole path from files to report."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import kfpbench
from kfpbench.store.samples import read_samples

pytestmark = pytest.mark.skipif(
    not os.environ.get("KFPBENCH_DATA_DIR"), reason="set KFPBENCH_DATA_DIR to a folder with CIFAR-10 to run this"
)

SUITE = Path(__file__).parents[1] / "suites" / "cifar10_quick.yaml"
CUT_DOWN = (
    "data.train_size=2000",
    "n_samples=64",
    "batch_size=32",
    "latency_repeats=3",
    "samplers.spectral.operator.points=150",
    "samplers.spectral.operator.segments=2",
    "samplers.heun_18.steps=3",
    "samplers.em_100.steps=3",
)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar10") / "run"
    return kfpbench.run(SUITE, out=folder, overrides=CUT_DOWN)


def test_every_cell_runs_and_the_report_shows_images(result):
    assert [record.status for record in result.records] == ["ok"] * 5, [record.reason for record in result.records]
    assert result.report.stat().st_size > 1_000_000
    assert all((result.folder / record.files["grid"]).is_file() for record in result.records)


def test_rank_0_is_the_closed_form_gaussian_sampler(result):
    samples = {record.label: read_samples(result.folder / record.files["samples"]) for record in result.records}
    # stored as 8-bit levels: float rounding can move a value across the middle between two of them, never further
    difference = np.abs(samples["spectral_rank0"] - samples["gaussian"]) * 127.5
    assert difference.max() <= 1.01
    assert (difference > 0.5).mean() < 1e-3
    assert np.abs(samples["spectral"] - samples["gaussian"]).max() * 127.5 > 2.0, "the kernel part did nothing"


def test_costs_are_counted(result):
    table = result.frame.pivot_table(index="label", columns="metric", values="value")
    assert table.loc["heun_18", "nfe"] == 6
    assert table.loc["em_100", "nfe"] == 3
    assert table.loc[["spectral", "spectral_rank0", "gaussian"], "nfe"].tolist() == [0, 0, 0]
    assert table.loc["spectral", "setup_nfe"] == 150 * 2
    assert table.loc["gaussian", "setup_nfe"] == 0


def test_samples_lie_where_images_lie(result):
    samples = {record.label: read_samples(result.folder / record.files["samples"]) for record in result.records}
    for label, rows in samples.items():
        assert rows.shape == (64, 3072), label
        assert np.abs(rows).max() <= 1.0, label
