"""The U-Net's score: the network at x / alpha and sigma / alpha, counted, tiled, of a class or of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kfpbench
from kfpbench.data.digits import Digits
from kfpbench.errors import CapabilityError, DataError, ParameterError, StoreError
from kfpbench.networks import checkpoint as checkpoints
from kfpbench.networks.architecture import Architecture
from kfpbench.networks.checkpoint import CheckpointRecord, TrainingRecord, digest, load_checkpoint, save_checkpoint
from kfpbench.protocols import BoundScore, ProblemSize, ScorePlugin
from kfpbench.scores import unet
from kfpbench.scores.unet import BoundUNetScore, UNetScore

CPU = torch.device("cpu")
DIGITS = Digits().load()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights for 8 x 8 digits of ten classes."""
    architecture = Architecture(
        patch=1, channels=[16, 32], attention=[1], image_shape=(1, 8, 8), classes=[str(digit) for digit in range(10)]
    )
    training = TrainingRecord(
        name="toy",
        command="",
        dataset="digits",
        fingerprint="",
        rows=1,
        images=640,
        steps=10,
        seconds=1.0,
        hardware=[],
        torch="",
        kfpbench="",
        options={},
    )
    torch.manual_seed(0)
    weights = {name: 0.2 * torch.randn_like(value) for name, value in architecture.build().named_parameters()}
    path = tmp_path_factory.mktemp("unet") / "toy.safetensors"
    save_checkpoint(path, weights, CheckpointRecord(architecture=architecture, training=training))
    return path


def bound(file: Path, dtype: torch.dtype = torch.float32, **parameters: int) -> BoundUNetScore:
    return UNetScore(str(file), **parameters).bind(DIGITS, CPU, dtype)


def rows(n: int = 10, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, 64, generator=torch.Generator().manual_seed(3), dtype=dtype)


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.3), (0.4, 0.9), (0.1, 8.0)])
def test_it_is_the_network_at_the_scaled_point(file: Path, alpha: float, sigma: float) -> None:
    denoiser = load_checkpoint(file).denoiser
    x = rows()
    levels = torch.full((10,), sigma / alpha)
    for label in (None, 3):
        labels = torch.full((10,), 10 if label is None else label)
        expected = denoiser((x / alpha).view(10, 1, 8, 8), levels, labels).flatten(1)
        found = bound(file).of_class(label).denoise(x, alpha, sigma)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        score = bound(file).of_class(label).score(x, alpha, sigma)
        torch.testing.assert_close(score, (alpha * expected - x) / sigma**2, rtol=1e-3, atol=1e-3)


def test_it_keeps_the_protocols(file: Path) -> None:
    plugin = UNetScore(str(file))
    assert isinstance(plugin, ScorePlugin)
    assert isinstance(plugin.bind(DIGITS, CPU, torch.float32), BoundScore)


def test_values_have_the_type_of_the_points_and_no_gradient(file: Path) -> None:
    score, x = bound(file, torch.float64), rows(dtype=torch.float64)
    found = score.denoise(x, 0.7, 0.7)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), score.denoise(x.float(), 0.7, 0.7), rtol=1e-4, atol=1e-4)
    weight = torch.ones(64, dtype=torch.float64, requires_grad=True)
    (found @ weight).sum().backward()  # a value of inference mode could not be used here
    assert weight.grad is not None


def test_rows_do_not_depend_on_their_batch_or_tile(file: Path) -> None:
    """Rounding alone: 1e-5 of the largest value, where a statistic of the batch would show in the first digit."""
    whole = bound(file, tile=256).denoise(rows(), 1.0, 0.5)
    tiled = bound(file, tile=3).denoise(rows(), 1.0, 0.5)
    single = bound(file).denoise(rows()[4:5], 1.0, 0.5)
    scale = float(whole.abs().max())
    assert float((whole - tiled).abs().max()) < 1e-5 * scale
    assert float((whole[4:5] - single).abs().max()) < 1e-5 * scale
    assert bound(file).denoise(rows()[:0], 1.0, 0.5).shape == (0, 64)


def test_classes_share_one_count(file: Path) -> None:
    score = bound(file, tile=4)
    of_two = score.of_class(2)
    score.denoise(rows(), 1.0, 0.5)
    of_two.score(rows(7), 1.0, 0.5)
    assert score.evaluations == of_two.evaluations == 17
    assert score.bottleneck(rows(3), 1.0, 0.5).shape == (3, 32)
    assert score.evaluations == 20
    assert bound(file).evaluations == 0
    assert torch.equal(of_two.denoise(rows(), 1.0, 0.5), bound(file, label=2, tile=4).denoise(rows(), 1.0, 0.5))
    assert not torch.equal(of_two.denoise(rows(), 1.0, 0.5), score.denoise(rows(), 1.0, 0.5))


