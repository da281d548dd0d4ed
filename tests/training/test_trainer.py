"""The loop: resuming bit by bit, refusing other states, schedules and averages in closed form, and that it learns."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.errors import DataError, NumericalError, ParameterError, SuiteError
from kfpbench.training.loop import Progress
from kfpbench.training.options import TrainingOptions
from kfpbench.training.trainer import Trainer

CPU = torch.device("cpu")
Options = Callable[..., TrainingOptions]


def silent(progress: Progress) -> None:
    pass


def train_to(step: int, options: TrainingOptions, digits: Dataset, folder: Path) -> Trainer:
    trainer = Trainer(options, digits, folder, CPU)
    trainer.run(silent, stopped=lambda: trainer.step >= step)
    return trainer


def assert_equal(one: Trainer, other: Trainer) -> None:
    """Bit by bit: weights, average and both moments."""
    assert one.step == other.step
    for name, parameter in one.parameters.items():
        twin = other.parameters[name]
        assert torch.equal(parameter, twin), name
        assert torch.equal(one.average[name], other.average[name]), name
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(one.optimiser.state[parameter][moment], other.optimiser.state[twin][moment]), name


# ---- resuming ----


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_resumed_run_equals_an_uninterrupted_one(
    digits: Dataset, options: Options, tmp_path: Path, dropout: float
) -> None:
    chosen = options(network={"patch": 1, "channels": [8, 16], "attention": [1], "dropout": dropout})
    whole = train_to(10, chosen, digits, tmp_path / "whole")
    assert whole.complete
    for stop in (3, 4, 7):
        train_to(stop, chosen, digits, tmp_path / "parts")
        torch.rand(5)  # what else happens to the global generator does not matter
    parts = train_to(10, chosen, digits, tmp_path / "parts")
    assert_equal(whole, parts)
    assert sum(part["images"] for part in parts.hardware.values()) == 80
    assert [path.name for path in (tmp_path / "parts").glob("step-*")] == ["step-000000010"]


KILLED = """
import sys
from pathlib import Path
import torch
from kfpbench.data.digits import Digits
from kfpbench.training.options import TrainingOptions
from kfpbench.training.trainer import Trainer
torch.set_num_threads(1)
options = TrainingOptions.model_validate_json(sys.argv[2])
Trainer(options, Digits().load(), Path(sys.argv[1]), torch.device("cpu")).run(lambda progress: None, save_every=0.0)
"""


def test_a_killed_process_leaves_a_state_to_go_on_from(digits: Dataset, options: Options, tmp_path: Path) -> None:
    """SIGKILL at an arbitrary moment of a run that saves after every step."""
    chosen, folder = options(images=10**9), tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), chosen.model_dump_json()])
    try:
        deadline = time.monotonic() + 400  # a busy machine takes minutes to import torch
        while not (folder / "state.json").exists() or json.loads((folder / "state.json").read_text())["step"] < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    saved = Trainer(chosen, digits, folder, CPU).step
    assert saved >= 3
    resumed = train_to(saved + 2, chosen, digits, folder)
    assert_equal(resumed, train_to(saved + 2, chosen, digits, tmp_path / "whole"))


def test_what_may_change_and_what_may_not(digits: Dataset, options: Options, tmp_path: Path) -> None:
    train_to(2, options(), digits, tmp_path)
    changed = options(images=160, description="longer", cooldown_images=40, data={"name": "digits"})
    assert Trainer(changed, digits, tmp_path, CPU).step == 2
    with pytest.raises(SuiteError, match="another training run; got 'different: learning_rate, seed'"):
        Trainer(options(seed=1, learning_rate=1e-3), digits, tmp_path, CPU)
    with pytest.raises(SuiteError, match="different: train"):
        Trainer(options(), digits.with_train_size(100), tmp_path, CPU)


def test_damaged_states(digits: Dataset, options: Options, tmp_path: Path) -> None:
    train_to(2, options(), digits, tmp_path)
    pointer, weights = tmp_path / "state.json", tmp_path / "step-000000002" / "weights.safetensors"
    good = weights.read_bytes()
    for content in (good[:50], good[:-10], b""):
        weights.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read.*remove the folder"):
            Trainer(options(), digits, tmp_path, CPU)
    weights.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Trainer(options(), digits, tmp_path, CPU)
    weights.write_bytes((tmp_path / "step-000000002" / "average.safetensors").read_bytes())
    for text in ("{", "[]", '{"step": 2}'):
        before = pointer.read_text()
        pointer.write_text(text)
        with pytest.raises(DataError, match="cannot be read"):
            Trainer(options(), digits, tmp_path, CPU)
        pointer.write_text(before)
    record = json.loads(pointer.read_text())
    record["identity"]["network"]["channels"] = [8, 24]  # the tensors are of other shapes
    pointer.write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"weights: .*wrong shape"):
        Trainer(options(network={"patch": 1, "channels": [8, 24], "attention": [1]}), digits, tmp_path, CPU)


def test_a_state_without_hardware_says_so(digits: Dataset, options: Options, tmp_path: Path) -> None:
    train_to(2, options(), digits, tmp_path)
    record = json.loads((tmp_path / "state.json").read_text())
    del record["hardware"]
    (tmp_path / "state.json").write_text(json.dumps(record))
    resumed = train_to(3, options(), digits, tmp_path).record("x").training
    assert [(part.what == "not recorded", part.images) for part in resumed.hardware] == [(True, 16), (False, 8)]


# ---- faults ----


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(
    digits: Dataset, options: Options, tmp_path: Path
) -> None:
    trainer = Trainer(options(), digits, tmp_path, CPU)
    honest = trainer.batches.at
    trainer.batches.at = lambda step: replace(honest(step), noise=honest(step).noise * (np.nan if step == 4 else 1.0))
    with pytest.raises(NumericalError, match=r"not finite.*learning_rate"):
        trainer.run(silent, save_every=0.0)
    kept = Trainer(options(), digits, tmp_path, CPU)
    assert kept.step == 4
    assert_equal(kept, train_to(4, options(), digits, tmp_path / "whole"))


def test_an_exception_in_a_step_saves_nothing_half_done(digits: Dataset, options: Options, tmp_path: Path) -> None:
    train_to(2, options(), digits, tmp_path)
    trainer = Trainer(options(), digits, tmp_path, CPU)

    def interrupted() -> None:  # after Adam's step, before the average's
        raise KeyboardInterrupt

    trainer._average_weights = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.run(silent)
    assert_equal(Trainer(options(), digits, tmp_path, CPU), train_to(2, options(), digits, tmp_path / "whole"))


def test_images_that_cannot_be_halved(digits: Dataset, options: Options, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="multiples of 16"):
        Trainer(options(network={"patch": 4, "channels": [8, 8, 8]}), digits, tmp_path, CPU)


# ---- schedules ----


def test_the_learning_rate(digits: Dataset, options: Options, tmp_path: Path) -> None:
    trainer = Trainer(
        options(images=800, warmup_images=80, cooldown_images=160, learning_rate=1.0), digits, tmp_path, CPU
    )
    rates = []
    for step in range(100):
        trainer.step = step
        rates.append(trainer._rate())
    seen = 8.0 * np.arange(1, 101)
    expected = np.minimum(np.minimum(seen / 80, 1.0), (800 - seen) / 160)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_the_average_is_the_closed_form_of_planted_weights(digits: Dataset, options: Options, tmp_path: Path) -> None:
    """avg_n = sum_j (1 - k_j) prod_{i > j} k_i w_j + prod k_i w_0, k_i = 2^(-8 / h_i), h_i = min(40, 8 i / 4)."""
    trainer = Trainer(options(ema_images=40, ema_ramp=0.25), digits, tmp_path, CPU)
    name = "network.enter.bias"
    start = trainer.average[name].double().numpy().copy()
    planted = np.random.default_rng(0).standard_normal((40, len(start)))
    for step, value in enumerate(planted):
        trainer.step = step
        with torch.no_grad():
            trainer.parameters[name].copy_(torch.from_numpy(value))
        trainer._average_weights()
    kept = 2.0 ** (-8 / np.minimum(40.0, np.maximum(0.25 * 8.0 * np.arange(1, 41), 1.0)))
    later = np.append(np.cumprod(kept[::-1])[::-1][1:], 1.0)  # product of the factors after j
    expected = ((1 - kept) * later) @ planted + np.prod(kept) * start
    np.testing.assert_allclose(trainer.average[name].numpy(), expected, atol=2e-6)  # float32, 40 sums of order 1


def test_reports(digits: Dataset, options: Options, tmp_path: Path) -> None:
    told: list[Progress] = []
    trainer = Trainer(options(images=480), digits, tmp_path, CPU)
    losses = []
    step = trainer._one_step

    def recorded(batch: object) -> torch.Tensor:
        losses.append(step(batch))
        return losses[-1]

    trainer._one_step = recorded
    assert trainer.run(told.append)
    assert [progress.images for progress in told] == [400, 480]
    values = torch.stack(losses)[:, 0].double()
    assert told[0].loss == pytest.approx(float(values[:50].mean()), rel=1e-5)
    assert told[1].loss == pytest.approx(float(values[50:].mean()), rel=1e-5)
    assert all(progress.speed > 0 for progress in told)
    assert not trainer.run(told.append, seconds=0.0) or len(told) == 2  # complete: nothing more to do
    assert trainer.record("c").training.images == 480


def test_bfloat16_trains_the_same_network_to_its_precision(digits: Dataset, options: Options, tmp_path: Path) -> None:
    """The first loss of a network that returns 0 is exact in both; the second differs by bfloat16's 8 bits at most."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(options(precision=precision), digits, tmp_path / precision, CPU)
        assert trainer.low_precision == (precision == "bfloat16")
        losses[precision] = [float(trainer._one_step(trainer.batches.at(0))[0]) for _ in range(2)]
        assert all(value.dtype == torch.float32 for value in trainer.parameters.values())
    assert losses["bfloat16"][0] == pytest.approx(losses["float32"][0], rel=1e-6)
    assert losses["bfloat16"][1] == pytest.approx(losses["float32"][1], rel=2.0**-7)
    assert losses["bfloat16"] != losses["float32"]


