"""Training a classifier: what it learns, and that a run in parts is the run without a break, bit by bit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, DataError, NumericalError, ParameterError, SuiteError
from kfpbench.networks.classifier import Classifier
from kfpbench.training.classifier_trainer import ClassifierTrainer, accuracy, augment
from kfpbench.training.loop import Progress
from kfpbench.training.options import ClassifierOptions, TrainingOptions
from kfpbench.training.trainer import Trainer

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "digits"},
    "channels": [4, 8],
    "width": 6,
    "epochs": 2,
    "batch_size": 200,
    "shift": 1,
}
Make = Callable[..., ClassifierOptions]


@pytest.fixture
def classifier() -> Make:
    def make(**changes: Any) -> ClassifierOptions:
        return ClassifierOptions.model_validate({**TINY, **changes})

    return make


def silent(progress: Progress) -> None:
    pass


def train_to(step: int, options: ClassifierOptions, data: Dataset, folder: Path) -> ClassifierTrainer:
    trainer = ClassifierTrainer(options, data, folder, CPU)
    trainer.run(silent, stopped=lambda: trainer.step >= step)
    return trainer


def assert_equal(one: ClassifierTrainer, other: ClassifierTrainer) -> None:
    """Bit by bit: weights, running statistics, momentum, order, and what is drawn next."""
    assert one.step == other.step
    twins = other.network.state_dict()
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, twins[name]), name
    for name, parameter in one.parameters.items():
        mine, its = one.optimiser.state[parameter], other.optimiser.state[other.parameters[name]]
        assert torch.equal(mine["momentum_buffer"], its["momentum_buffer"]), name
    assert np.array_equal(one._order, other._order)
    assert one._rng.bit_generator.state == other._rng.bit_generator.state


# ---- resuming ----


def test_a_resumed_run_equals_an_uninterrupted_one(digits: Dataset, classifier: Make, tmp_path: Path) -> None:
    """Broken off within an epoch, at its end, and after it."""
    options = classifier(epochs=3)
    whole = train_to(10**9, options, digits, tmp_path / "whole")
    per_epoch = len(digits.train) // 200
    assert per_epoch == 5
    assert whole.complete
    assert whole.images == whole.total == 3 * per_epoch * 200
    for stop in (2, per_epoch, per_epoch + 1, 2 * per_epoch - 1):
        train_to(stop, options, digits, tmp_path / "parts")
        torch.rand(5)  # what else happens to the global generator does not matter
        np.random.default_rng().random(3)
    parts = train_to(10**9, options, digits, tmp_path / "parts")
    assert_equal(whole, parts)
    assert [path.name for path in (tmp_path / "parts").glob("step-*")] == [f"step-{3 * per_epoch:09d}"]
    assert sum(part["images"] for part in parts.hardware.values()) == whole.images


KILLED = """
import sys
from pathlib import Path
import torch
from kfpbench.data.digits import Digits
from kfpbench.training.options import ClassifierOptions
from kfpbench.training.classifier_trainer import ClassifierTrainer
torch.set_num_threads(1)
options = ClassifierOptions.model_validate_json(sys.argv[2])
folder, cpu = Path(sys.argv[1]), torch.device("cpu")
ClassifierTrainer(options, Digits().load(), folder, cpu).run(lambda progress: None, save_every=0.0)
"""


def test_a_killed_process_leaves_a_state_to_go_on_from(digits: Dataset, classifier: Make, tmp_path: Path) -> None:
    """SIGKILL at an arbitrary moment of a run that saves after every step."""
    options, folder = classifier(epochs=10**6), tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), options.model_dump_json()])
    try:
        deadline = time.monotonic() + 400  # a busy machine takes minutes to import torch
        while not (folder / "state.json").exists() or json.loads((folder / "state.json").read_text())["step"] < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    saved = ClassifierTrainer(options, digits, folder, CPU).step
    assert saved >= 3
    resumed = train_to(saved + 2, options, digits, folder)
    assert_equal(resumed, train_to(saved + 2, options, digits, tmp_path / "whole"))


def test_what_may_change_and_what_may_not(digits: Dataset, classifier: Make, tmp_path: Path) -> None:
    train_to(2, classifier(), digits, tmp_path)
    assert ClassifierTrainer(classifier(description="again", name="other"), digits, tmp_path, CPU).step == 2
    with pytest.raises(SuiteError, match="another training run; got 'different: epochs, seed'"):
        ClassifierTrainer(classifier(epochs=4, seed=1), digits, tmp_path, CPU)
    with pytest.raises(SuiteError, match="different: train"):
        ClassifierTrainer(classifier(), digits.with_train_size(1000), tmp_path, CPU)


def test_a_state_of_the_other_kind_is_refused(
    digits: Dataset, classifier: Make, options: Callable[..., TrainingOptions], tmp_path: Path
) -> None:
    train_to(1, classifier(), digits, tmp_path / "classifier")
    with pytest.raises(SuiteError, match="different: kind"):
        Trainer(options(), digits, tmp_path / "classifier", CPU)
    score = Trainer(options(), digits, tmp_path / "score", CPU)
    score.run(silent, stopped=lambda: score.step >= 1)
    with pytest.raises(SuiteError, match="different: kind"):
        ClassifierTrainer(classifier(), digits, tmp_path / "score", CPU)


def test_damaged_states(digits: Dataset, classifier: Make, tmp_path: Path) -> None:
    train_to(2, classifier(), digits, tmp_path)
    pointer, here = tmp_path / "state.json", tmp_path / "step-000000002"
    good = pointer.read_text()
    record = json.loads(good)
    for broken in (
        {name: value for name, value in record.items() if name != "generator"},
        {**record, "generator": {"bit_generator": "PCG64"}},
    ):
        pointer.write_text(json.dumps(broken))
        with pytest.raises(DataError, match="cannot be read"):
            ClassifierTrainer(classifier(), digits, tmp_path, CPU)
    pointer.write_text(good)
    momentum = (here / "momentum.safetensors").read_bytes()
    (here / "momentum.safetensors").write_bytes((here / "weights.safetensors").read_bytes())
    with pytest.raises(DataError, match=r"momentum: .*unexpected"):
        ClassifierTrainer(classifier(), digits, tmp_path, CPU)
    (here / "momentum.safetensors").write_bytes(momentum[:-8])
    with pytest.raises(DataError, match=r"cannot be read.*remove the folder"):
        ClassifierTrainer(classifier(), digits, tmp_path, CPU)


def test_an_order_that_is_no_permutation_is_refused(digits: Dataset, classifier: Make, tmp_path: Path) -> None:
    trainer = train_to(1, classifier(), digits, tmp_path)
    trainer._order = np.zeros_like(trainer._order)
    trainer._saved_step = 0
    trainer.save()
    with pytest.raises(DataError, match="no permutation"):
        ClassifierTrainer(classifier(), digits, tmp_path, CPU)


# ---- what it learns ----


def corners() -> tuple[Dataset, torch.Tensor, torch.Tensor]:
    """Two classes told apart by a bright middle; 1.0 of accuracy is reachable, 0.5 is chance."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.3, (400, 1, 8, 8)).astype(np.float32)
    labels = rng.integers(0, 2, 400)
    rows[labels == 1, :, 2:6, 2:6] += 0.8
    flat = rows.reshape(400, 64)
    data = Dataset(
        "corners", flat, flat[:0], flat[:0], (1, 8, 8), train_labels=labels, classes=("dark", "bright"), fingerprint="c"
    )
    return data, torch.from_numpy(rows), torch.from_numpy(labels)