def test_the_bottleneck_is_the_mean_of_the_lowest_level(file: Path) -> None:
    score = bound(file, tile=3)
    seen = []
    hook = score.denoiser.network.middle.register_forward_hook(lambda module, given, value: seen.append(value))
    features = score.bottleneck(rows(), 0.5, 0.5)
    assert len(seen) == 4
    score.denoise(rows(), 0.5, 0.5)
    hook.remove()
    torch.testing.assert_close(features, torch.cat(seen[4:]).mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CapabilityError, match=r"another shape.*\(1, 8, 8\)"):
        UNetScore(str(file)).bind(replace(DIGITS, image_shape=(1, 4, 16)), CPU, torch.float32)
    with pytest.raises(CapabilityError, match=r"image_shape None"):
        UNetScore(str(file)).bind(replace(DIGITS, image_shape=None), CPU, torch.float32)
    with pytest.raises(ParameterError, match=r"no such label; got 10; allowed: 0 to 9"):
        bound(file, label=10)
    missing = tmp_path / "weights.safetensors"
    with pytest.raises(DataError, match=r"does not exist.*kfpbench train"):
        bound(missing)
    monkeypatch.setattr(checkpoints, "SHIPPED", missing)
    monkeypatch.setattr(unet, "SHIPPED", missing)
    with pytest.raises(DataError, match=r"kfpbench train suites/train_cifar10.yaml"):
        UNetScore().bind(DIGITS, CPU, torch.float32)
    assert UNetScore().fingerprint() is None


def test_it_says_which_file_it_is(file: Path) -> None:
    said = bound(file, label=1).describe()
    assert said["sha256"] == digest(file) == UNetScore(str(file)).fingerprint()
    assert (said["images"], said["label"], said["training"]) == (640, 1, "toy")


def test_predicted_memory_covers_what_the_hooks_see(file: Path) -> None:
    """The skip connections of a tile are alive at once; what is predicted grows with the tile and with the batch."""
    score = bound(file, tile=64)
    alive = []
    hooks = [
        stage.register_forward_hook(lambda module, given, value: alive.append(4 * value.numel()))
        for stage in score.denoiser.network.down
    ]
    score.denoise(rows(64), 1.0, 0.5)
    for hook in hooks:
        hook.remove()
    size = ProblemSize(train=1000, dimension=64, batch=64, itemsize=4)
    predicted = UNetScore(str(file), tile=64).working_memory(size)
    assert sum(alive) < predicted
    smaller = UNetScore(str(file), tile=16).working_memory(size)
    assert smaller < predicted < 4 * smaller
    assert UNetScore(str(file), tile=16).working_memory(replace(size, batch=16)) < smaller


def test_a_run_records_its_file_and_is_not_continued_with_another(file: Path, tmp_path: Path) -> None:
    """The path is the cell's identity; the content behind it may change."""
    path = tmp_path / "net.safetensors"
    path.write_bytes(file.read_bytes())
    suite = {
        "name": "with_network",
        "data": "digits",
        "score": {"name": "unet", "checkpoint": str(path)},
        "process": {"name": "ve", "sigma_min": 0.05, "sigma_max": 10.0},
        "samplers": [{"name": "pf_ode_euler", "steps": 2}],
        "metrics": ["energy_distance"],
        "n_samples": 20,
        "latency_repeats": 1,
        "device": "cpu",
    }
    (record,) = kfpbench.run(suite, out=tmp_path / "run").records
    assert record.status == "ok", record.reason
    assert record.details["score"]["sha256"] == digest(path)
    assert record.details["score"]["class"] == "BoundUNetScore"
    assert next(entry["value"] for entry in record.measurements if entry["metric"] == "nfe") == 2.0
    loaded = load_checkpoint(path)
    weights = {name: 0.9 * value for name, value in loaded.denoiser.named_parameters()}
    save_checkpoint(path, weights, loaded.record)
    with pytest.raises(StoreError, match=r"file has changed.*--force"):
        kfpbench.run(suite, out=tmp_path / "run")
    (again,) = kfpbench.run(suite, out=tmp_path / "run", force=True).records
    assert again.details["score"]["sha256"] == digest(path) != record.details["score"]["sha256"]