# ---- learning ----


def test_training_beats_the_best_linear_denoiser(digits: Dataset, options: Options, tmp_path: Path) -> None:
    """Pixels that are -1 or 1 by fair coins: E[x_0 | x] = tanh(x / s^2) and the best Gaussian one is x / (1 + s^2).

    The trained denoiser must lie between the two in the weighted loss, on rows and noise that it has not seen.
    """
    rng = np.random.default_rng(0)
    rows = rng.choice(np.array([-1.0, 1.0], np.float32), size=(4096, 64))
    coins = replace(digits, train=rows, train_labels=None, classes=(), fingerprint="coins")
    chosen = options(images=300 * 64, batch_size=64, learning_rate=3e-3, warmup_images=640, ema_ramp=0.1)
    trainer = Trainer(chosen, coins, tmp_path, CPU)
    trainer.run(silent)
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            parameter.copy_(trainer.average[name])
    n = 2048
    generator = torch.Generator().manual_seed(1)
    clean = torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), size=(n, 1, 8, 8)))
    sigma = torch.exp(-1.2 + 1.2 * torch.randn(n, generator=generator))
    level = sigma[:, None, None, None]
    noisy = clean + level * torch.randn(clean.shape, generator=generator)
    with torch.no_grad():
        found = trainer.denoiser(noisy, sigma, torch.zeros(n, dtype=torch.long))
    weight = trainer.denoiser.loss_weight(sigma)

    def loss(denoised: torch.Tensor) -> float:
        return float((weight * (denoised - clean).square().mean(dim=(1, 2, 3))).mean())

    linear, exact = loss(noisy / (1 + level**2)), loss(torch.tanh(noisy / level**2))
    assert exact < loss(found) < linear
    assert loss(found) < 0.5 * (exact + linear)  # most of the way: the function is one of a pixel alone
