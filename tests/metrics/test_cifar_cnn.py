"""The shipped features: what they take and refuse, and how their classifier is trained."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from kfpbench.data.cifar10 import Cifar10
from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, DataError, ShapeError
from kfpbench.features import cifar_cnn
from kfpbench.features.cifar_cnn import CifarCNN
from kfpbench.networks.classifier import Classifier
from kfpbench.training.classifier_trainer import ClassifierOptions, accuracy, augment, train_classifier


def images(count=8, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3072)).astype(np.float32)


def dataset(rows, shape=(3, 32, 32)):
    return Dataset("images", rows, rows[:0], rows[:0], image_shape=shape)


def test_a_row_does_not_depend_on_the_others():
    rows = images(7)
    together = CifarCNN().fit(dataset(rows)).transform(rows)
    assert together.shape == (7, 64)
    assert together.dtype == np.float64
    one_by_one = np.concatenate([CifarCNN().transform(rows[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(one_by_one, together, atol=1e-4 * np.abs(together).max())


def test_values_outside_are_clipped():
    rows = images(3)
    np.testing.assert_array_equal(CifarCNN().transform(rows * 5), CifarCNN().transform(np.clip(rows * 5, -1, 1)))


def test_other_data_are_refused():
    with pytest.raises(CapabilityError, match="32 x 32"):
        CifarCNN().fit(dataset(images(2)[:, :64], (1, 8, 8)))
    with pytest.raises(ShapeError, match="flattened"):
        CifarCNN().transform(images(2)[:, :100])


def test_missing_weights_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar_cnn, "_WEIGHTS", tmp_path / "none.safetensors")
    cifar_cnn._load.cache_clear()
    try:
        with pytest.raises(DataError, match="weights"):
            CifarCNN().transform(images(1))
    finally:
        cifar_cnn._load.cache_clear()


def test_the_version_names_the_weights():
    assert CifarCNN().version == f"cifar_cnn/{cifar_cnn._load()[1]}"
    assert len(cifar_cnn._load()[1]) == 12


def test_the_first_layer_whitens_patches():
    network = Classifier((3, 8, 8), 4, channels=(8,), width=4)
    torch.manual_seed(1)
    pictures = torch.nn.functional.avg_pool2d(torch.randn(500, 3, 24, 24), 3)  # 8 x 8, white; then a colour cast
    pictures = pictures + 0.5 * torch.randn(500, 1, 1, 1)
    network.whiten_stem(pictures)
    response = torch.nn.functional.conv2d(pictures, network.stem.weight[:12])
    flat = response.transpose(0, 1).reshape(12, -1)
    covariance = torch.cov(flat)
    assert torch.allclose(covariance, torch.eye(12), atol=0.02)  # 24,500 patches; the floor 5e-4 takes 1.5 % at most
    assert torch.equal(network.stem.weight[12:], -network.stem.weight[:12])


def test_augmented_images_are_mirrored_and_shifted_copies():
    ramp = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    moved = augment(ramp, 1, np.random.default_rng(0))
    padded = torch.nn.functional.pad(ramp[:1], (1,) * 4, mode="reflect")
    mirrored = torch.nn.functional.pad(ramp[:1].flip(3), (1,) * 4, mode="reflect")
    allowed = [p[0, :, a : a + 8, b : b + 8] for p in (padded, mirrored) for a in range(3) for b in range(3)]
    seen = {next(i for i, each in enumerate(allowed) if torch.equal(each, one)) for one in moved}
    assert seen == set(range(18))  # each misses with probability (17/18)^200 = 1e-5


def test_training_learns_what_can_be_learned():
    # two classes told apart by a bright corner; 1.0 of accuracy is reachable, 0.5 is chance
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.3, (400, 1, 8, 8)).astype(np.float32)
    labels = rng.integers(0, 2, 400)
    rows[labels == 1, :, 2:6, 2:6] += 0.8
    data = Dataset(
        "corners",
        rows.reshape(400, 64),
        rows[:0].reshape(0, 64),
        rows[:0].reshape(0, 64),
        image_shape=(1, 8, 8),
        train_labels=labels,
        classes=("dark", "bright"),
    )
    heard = []
    network = train_classifier(
        data, ClassifierOptions(channels=(16, 32), epochs=8, batch_size=40, shift=1), lambda *line: heard.append(line)
    )
    assert accuracy(network, torch.from_numpy(rows), torch.from_numpy(labels)) > 0.95
    assert [images for images, _, _ in heard] == [800, 1600, 2400, 3200]


def test_a_classifier_needs_labels():
    with pytest.raises(CapabilityError, match="labelled"):
        train_classifier(dataset(images(4)), ClassifierOptions(epochs=1), lambda *line: None)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KFPBENCH_DATA_DIR"), reason="KFPBENCH_DATA_DIR names no folder with CIFAR-10")
def test_the_shipped_classifier_knows_nine_in_ten_test_images():
    data = Cifar10().load()
    network = cifar_cnn._load()[0]
    share = accuracy(network, torch.from_numpy(data.test).view(-1, 3, 32, 32), torch.from_numpy(data.test_labels))
    assert share > 0.905  # the card says 0.910; float16 weights move some images in ten thousand


def test_the_card_speaks_of_the_shipped_weights():
    card = cifar_cnn._WEIGHTS.with_suffix(".md").read_text()
    count = sum(p.numel() for p in cifar_cnn._load()[0].state_dict().values())
    assert f"{count:,} numbers" in card
    assert cifar_cnn._WEIGHTS.stat().st_size <= 4 * 2**20
