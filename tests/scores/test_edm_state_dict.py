"""State dicts of EDM-preconditioned networks: the formula by hand, files that do not fit, files that would run code."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import kfpbench
from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, DataError, KfpbenchError, ParameterError, StoreError
from kfpbench.networks.unet import UNet
from kfpbench.protocols import BoundScore, ProblemSize, ScorePlugin
from kfpbench.scores.edm_state_dict import EdmStateDict

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
NETWORK = {"patch": 2, "channels": [16, 32], "blocks": 1, "attention": [1]}


def dataset(shape: tuple[int, int, int] | None = SHAPE) -> Dataset:
    rows = np.random.default_rng(0).uniform(-1, 1, (10, int(np.prod(shape or (2,))))).astype(np.float32)
    return Dataset("noise", rows, rows[:1], rows[:1], image_shape=shape, classes=("a", "b"))


@pytest.fixture
def network() -> UNet:
    """A small U-Net without the zeros of an untrained one."""
    torch.manual_seed(0)
    unet = UNet(SHAPE, classes=2, **NETWORK).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return unet


@pytest.fixture
def file(network: UNet, tmp_path: Path) -> Path:
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def bind(path: Path, data: Dataset | None = None, **parameters):
    options = {**NETWORK, **parameters}
    return EdmStateDict(path=str(path), **options).bind(data or dataset(), CPU, torch.float64)


def noise(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn((count, 192), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(network: UNet, x: torch.Tensor, alpha: float, sigma: float, label: int, data_std: float) -> torch.Tensor:
    """Table 1 of Karras et al. (2022)."""
    s, y = sigma / alpha, (x / alpha).reshape(-1, *SHAPE)
    skip = data_std**2 / (s**2 + data_std**2)
    out, into = s * data_std / np.sqrt(s**2 + data_std**2), 1 / np.sqrt(s**2 + data_std**2)
    conditions = torch.full((len(x),), np.log(s) / 4, dtype=torch.float64)
    with torch.no_grad():
        found = network.double()(into * y, conditions, torch.full((len(x),), label))
    return (skip * y + out * found).flatten(1)


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.01), (1.0, 20.0), (0.3, 0.954)])
@pytest.mark.parametrize("label", [None, 0, 1])
def test_the_denoiser_is_the_network_with_its_preconditioning(network, file, alpha, sigma, label):
    x = noise(5)
    found = bind(file, label=label, sigma_data=0.7).denoise(x, alpha, sigma)
    expected = by_hand(network, x, alpha, sigma, 2 if label is None else label, 0.7)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_labels_matter(file):
    x = noise(2)
    answers = [bind(file, label=label).denoise(x, 1.0, 1.0) for label in (None, 0, 1)]
    assert all(float((answers[a] - answers[b]).abs().max()) > 1e-4 for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("tile", [1, 3, 100])
def test_tiles_do_not_change_the_result(file, tile):
    x = noise(7)
    whole = bind(file).denoise(x, 1.0, 0.5)
    torch.testing.assert_close(bind(file, tile=tile).denoise(x, 1.0, 0.5), whole, rtol=1e-10, atol=1e-10)


def test_every_kind_of_file_gives_the_same(network, file, tmp_path):
    x = noise(3)
    expected = bind(file).denoise(x, 1.0, 0.5)
    weights = network.state_dict()
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    torch.save(weights, tmp_path / "plain.pt")
    torch.save({"model": other, "ema": weights, "step": 7, "options": {"lr": 1e-3}}, tmp_path / "nested.pth")
    save_file({f"module.{name}": value for name, value in weights.items()}, tmp_path / "wrapped.safetensors")
    for name, prefix in (("plain.pt", ""), ("nested.pth", "ema."), ("wrapped.safetensors", "module.")):
        assert torch.equal(bind(tmp_path / name, prefix=prefix).denoise(x, 1.0, 0.5), expected)


def test_half_precision_is_raised_to_the_dtype_of_the_suite(network, tmp_path):
    save_file({name: value.half() for name, value in network.state_dict().items()}, tmp_path / "half.safetensors")
    score = bind(tmp_path / "half.safetensors")
    assert score.denoise(noise(2), 1.0, 0.5).dtype == torch.float64
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half())
    torch.testing.assert_close(score.denoise(noise(2), 1.0, 0.5), by_hand(network, noise(2), 1.0, 0.5, 2, 0.5))


class Malice:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["planted.pt", "planted.pth", "planted.pkl", "planted.bin", "planted.safetensors"])
def test_code_in_a_file_is_never_run(network, tmp_path, name):
    mark = tmp_path / "it_ran"
    torch.save({**network.state_dict(), "extra": Malice(mark)}, tmp_path / name)
    with pytest.raises(DataError):
        bind(tmp_path / name)
    assert not mark.exists()
    (tmp_path / name).rename(tmp_path / "live.pt")
    torch.load(tmp_path / "live.pt", weights_only=False)  # the plant is live
    assert mark.exists()


def test_a_pickle_says_what_to_do(network, tmp_path):
    torch.save({**network.state_dict(), "extra": Malice(tmp_path / "it_ran")}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"could run code: it was not loaded.*save_file"):
        bind(tmp_path / "a.pt")
    (tmp_path / "edm.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"'edm.pkl'; allowed: .safetensors, .pt, .pth"):
        bind(tmp_path / "edm.pkl")


def test_missing_weights_say_what_to_put_where(tmp_path):
    with pytest.raises(DataError) as found:
        bind(tmp_path / "absent.safetensors")
    assert str(tmp_path / "absent.safetensors") in str(found.value)
    assert "state dict of the EDM-preconditioned network" in str(found.value)
    assert "score.path" in str(found.value)


def test_weights_that_do_not_fit(network, tmp_path):
    weights = network.state_dict()
    few = {name: value for name, value in weights.items() if not name.startswith("enter.")}
    few["stranger"], few["leave.0.weight"] = torch.zeros(3), torch.zeros(7)
    save_file(few, tmp_path / "few.safetensors")
    with pytest.raises(DataError) as found:
        bind(tmp_path / "few.safetensors")
    text = str(found.value)
    assert "2 missing: enter.bias, enter.weight" in text
    assert "1 unexpected: stranger" in text
    assert "1 of another shape: leave.0.weight (7,) for (16,)" in text
    save_file({f"network.{name}": value for name, value in weights.items()}, tmp_path / "wrapped.safetensors")
    with pytest.raises(DataError, match=r"fit without their prefix 'network\.'"):
        bind(tmp_path / "wrapped.safetensors")
    with pytest.raises(
        DataError, match=r"no weights have that prefix; got 'ema\.'; allowed: names start with network\."
    ):
        bind(tmp_path / "wrapped.safetensors", prefix="ema.")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "few.safetensors").read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        bind(tmp_path / "torn.safetensors")
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        bind(tmp_path / "empty.pt")


def test_impossible_choices(file):
    with pytest.raises(ParameterError, match="label 2'; allowed: 0 to 1, or null"):
        bind(file, label=2)
    with pytest.raises(CapabilityError, match="points"):
        bind(file, dataset(None))
    with pytest.raises(ParameterError, match="sides that 4 divides"):
        bind(file, dataset((3, 6, 6)))
    with pytest.raises(KfpbenchError, match="of another shape"):
        bind(file, classes=5)


def test_a_network_of_ones_own_is_a_subclass(tmp_path):
    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x, condition, label):
            return self.gain * x

    class Mine(EdmStateDict):
        def __init__(self, path: str) -> None:
            super().__init__(path)

        def build_network(self, data):
            return Linear()

    save_file({"gain": torch.tensor(3.0)}, tmp_path / "mine.safetensors")
    score = Mine(str(tmp_path / "mine.safetensors")).bind(dataset(), CPU, torch.float64)
    x, s = noise(4), 0.8
    gain = 0.25 / (s**2 + 0.25) + 3.0 * s * 0.5 / (s**2 + 0.25)
    torch.testing.assert_close(score.denoise(x, 1.0, s), gain * x)


def test_contract(file):
    plugin = EdmStateDict(str(file), **NETWORK)
    assert isinstance(plugin, ScorePlugin)
    bound = plugin.bind(dataset(), CPU, torch.float32)
    assert isinstance(bound, BoundScore)
    for rows in (5, 0, 33):
        assert bound.score(torch.zeros((rows, 192)), 1.0, 0.5).shape == (rows, 192)
    assert bound.evaluations == 38
    assert not bound.denoise(torch.zeros((1, 192)).requires_grad_(), 1.0, 0.5).requires_grad


@pytest.mark.parametrize(("batch", "side"), [(10, 8), (64, 16)])
def test_it_stays_within_its_stated_memory(live_bytes, tmp_path, batch, side):
    shape = (3, side, side)
    network = UNet(shape, classes=2, **NETWORK)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    plugin, x = EdmStateDict(str(tmp_path / "weights.safetensors"), **NETWORK), torch.randn(batch, 3 * side**2)
    with live_bytes:
        plugin.bind(dataset(shape), CPU, torch.float32).denoise(x, 1.0, 0.5)
    stated = plugin.working_memory(ProblemSize(10, 3 * side**2, batch, 4))
    assert 0.25 * stated <= live_bytes.peak <= stated


def test_the_fingerprint_is_that_of_the_file(file: Path, network: UNet, tmp_path: Path) -> None:
    """Not of its name or of the parameters: a copy has the same one, weights trained on have another."""
    before = EdmStateDict(path=str(file)).fingerprint()
    assert before == hashlib.sha256(file.read_bytes()).hexdigest()
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    assert EdmStateDict(path=str(copy), label=1).fingerprint() == before
    trained = {name: value + 1e-3 for name, value in network.state_dict().items()}
    save_file(trained, file)
    assert EdmStateDict(path=str(file)).fingerprint() != before
    assert EdmStateDict(path=str(tmp_path / "none.safetensors")).fingerprint() is None


def test_a_run_is_not_continued_with_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "digits.safetensors"
    options = {"patch": 1, "channels": [8, 8], "attention": []}

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        save_file(UNet((1, 8, 8), 1, (8, 8), 1, (), 10).state_dict(), path)

    suite = {
        "name": "with_state_dict",
        "data": "digits",
        "score": {"name": "edm_state_dict", "path": str(path), **options},
        "process": "ve",
        "samplers": [{"name": "pf_ode_euler", "steps": 1}],
        "n_samples": 4,
        "batch_size": 4,
        "latency_repeats": 1,
    }
    save(0)
    (record,) = kfpbench.run(suite, out=tmp_path / "run").records
    assert record.status == "ok"
    kfpbench.run(suite, out=tmp_path / "run")
    save(1)
    with pytest.raises(StoreError, match=r"file has changed.*--force"):
        kfpbench.run(suite, out=tmp_path / "run")
