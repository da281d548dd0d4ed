"""The features of a small classifier: what they take and refuse, and the weights that are shipped."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kfpbench.data.cifar10 import Cifar10
from kfpbench.errors import CapabilityError, DataError, ShapeError
from kfpbench.features import cifar_cnn
from kfpbench.features.cifar_cnn import CifarCNN
from kfpbench.networks.checkpoint import TrainingRecord, save_checkpoint
from kfpbench.networks.classifier_checkpoint import (
    CLASSIFIER_LIMIT,
    ClassifierArchitecture,
    ClassifierRecord,
    load_classifier,
)
from kfpbench.training.classifier_trainer import measure
from kfpbench.training.load import load_training


def test_a_row_does_not_depend_on_the_others(images, of_images):
    rows = images(7)
    together = CifarCNN().fit(of_images(rows)).transform(rows)
    assert together.shape == (7, 64)
    assert together.dtype == np.float64
    one_by_one = np.concatenate([CifarCNN().transform(rows[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(one_by_one, together, atol=1e-4 * np.abs(together).max())


def test_values_outside_are_clipped(images):
    rows = images(3)
    np.testing.assert_array_equal(CifarCNN().transform(rows * 5), CifarCNN().transform(np.clip(rows * 5, -1, 1)))


def test_no_rows_have_no_features(images):
    assert CifarCNN().transform(images(0)).shape == (0, 64)


def test_other_data_are_refused(images, of_images):
    with pytest.raises(CapabilityError, match="32 x 32"):
        CifarCNN().fit(of_images(images(2)[:, :64], (1, 8, 8)))
    with pytest.raises(ShapeError, match="flattened"):
        CifarCNN().transform(images(2)[:, :100])


def test_weights_that_cannot_be_read_say_so(monkeypatch, tmp_path, images):
    with pytest.raises(DataError, match=r"cannot be read: the network's checkpoint does not exist"):
        CifarCNN(weights=str(tmp_path / "none.safetensors")).transform(images(1))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(cifar_cnn._WEIGHTS.read_bytes()[:-100])
    monkeypatch.setattr(cifar_cnn, "_WEIGHTS", damaged)
    with pytest.raises(DataError, match=r"damaged.safetensors: the weights .* Reinstall kfpbench"):
        CifarCNN().transform(images(1))


@pytest.fixture
def own_weights(tmp_path):
    """Writes a classifier of grey images of 8 x 8 pixels with random weights."""

    def make(seed, name="own.safetensors"):
        torch.manual_seed(seed)
        architecture = ClassifierArchitecture(image_shape=(1, 8, 8), classes=3, channels=[6], width=5)
        training = TrainingRecord(
            name="own",
            command="kfpbench train own.yaml",
            dataset="digits",
            fingerprint="ab",
            rows=10,
            images=20,
            steps=2,
            seconds=1.0,
            hardware=[],
            torch="2",
            kfpbench="0",
            options={},
        )
        record = ClassifierRecord(architecture=architecture, training=training, classes=["a", "b", "c"])
        network = architecture.build()
        save_checkpoint(tmp_path / name, network.state_dict(), record)
        return tmp_path / name, network

    return make


def test_weights_of_your_own(own_weights, of_images):
    path, network = own_weights(0)
    rows = np.random.default_rng(1).uniform(-1, 1, (4, 64)).astype(np.float32)
    fitted = CifarCNN(weights=str(path)).fit(of_images(rows, (1, 8, 8)))
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    with torch.inference_mode():
        expected = network.eval().features(torch.from_numpy(rows).view(-1, 1, 8, 8)).numpy()
    np.testing.assert_allclose(fitted.transform(rows), expected, atol=1e-6)
    first = fitted.version
    assert first != CifarCNN().version
    own_weights(1)  # the same file, other weights
    os.utime(path, ns=(1, 1))
    assert fitted.version != first
    assert CifarCNN(weights=str(own_weights(0, "same.safetensors")[0])).version == first


def test_a_file_that_is_no_classifier_is_refused(own_weights, tmp_path):
    path, _ = own_weights(0)
    record = ClassifierRecord.model_validate_json(_header(path))
    with pytest.raises(DataError, match=r"not that of a classifier: channels"):
        load_classifier(_rewritten(path, record.model_dump_json().replace("[6]", "[0]")))
    with pytest.raises(DataError, match=r"wrong shape"):
        load_classifier(_rewritten(path, record.model_dump_json().replace("[6]", "[7]")))
    with pytest.raises(DataError, match=r"missing"):
        load_classifier(_rewritten(path, record.model_dump_json().replace("[6]", "[6,6]")))
    with pytest.raises(DataError, match=r"not JSON"):
        load_classifier(_rewritten(path, "{"))
    # a record that asks for more memory than there is allocates nothing
    huge = record.model_dump_json().replace("[6]", "[4096,4096,4096,4096]")
    with pytest.raises(DataError, match=r"missing|not possible"):
        load_classifier(_rewritten(path, huge))


def _header(path: Path) -> str:
    from kfpbench.networks.checkpoint import read_header

    return read_header(path)[0]


def _rewritten(path: Path, header: str) -> Path:
    from safetensors.torch import load_file, save_file

    other = path.with_name("rewritten.safetensors")
    save_file(load_file(path), other, metadata={"kfpbench": header})
    return other


def test_the_version_names_the_weights(of_images, images):
    loaded = load_classifier(cifar_cnn._WEIGHTS)
    assert CifarCNN().version == f"cifar_cnn/{loaded.sha256[:12]}"
    fitted = CifarCNN().fit(of_images(images(2)))
    assert fitted.describe() == {"features": "cifar_cnn", "version": fitted.version, "resize": "none"}


def test_the_card_speaks_of_the_shipped_weights_and_the_command_that_makes_them():
    card = cifar_cnn._WEIGHTS.with_suffix(".md").read_text()
    loaded = load_classifier(cifar_cnn._WEIGHTS)
    count = sum(value.numel() for value in loaded.network.state_dict().values())
    assert f"{count:,} numbers" in card
    assert loaded.size <= CLASSIFIER_LIMIT
    assert f"`{loaded.sha256}`" in card
    (file,) = re.findall(r"`kfpbench train (\S+)`", card)
    options = load_training(Path(__file__).parents[2] / file)
    assert options.channels == loaded.architecture.channels
    assert options.width == loaded.architecture.width
    assert f"{options.epochs} epochs, batches of {options.batch_size}" in card
    assert f"seed {options.seed}" in card


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KFPBENCH_DATA_DIR"), reason="KFPBENCH_DATA_DIR names no folder with CIFAR-10")
def test_the_shipped_classifier_knows_nine_in_ten_test_images():
    found = measure(load_classifier(cifar_cnn._WEIGHTS).network, Cifar10().load())
    assert found["test"].share > 0.905  # the card says 0.910; sums in another order move some images in ten thousand
    assert found["validation"].share > 0.913  # 0.918
    assert found["test"].images == 10_000
