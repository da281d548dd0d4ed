import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import kfpbench
from kfpbench.errors import ShapeError, StoreError
from kfpbench.store.run_folder import RunFolder, load_run, results_frame
from kfpbench.store.samples import read_samples

MANIFEST = {"suite": "name: demo", "seeds": [0, 1], "limit": math.inf}


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "demo", MANIFEST)


@pytest.fixture
def filled(run, make_record):
    run.append(make_record("c1", axes={"sampler.rank": 16, "sampler.kernel": {"name": "rbf"}}))
    run.append(make_record("c0", axes={}, measurements=[{"metric": "m", "value": math.inf, "ci_low": math.nan}]))
    run.append(make_record("c2", status="timeout", reason="too slow", measurements=[]))
    return run


def test_a_manifest_comes_back(run):
    assert RunFolder.open(run.path).read_manifest() == {"schema_version": 1, **MANIFEST}
    run.write_manifest({"suite": "other"})
    assert run.read_manifest() == {"schema_version": 1, "suite": "other"}
    assert sorted(os.listdir(run.path)) == ["manifest.json"]  # no temporary file stays


def test_a_manifest_is_replaced_whole_or_not_at_all(run, monkeypatch):
    before = run.manifest_path.read_bytes()

    def crash(*paths):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="power cut"):
        run.write_manifest({"suite": "other"})
    monkeypatch.undo()
    assert run.manifest_path.read_bytes() == before
    assert sorted(os.listdir(run.path)) == ["manifest.json"]


def test_an_existing_run_is_not_overwritten(run):
    with pytest.raises(StoreError, match="already holds a run"):
        RunFolder.create(run.path, {})
    assert run.read_manifest()["suite"] == MANIFEST["suite"]


def test_a_folder_with_other_content_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="not free"):
        RunFolder.create(tmp_path, {})
    with pytest.raises(StoreError, match="not free"):
        RunFolder.create(tmp_path / "thesis.tex", {})
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_bad_manifest_leaves_nothing_behind(tmp_path):
    with pytest.raises(StoreError, match=r"value\.device"):
        RunFolder.create(tmp_path / "run", {"device": object()})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("make", [False, True])
