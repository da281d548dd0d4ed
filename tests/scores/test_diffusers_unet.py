"""Networks saved by diffusers: time steps, conventions of prediction, refused files, agreement with schedulers."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, DataError, ParameterError
from kfpbench.protocols import BoundScore, ProblemSize, ScorePlugin
from kfpbench.scores.diffusers_unet import DiffusersUNet

diffusers = pytest.importorskip("diffusers", reason="the extra diffusers is not installed")

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
WEIGHTS = "diffusion_pytorch_model.safetensors"
OPTIONS = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "layers_per_block": 1,
}


def dataset(shape: tuple[int, int, int] | None = SHAPE) -> Dataset:
    rows = np.random.default_rng(0).uniform(-1, 1, (10, int(np.prod(shape or (2,))))).astype(np.float32)
    return Dataset("noise", rows, rows[:1], rows[:1], image_shape=shape)


def save(folder: Path, scheduler: dict | None = None, **options):
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**{**OPTIONS, **options}).eval()
    network.save_pretrained(folder)
    if scheduler is not None:
        diffusers.DDPMScheduler(**scheduler).save_pretrained(folder)
    return network.double()


def bind(folder: Path, data: Dataset | None = None, **parameters):
    return DiffusersUNet(str(folder), **parameters).bind(data or dataset(), CPU, torch.float64)


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn((count, 192), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ddpm_levels(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """alpha and sigma of Ho et al.'s schedule, from its definition in float64."""
    remaining = np.cumprod(1.0 - np.linspace(start, end, steps))
    return np.sqrt(remaining), np.sqrt(1.0 - remaining)


def call(network, x: torch.Tensor, step: float, **more) -> torch.Tensor:
    with torch.no_grad():
        return network(x.reshape(-1, *SHAPE), torch.tensor(step), **more).sample[:, :3].flatten(1)


@pytest.mark.parametrize("step", [0, 10, 500, 999])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_denoiser_is_the_network_called_by_hand(tmp_path, step, alpha):
    network = save(tmp_path)
    a, b = (float(part[step]) for part in ddpm_levels())
    x = images(4)
    found = bind(tmp_path).denoise(alpha / a * x, alpha, alpha * b / a)
    expected = (x - b * call(network, x, step)) / a
    # betas are float32: sigma^2 at step 0 is good to 6e-8 / 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_time_steps_are_interpolated(tmp_path):
    save(tmp_path)
    score = bind(tmp_path)
    a, b = ddpm_levels()
    ratios = b / a
    for step in (0, 1, 400, 999):
        assert score.time_step(float(ratios[step])) == pytest.approx(step, abs=2e-3)
    middle = score.time_step(float(math.sqrt(ratios[400] * ratios[401])))
    assert middle == pytest.approx(400.5, abs=1e-2)
    steps = [score.time_step(ratio) for ratio in np.geomspace(0.01, 150, 300)]
    assert (np.diff(steps) > 0).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_clean_image_is_that_of_diffusers_own_scheduler(tmp_path, prediction):
    """``pred_original_sample`` of DDPMScheduler.step, for the same output of the network."""
    options = {"prediction_type": prediction, "clip_sample": False, "beta_schedule": "squaredcos_cap_v2"}
    network = save(tmp_path, options)
    scheduler, score, x = diffusers.DDPMScheduler(**options), bind(tmp_path), images(3)
    for step in (5, 300, 900):
        a = float(scheduler.alphas_cumprod[step].double().sqrt())
        b = math.sqrt(1 - a * a)
        output = call(network, x, step)
        expected = scheduler.step(output, step, x).pred_original_sample
        torch.testing.assert_close(score.denoise(x / a, 1.0, b / a), expected, rtol=1e-4, atol=1e-4)


def test_epsilon_and_v_agree_for_one_denoiser(tmp_path):
    """v = a eps - b x_0. Two networks that answer alike in either convention are one score: the weights are the same,
    and the last layer of the second is wrapped to answer in v."""
    save(tmp_path / "epsilon", {"prediction_type": "epsilon"})
    save(tmp_path / "v", {"prediction_type": "v_prediction"})
    epsilon, velocity = bind(tmp_path / "epsilon"), bind(tmp_path / "v")
    inner = epsilon.network

    class InV(torch.nn.Module):
        def forward(self, x, steps, label):
            noise = inner(x, steps, label).sample
            level = np.interp(float(steps[0]), np.arange(1000), velocity.log_ratios)
            a = 1 / math.sqrt(1 + math.exp(2 * level))
            b = math.sqrt(1 - a * a)
            return diffusers.models.unets.unet_2d.UNet2DOutput(sample=a * noise - b * (x - b * noise) / a)

    velocity.network = InV()
    for alpha, sigma in ((1.0, 0.05), (1.0, 3.0), (0.2, 0.98)):
        x = images(3)
        torch.testing.assert_close(
            velocity.denoise(x, alpha, sigma), epsilon.denoise(x, alpha, sigma), rtol=1e-4, atol=1e-4
        )