def test_training_learns_what_can_be_learned(classifier: Make, tmp_path: Path) -> None:
    data, pictures, labels = corners()
    heard: list[Progress] = []
    trainer = ClassifierTrainer(classifier(channels=[16, 32], epochs=8, batch_size=40), data, tmp_path, CPU)
    assert trainer.run(heard.append)
    assert accuracy(trainer.network.eval(), pictures, labels) > 0.95
    assert [progress.images for progress in heard] == [800, 1600, 2400, 3200]
    assert heard[-1].loss < heard[0].loss


def test_every_image_is_seen_once_an_epoch(classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, _ = corners()
    seen: list[np.ndarray] = []
    honest = ClassifierTrainer._pictures
    monkeypatch.setattr(ClassifierTrainer, "_pictures", lambda self, rows: seen.append(rows) or honest(self, rows))
    train_to(10**9, classifier(epochs=2, batch_size=150), data, tmp_path)
    whitened, *batches = seen
    assert len(whitened) == 400
    assert [len(batch) for batch in batches] == [150] * 4  # the 100 that are left over wait for another epoch
    for epoch in (batches[:2], batches[2:]):
        assert len(set(np.concatenate(epoch))) == 300
    assert not np.array_equal(batches[0], batches[2])


def test_the_rate_is_a_triangle(classifier: Make, tmp_path: Path) -> None:
    data, _, _ = corners()
    trainer = ClassifierTrainer(classifier(epochs=10, batch_size=40, learning_rate=0.5), data, tmp_path, CPU)
    rates = []
    for step in range(101):
        trainer.step = step
        rates.append(trainer._rate())
    expected = 0.5 * np.minimum(np.arange(1, 102) / 20, (100 - np.arange(101)) / 80)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_matrices_are_decayed_and_gains_are_not(classifier: Make, tmp_path: Path) -> None:
    data, _, _ = corners()
    trainer = ClassifierTrainer(classifier(weight_decay=0.01, batch_size=40), data, tmp_path, CPU)
    decayed, free = trainer.optimiser.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0)
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert {p.dim() for p in free["params"]} == {1}


