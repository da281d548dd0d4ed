"""Samples with a known answer: held-out rows are at the floor, copies are found, and storage changes no number."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kfpbench
from kfpbench.data.digits import Digits
from kfpbench.data.mixtures import PlanarMixture
from kfpbench.errors import CapabilityError, DataError, NumericalError, ParameterError, ShapeError, SuiteError
from kfpbench.scoring.metric_list import create_metrics, default_features, default_metrics
from kfpbench.scoring.read_samples import read_samples
from kfpbench.scoring.score_samples import score_samples
from kfpbench.store.samples import to_levels, write_samples

METRICS = ("frechet", "precision_recall", "density_coverage", "nearest_train")


def images_of(rows):
    return to_levels(rows).reshape(-1, 8, 8)


@pytest.fixture(scope="module")
def scored(digits, tmp_path_factory):
    """Scores of rows of the digits, written as an npz, by a key of their own."""
    folder = tmp_path_factory.mktemp("rows")
    done = {}

    def score(name, rows, **options):
        key = (name, *sorted(options.items()))
        if key not in done:
            np.savez(folder / f"{name}.npz", samples=rows)
            samples = read_samples(folder / f"{name}.npz", digits)
            done[key] = score_samples(samples, digits, metrics=METRICS, **options)
        return done[key]

    return score


def overlap(entry, other):
    return entry["ci_low"] <= other["ci_high"] and other["ci_low"] <= entry["ci_high"]


def test_held_out_rows_are_at_the_floor(digits, scored):
    result = scored("test", images_of(digits.test))
    assert result.rows["n"] == 250
    assert result.rows["equal_to_reference_rows"] == 500
    assert "500 of 500 samples are rows of test themselves" in " ".join(result.notes)
    for entry in result.measurements:
        assert overlap(entry, entry["floor"]), entry["metric"]
    assert result.value("copied_fraction") < 0.05
    assert result.value("nearest_train_ratio") == pytest.approx(1.0, abs=0.1)
    assert result.value("recall") > 0.8
    assert result.findings == []


def test_copies_of_training_rows_are_found(digits, scored):
    result = scored("copies", digits.train[:300].reshape(-1, 1, 8, 8))
    assert result.value("copied_fraction") == 1.0
    assert result.value("nearest_train_ratio") == 0.0
    assert result.rows["equal_to_training_rows"] == 300
    assert "300 of 300 samples equal training rows, value for value" in result.notes
    assert [finding["kind"] for finding in result.findings] == ["copies"]
    assert result.findings[0]["evidence"][0]["value"] == 1.0
    floor = {entry["metric"]: entry["floor"] for entry in result.measurements}
    assert floor["copied_fraction"]["ci_high"] < 0.1
    # the levels of an 8-bit file are up to 1/255 away from the sixteenths of this data set
    stored = scored("stored_copies", images_of(digits.train[:300]))
    assert stored.value("copied_fraction") == 1.0
    assert stored.value("nearest_train_ratio") < 0.02
    assert stored.rows["equal_to_training_rows"] == 300
    assert [finding["kind"] for finding in stored.findings] == ["copies"]
    among = scored("train_reference", digits.train[:300].reshape(-1, 1, 8, 8), reference="train")
    assert among.value("copied_fraction") == 1.0
    assert among.data["reference"] == "digits/train"


def test_noise_is_far_from_the_floor(digits, scored):
    result = scored("noise", np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8))
    for entry in result.measurements:
        if entry["metric"] in ("frechet", "precision", "recall", "coverage", "nearest_train_ratio"):
            assert not overlap(entry, entry["floor"]), entry["metric"]
    assert result.value("nearest_train_ratio") > 1.5
    assert [finding["kind"] for finding in result.findings] == ["noise"]


def test_storage_changes_no_number(digits, tmp_path, picture_folder):
    levels = images_of(digits.test[:120])
    folder = picture_folder(levels)
    np.savez(tmp_path / "a.npz", images=levels[:, :, :, None])
    np.save(tmp_path / "a.npy", levels.reshape(120, 64))
    colour = picture_folder(np.repeat(levels[:, :, :, None], 3, axis=3), "colour")
    results = [
        score_samples(read_samples(path, digits), digits, metrics=["frechet", "nearest_train"], n=100, seed=5)
        for path in (folder, tmp_path / "a.npz", tmp_path / "a.npy", colour)
    ]
    assert len({json.dumps(result.measurements, sort_keys=True) for result in results}) == 1
    assert len({result.samples["sha256"] for result in results}) == 1
    again = score_samples(read_samples(folder, digits), digits, metrics=["frechet", "nearest_train"], n=100, seed=5)
    assert again.to_json() == results[0].to_json()
    assert str(tmp_path) not in again.to_json()
    other = score_samples(read_samples(folder, digits), digits, metrics=["frechet"], n=100, seed=6)
    assert other.value("frechet") != again.value("frechet")


def test_a_run_and_its_sample_file_have_the_same_numbers(tmp_path):
    suite = {
        "name": "ring",
        "data": "gmm_ring",
        "score": "mixture",
        "process": "ve",
        "samplers": [{"name": "pf_ode_heun", "steps": 4}],
        "metrics": ["energy_distance", "density_coverage"],
        "n_samples": 150,
        "latency_repeats": 1,
        "seed": 4,
    }
    record = kfpbench.run(suite, out=tmp_path / "run").records[0]
    assert record.status == "ok", record.reason
    data = kfpbench.registry.find("datasets", "gmm_ring").load()().load()
    samples = read_samples(tmp_path / "run" / record.files["samples"], data)
    assert "written by kfpbench; the fingerprint of its data set agrees" in samples.read_as
    result = score_samples(samples, data, metrics=["energy_distance", "density_coverage"], seed=4)
    of_run = {entry["metric"]: entry for entry in record.measurements}
    for entry in result.measurements:
        expected = of_run[entry["metric"]]
        assert entry["value"] == pytest.approx(expected["value"], rel=1e-6), entry["metric"]
        assert entry["ci_low"] == pytest.approx(expected["ci_low"], rel=1e-6)
    with pytest.raises(DataError, match=r"run folder, which holds the samples of many cells.*Name one, such as"):
        read_samples(tmp_path / "run", data)


def test_files_of_other_data_sets_are_refused(tmp_path, digits):
    planar = PlanarMixture().load()
    write_samples(tmp_path / "own.npz", digits.test, digits)
    assert read_samples(tmp_path / "own.npz", digits).rows().shape == (500, 64)
    with pytest.raises(DataError, match=r"drawn for another data set; got \"'digits'"):
        read_samples(tmp_path / "own.npz", planar)
    broken = digits.test.copy()
    broken[3, 3] = np.nan
    write_samples(tmp_path / "own.npz", broken, digits)
    with pytest.raises(NumericalError, match=r"NaN or infinity, which the file holds as other values; got '1 values'"):
        read_samples(tmp_path / "own.npz", digits)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.full((20, 8, 8), np.nan), NumericalError, "NaN or infinity; got '20 of 20 rows'"),
        (np.zeros((3, 8, 8), np.uint8), ShapeError, "too few samples"),
        (np.zeros((20, 8, 8), bool), DataError, "no real numbers; got 'bool'"),
        (np.zeros((20, 8, 8), complex), DataError, "no real numbers"),
        (np.zeros((20, 8, 8), "U3"), DataError, "no real numbers"),
        (np.zeros(20, np.uint8), ShapeError, "too few samples"),
        (np.zeros((20, 9, 9), np.uint8), ShapeError, "Pass --resize"),
        (np.zeros((20, 63), np.uint8), ShapeError, "does not look like images"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, digits, array, error, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(error, match=message) as caught:
        read_samples(tmp_path / "a.npy", digits)
    assert caught.value.where == str(tmp_path / "a.npy")


def test_bad_paths_and_options_are_refused(tmp_path, digits, picture_folder):
    planar = PlanarMixture().load()
    folder = picture_folder(images_of(digits.test[:20]))
    for path, data, message in [
        (tmp_path / "none.npz", digits, "no such file or folder"),
        (folder / "img1.png", digits, "Name the folder that holds the image"),
        (folder, planar, "cannot be measured against points"),
    ]:
        with pytest.raises(DataError, match=message):
            read_samples(path, data)
    np.save(tmp_path / "a.npy", planar.test)
    with pytest.raises(ParameterError, match="neither a range of values nor a size"):
        read_samples(tmp_path / "a.npy", planar, resized=True)
    np.save(tmp_path / "a.npy", planar.test[:, :1])
    with pytest.raises(ShapeError, match="does not hold points"):
        read_samples(tmp_path / "a.npy", planar)


def test_resizing_is_recorded(tmp_path, digits):
    large = np.kron(images_of(digits.test[:40]), np.ones((4, 4), np.uint8))
    np.save(tmp_path / "large.npy", large)
    samples = read_samples(tmp_path / "large.npy", digits, resized=True)
    assert samples.rows().shape == (40, 64)
    assert "resized from 32 x 32 to 8 x 8 pixels by pillow" in samples.read_as[-1]
    assert np.corrcoef(samples.rows().ravel(), digits.test[:40].ravel())[0, 1] > 0.95
    np.save(tmp_path / "same.npy", images_of(digits.test[:40]))  # of the right size: nothing is resized
    assert "resized" not in " ".join(read_samples(tmp_path / "same.npy", digits, resized=True).read_as)


def test_metrics_and_features_follow_the_data(digits):
    assert default_features(digits) == "pca"
    assert default_metrics(digits)[0] == "frechet"
    assert {"precision_recall", "density_coverage", "nearest_train"} < set(default_metrics(digits))
    assert default_metrics(PlanarMixture().load())[0] == "energy_distance"
    labels = [label for label, _ in create_metrics(["frechet", "frechet[pca]", "nearest_train"], "identity")]
    assert labels == ["frechet[identity]", "frechet[pca]", "nearest_train"]
    with pytest.raises(SuiteError, match="Did you mean 'frechet'"):
        create_metrics(["frechett"], "pca")
    with pytest.raises(SuiteError, match="no component of features"):
        create_metrics(["frechet"], "pcaa")
    for names in (["frechet", "frechet[pca]"], [], ["frechet[pca"], ["exact_w2[pca]"]):
        with pytest.raises(ParameterError):
            create_metrics(names, "pca")


def test_a_metric_that_cannot_be_taken_is_named(digits, tmp_path):
    np.save(tmp_path / "a.npy", images_of(digits.test[:50]))
    samples = read_samples(tmp_path / "a.npy", digits)
    result = score_samples(samples, digits, metrics=["frechet", "exact_w2"])
    assert [entry["metric"] for entry in result.measurements] == ["frechet"]
    assert list(result.skipped_metrics) == ["exact_w2"]
    with pytest.raises(CapabilityError, match="no metric can be taken"):
        score_samples(samples, digits, metrics=["exact_w2"])
    cifar = score_samples(samples, Digits().load(), metrics=["frechet[pca]", "frechet[cifar_cnn]"])
    assert list(cifar.skipped_metrics) == ["frechet[cifar_cnn]"]