def test_below_the_schedule_the_score_is_held(tmp_path):
    save(tmp_path)
    score, x = bind(tmp_path), images(3)
    smallest = math.exp(score.log_ratios[0])
    held = score.score(x, 1.0, smallest)
    torch.testing.assert_close(score.score(x, 1.0, 0.2 * smallest), held, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(score.denoise(x, 1.0, 1e-9), x, rtol=0, atol=1e-8)


def test_above_the_schedule_it_is_refused(tmp_path):
    save(tmp_path)
    score = bind(tmp_path)
    score.denoise(images(1), 1.0, 157.0)
    with pytest.raises(CapabilityError, match=r"sigma / alpha = 200'; allowed: up to 157\.4"):
        score.denoise(images(1), 1.0, 200.0)


def test_a_last_level_of_infinite_noise_is_left_out(tmp_path):
    save(tmp_path, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})
    score = bind(tmp_path)
    assert np.isfinite(score.log_ratios).all()
    assert bool(torch.isfinite(score.denoise(images(2), 1.0, 80.0)).all())


def test_conventions_of_saved_folders(tmp_path):
    network = save(tmp_path / "flat", {"beta_end": 0.01})
    pipeline = diffusers.DDPMPipeline(network.float(), diffusers.DDPMScheduler(beta_end=0.01))
    pipeline.save_pretrained(tmp_path / "pipeline")
    x = images(2)
    expected = bind(tmp_path / "flat").denoise(x, 1.0, 2.0)
    assert torch.equal(bind(tmp_path / "pipeline").denoise(x, 1.0, 2.0), expected)
    (tmp_path / "flat" / "scheduler_config.json").unlink()
    assert not torch.equal(bind(tmp_path / "flat").denoise(x, 1.0, 2.0), expected)  # other betas, other steps


def test_names_of_attention_layers_before_2023(tmp_path):
    from safetensors.torch import load_file, save_file

    save(tmp_path)
    x = images(2)
    expected = bind(tmp_path).denoise(x, 1.0, 1.0)
    weights, old = load_file(tmp_path / WEIGHTS), {}
    for name, value in weights.items():
        for new, former in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{former}.")
        old[name] = value
    assert old.keys() != weights.keys()
    save_file(old, tmp_path / WEIGHTS)
    assert torch.equal(bind(tmp_path).denoise(x, 1.0, 1.0), expected)


def test_learned_variances_are_ignored(tmp_path):
    network = save(tmp_path, {"variance_type": "learned_range"}, out_channels=6)
    a, b = (float(part[100]) for part in ddpm_levels())
    x = images(2)
    expected = (x - b * call(network, x, 100)) / a
    torch.testing.assert_close(bind(tmp_path).denoise(x / a, 1.0, b / a), expected, rtol=1e-3, atol=1e-3)


def test_classes(tmp_path):
    network = save(tmp_path, num_class_embeds=3)
    a, b = (float(part[100]) for part in ddpm_levels())
    x = images(2)
    expected = (x - b * call(network, x, 100, class_labels=torch.tensor([2, 2]))) / a
    torch.testing.assert_close(bind(tmp_path, label=2).denoise(x / a, 1.0, b / a), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ParameterError, match=r"needs a label.*allowed: 0 to 2"):
        bind(tmp_path)
    with pytest.raises(ParameterError, match="no such class"):
        bind(tmp_path, label=3)
    save(tmp_path / "plain")
    with pytest.raises(ParameterError, match=r"takes none.*allowed: null"):
        bind(tmp_path / "plain", label=0)


class Malice:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_never_opened(tmp_path):
    """Not alone, where converting it is explained, nor beside the weights, nor under their name."""
    mark, folder = tmp_path / "it_ran", tmp_path / "network"
    network = save(folder)
    x, expected = images(1), bind(folder).denoise(images(1), 1.0, 1.0)
    planted = folder / "diffusion_pytorch_model.bin"
    torch.save({**network.state_dict(), "extra": Malice(mark)}, planted)
    assert torch.equal(bind(folder).denoise(x, 1.0, 1.0), expected)
    (folder / WEIGHTS).unlink()
    with pytest.raises(DataError, match=r"is a pickle.*not opened.*safe_serialization=True"):
        bind(folder)
    planted.rename(folder / WEIGHTS)
    with pytest.raises(DataError, match="cannot be read"):
        bind(folder)
    assert not mark.exists()
    (folder / WEIGHTS).rename(planted)
    torch.load(planted, weights_only=False)  # the plant is live
    assert mark.exists()