def test_what_is_not_a_run_is_named(tmp_path, make):
    folder = tmp_path / "folder"
    if make:
        folder.mkdir()
    assert not RunFolder.is_run(folder)
    for use in (RunFolder.open, load_run):
        with pytest.raises(StoreError, match=r"no manifest\.json.*run a suite first"):
            use(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": "1"}'])
def test_a_damaged_manifest_is_named(run, text):
    run.manifest_path.write_text(text)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        load_run(run.path)


def test_the_table_on_disk_equals_the_log(filled):
    written = filled.write_results()
    rebuilt = results_frame(filled.log.read().records)
    assert_frame_equal(written, rebuilt)
    assert_frame_equal(load_run(filled.path), rebuilt)
    filled.results_path.unlink()
    assert_frame_equal(load_run(filled.path), rebuilt)
    assert not filled.results_path.exists()  # reading writes nothing
    assert kfpbench.load_run is load_run


def test_an_empty_run_has_an_empty_table(run):
    assert_frame_equal(load_run(run.path), results_frame([]))
    run.write_results()
    assert_frame_equal(load_run(run.path), results_frame([]))


def test_a_table_older_than_the_log_is_not_used(filled, make_record):
    filled.write_results()
    stale = os.stat(filled.results_path)
    filled.append(make_record("c2"))
    future = stale.st_mtime + 3600  # a copied folder keeps no order of times
    os.utime(filled.results_path, (future, future))
    assert_frame_equal(load_run(filled.path), results_frame(filled.records()))
    assert (load_run(filled.path)["status"] == "ok").all()


def test_a_published_table_without_its_log_is_read(filled):
    frame = filled.write_results()
    filled.log.path.unlink()
    assert_frame_equal(load_run(filled.path), frame)


def test_a_half_written_line_is_reported_and_does_not_spoil_the_table(filled):
    frame = filled.write_results()
    with filled.log.path.open("ab") as stream:
        stream.write(b'{"cell"')
    assert_frame_equal(load_run(filled.path), frame)
    with pytest.warns(UserWarning, match="half-written last line of 7 bytes"):
        assert len(filled.records()) == 3


def test_a_broken_table_says_what_to_do(filled):
    filled.write_results()
    filled.results_path.write_bytes(filled.results_path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"results\.parquet.*Delete it"):
        load_run(filled.path)


def test_a_newer_schema_is_refused_everywhere(filled, monkeypatch):
    frame = filled.write_results()
    line = json.loads(filled.log.path.read_text().splitlines()[0])
    with monkeypatch.context() as patch:
        patch.setattr("kfpbench.store.records.SCHEMA_VERSION", 2)
        filled.write_results()
    with pytest.raises(StoreError, match="table has a newer schema_version"):
        load_run(filled.path)
    filled.results_path.unlink()
    assert_frame_equal(load_run(filled.path), frame)
    with filled.log.path.open("a") as stream:
        stream.write(json.dumps({**line, "schema_version": 2}) + "\n")
    with pytest.raises(StoreError, match=r"cells\.jsonl:4.*Upgrade kfpbench"):
        load_run(filled.path)
    filled.write_manifest({"schema_version": 2})
    with pytest.raises(StoreError, match="manifest has a newer schema_version"):
        load_run(filled.path)


def test_points_are_stored_exactly_with_a_picture(run, points):
    samples = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    files = run.save_samples("c0", samples, points)
    assert files == {"samples": "samples/c0.npz", "grid": "samples/c0.png"}
    assert np.array_equal(read_samples(run.path / files["samples"]), samples)
    with np.load(run.path / files["samples"]) as content:
        assert str(content["dataset"]) == "square"
        assert str(content["fingerprint"]) == "ab12"
        assert content["image_shape"].size == 0
    assert (run.path / files["grid"]).read_bytes().startswith(b"\x89PNG")


def test_images_are_stored_in_a_byte_a_value(run, images):
    samples = np.random.default_rng(1).uniform(-1, 1, size=(50, 48)).astype(np.float32)
    samples[0, :4] = [1.5, -2.0, np.nan, np.inf]
    path = run.path / run.save_samples("c0", samples, images)["samples"]
    back = read_samples(path)
    assert back.dtype == np.float32
    assert back.shape == samples.shape
    assert np.abs(back[1:] - samples[1:]).max() <= 1 / 255 + 1e-6
    assert back[0, :4].tolist() == [1, -1, -1, 1]
    with np.load(path) as content:
        assert content["samples"].dtype == np.uint8
        assert content["samples"].shape == (50, 3, 4, 4)
        assert (int(content["clipped"]), int(content["nonfinite"])) == (2, 2)


def test_cell_names_cannot_leave_the_folder_nor_collide(run, points):
    cells = ["../../evil", "a/b", "a%2Fb", "a b", "..", "k=rbf,rank=16", "é"]
    paths = [run.save_samples(cell, points.test, points, grid=False)["samples"] for cell in cells]
    assert len(set(paths)) == len(cells)
    assert sorted(os.listdir(run.samples_path)) == sorted(path.removeprefix("samples/") for path in paths)
    assert sorted(os.listdir(run.path)) == ["manifest.json", "samples"]


def test_samples_of_another_shape_are_refused(run, points):
    with pytest.raises(ShapeError, match="square"):
        run.save_samples("c0", np.zeros((5, 3), np.float32), points)
    assert os.listdir(run.samples_path) == []


def test_a_file_that_holds_no_samples_is_named(tmp_path):
    path = tmp_path / "x.npz"
    for content in (b"", b"PK\x03\x04", b"text"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"x\.npz"):
            read_samples(path)


def test_importing_the_store_is_light():
    code = (
        "import sys, kfpbench.store.run_folder\n"
        "print(*{'torch', 'pandas', 'pyarrow', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