def test_the_first_layer_whitens_patches() -> None:
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


def test_augmented_images_are_mirrored_and_shifted_copies() -> None:
    ramp = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    moved = augment(ramp, 1, np.random.default_rng(0))
    padded = torch.nn.functional.pad(ramp[:1], (1,) * 4, mode="reflect")
    mirrored = torch.nn.functional.pad(ramp[:1].flip(3), (1,) * 4, mode="reflect")
    allowed = [p[0, :, a : a + 8, b : b + 8] for p in (padded, mirrored) for a in range(3) for b in range(3)]
    seen = {next(i for i, each in enumerate(allowed) if torch.equal(each, one)) for one in moved}
    assert seen == set(range(18))  # each misses with probability (17/18)^200 = 1e-5


# ---- faults ----


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(
    digits: Dataset, classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_to(2, classifier(), digits, tmp_path)
    honest = ClassifierTrainer._pictures
    trainer = ClassifierTrainer(classifier(), digits, tmp_path, CPU)
    monkeypatch.setattr(ClassifierTrainer, "_pictures", lambda self, rows: honest(self, rows) * np.nan)
    with pytest.raises(NumericalError, match=r"not finite.*learning_rate"):
        trainer.run(silent, save_every=0.0)
    monkeypatch.undo()
    assert_equal(
        ClassifierTrainer(classifier(), digits, tmp_path, CPU), train_to(2, classifier(), digits, tmp_path / "w")
    )


def test_data_and_sizes_that_cannot_be_trained_on(digits: Dataset, classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="labelled images"):
        ClassifierTrainer(classifier(), replace(digits, train_labels=None), tmp_path, CPU)
    for changes, words in [
        ({"batch_size": 10**4}, "more images than there are"),
        ({"channels": [4, 4, 4]}, "halved so often.*at most 2 levels"),
        ({"shift": 8}, "shifted by more"),
    ]:
        with pytest.raises(ParameterError, match=words):
            ClassifierTrainer(classifier(**changes), digits, tmp_path, CPU)