def test_missing_files_say_what_to_put_where(tmp_path):
    with pytest.raises(DataError) as found:
        bind(tmp_path / "absent")
    text = str(found.value)
    for part in (str(tmp_path / "absent"), "config.json", WEIGHTS, "scheduler_config.json", "nothing is downloaded"):
        assert part in text
    save(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json not found"):
        bind(tmp_path)


def test_a_name_of_a_hub_is_not_looked_up(tmp_path, monkeypatch):
    import socket

    def refuse(*arguments, **options):
        raise AssertionError("a connection was tried")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DataError, match="nothing is downloaded"):
        bind(Path("google/ddpm-cifar10-32"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "another class"),
        ({"time_embedding_type": "fourier"}, "not conditioned on the steps"),
        ({"in_channels": 1}, "images of another shape"),
        ({"sample_size": 32}, "images of another shape"),
        ({"down_block_types": ["NoSuchBlock", "DownBlock2D"]}, "cannot build a network"),
        ({"block_out_channels": [8, 24]}, "of another shape"),
        ({"layers_per_block": 2}, "missing"),
    ],
)
def test_unfit_configurations_are_refused(tmp_path, changes, words):
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises((DataError, CapabilityError), match=words):
        bind(tmp_path)


def test_unfit_data_and_schedules_are_refused(tmp_path):
    save(tmp_path)
    with pytest.raises(CapabilityError, match="points"):
        bind(tmp_path, dataset(None))
    scheduler = tmp_path / "scheduler_config.json"
    for content, words in (
        ('{"beta_schedule": "nonsense"}', "no schedule"),
        ('{"prediction_type": "flow"}', "unknown prediction"),
        ('{"trained_betas": [0.1]}', "do not increase"),
        ("[1]", "not a mapping"),
        ("{", "cannot be read"),
    ):
        scheduler.write_text(content)
        with pytest.raises((DataError, CapabilityError), match=words):
            bind(tmp_path)


def test_without_diffusers_it_says_what_to_install(tmp_path, monkeypatch):
    import sys

    save(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CapabilityError, match=r"pip install 'kfpbench\[diffusers\]'"):
        bind(tmp_path)


def test_contract(tmp_path):
    save(tmp_path)
    plugin = DiffusersUNet(str(tmp_path), tile=7)
    assert isinstance(plugin, ScorePlugin)
    bound = plugin.bind(dataset(), CPU, torch.float32)
    assert isinstance(bound, BoundScore)
    for rows in (5, 0, 33):
        assert bound.score(torch.zeros((rows, 192)), 1.0, 0.5).shape == (rows, 192)
    assert bound.evaluations == 38
    x = images(20).float()
    single = torch.cat([bound.denoise(row[None], 1.0, 0.5) for row in x])
    torch.testing.assert_close(bound.denoise(x, 1.0, 0.5), single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [10, 64])
def test_it_stays_within_its_stated_memory(live_bytes, tmp_path, batch):
    save(tmp_path)
    plugin, x = DiffusersUNet(str(tmp_path)), images(batch).float()
    plugin.bind(dataset(), CPU, torch.float32)  # what is imported on the way is not counted
    with live_bytes:
        plugin.bind(dataset(), CPU, torch.float32).denoise(x, 1.0, 0.5)
    stated = plugin.working_memory(ProblemSize(10, 192, batch, 4))
    assert 0.25 * stated <= live_bytes.peak <= stated


def test_the_fingerprint_is_that_of_all_files_read(tmp_path: Path) -> None:
    """Weights, configuration and schedule all change the values; a pipeline's folder has its network's fingerprint."""
    folder = tmp_path / "unet"
    save(folder, {"num_train_timesteps": 1000})
    score = DiffusersUNet(str(folder))
    seen = [score.fingerprint()]
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_bytes((folder / "scheduler_config.json").read_bytes())
    assert DiffusersUNet(str(tmp_path)).fingerprint() == seen[0]
    for name in ("scheduler_config.json", "config.json"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text + " ", encoding="utf-8")
        seen.append(score.fingerprint())
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1  # one bit of the last weight
    (folder / WEIGHTS).write_bytes(weights)
    seen.append(score.fingerprint())
    (folder / "scheduler_config.json").unlink()
    seen.append(score.fingerprint())
    assert None not in seen
    assert len(set(seen)) == 5
    (folder / WEIGHTS).unlink()
    assert score.fingerprint() is None
