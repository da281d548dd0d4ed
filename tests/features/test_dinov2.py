"""DINOv2 features: a network of the tests' own in transformers' place, and a small real one where that is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kfpbench.errors import CapabilityError, DataError, ParameterError, ShapeError
from kfpbench.features import dinov2
from kfpbench.features.dinov2 import Dinov2
from kfpbench.metrics.frechet import FrechetDistance
from kfpbench.protocols import MetricInput
from kfpbench.testing import report

CONFIG = {"model_type": "dinov2", "patch_size": 4, "hidden_size": 6}
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed (extra dinov2)"
)


class Stub(nn.Module):
    """The interface of transformers' Dinov2Model: tokens (b, 1 + patches, c), of which the first is taken."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.project = nn.Linear(3, config["hidden_size"])
        self.seen: list[Tensor] = []

    @classmethod
    def from_pretrained(cls, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
        assert options == {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        network = cls(json.loads((folder / "config.json").read_text()))
        missing, _ = network.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        return network, {"missing_keys": set(missing), "mismatched_keys": set()}

    def forward(self, pixel_values: Tensor) -> Any:
        self.seen.append(pixel_values)
        token = self.project(pixel_values.mean(dim=(2, 3)))
        return SimpleNamespace(last_hidden_state=torch.stack([token, torch.full_like(token, torch.nan)], dim=1))


@pytest.fixture(autouse=True)
def _cold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KFPBENCH_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dinov2._load.cache_clear()
    dinov2._fingerprint.cache_clear()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("transformers")
    module.Dinov2Model = Stub
    monkeypatch.setitem(sys.modules, "transformers", module)


def write(folder: Path, config: dict[str, Any] | None = None, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    torch.manual_seed(seed)
    save_file(nn.Linear(3, 6).state_dict(prefix="project."), folder / "model.safetensors")
    return folder


def test_images_are_enlarged_and_normalised(stub, tmp_path, of_images) -> None:
    """A constant image stays one; its pixels are (value - mean) / std of ImageNet, channel by channel."""
    rows = np.repeat(np.array([[-1.0, 0.0, 1.0]], np.float32), 64, axis=1)  # channels of 0, 0.5 and 1
    rows = np.concatenate([rows, np.random.default_rng(0).uniform(-1, 1, (2, 192)).astype(np.float32)])
    fitted = Dinov2(folder=str(write(tmp_path / "net")), side=20, tile=2).fit(of_images(rows, (3, 8, 8)))
    found = fitted.transform(rows)
    network = fitted._network()
    assert [tuple(part.shape) for part in network.seen] == [(2, 3, 20, 20), (1, 3, 20, 20)]
    constant = network.seen[0][0].flatten(1)
    expected = (np.array([0.0, 0.5, 1.0]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(constant.numpy(), np.repeat(expected[:, None], 400, axis=1), atol=1e-5)
    lowest = (torch.zeros(3) - torch.tensor(dinov2._MEAN)) / torch.tensor(dinov2._STD)
    assert bool((torch.cat(network.seen).amin(dim=(0, 2, 3)) >= lowest - 1e-6).all())  # bicubic overshoots are cut
    assert found.shape == (3, 6)
    assert np.isfinite(found).all()  # of the first token alone


def test_the_contract_holds(stub, tmp_path, monkeypatch) -> None:
    write(tmp_path / "data" / "weights" / "dinov2-small")
    monkeypatch.setenv("KFPBENCH_DATA_DIR", str(tmp_path / "data"))
    findings = report("features", Dinov2, ({"side": 8},))
    assert all(finding.passed for finding in findings), [str(f) for f in findings if not f.passed]


def test_the_version_names_configuration_weights_and_side(stub, tmp_path) -> None:
    one = Dinov2(folder=str(write(tmp_path / "one"))).version
    assert one.startswith("dinov2-224/")
    assert Dinov2(folder=str(write(tmp_path / "copy"))).version == one
    others = [
        Dinov2(folder=str(tmp_path / "one"), side=28).version,
        Dinov2(folder=str(write(tmp_path / "weights", seed=1))).version,
        Dinov2(folder=str(write(tmp_path / "config", {**CONFIG, "patch_size": 2}))).version,
    ]
    assert len({one, *others}) == 4


def test_each_row_of_a_result_names_weights_and_resize(stub, tmp_path, images, of_images) -> None:
    extractor = Dinov2(folder=str(write(tmp_path / "net")), side=16)
    data = of_images(images(4, seed=2))
    given = MetricInput(images(9), images(9, seed=1), data.train, data, "images/test", 0)
    (found,) = FrechetDistance(extractor).evaluate(given)
    assert (found.details["features"], found.details["features_version"]) == ("dinov2", extractor.version)
    assert found.details["resize"] == "32 x 32 to 16 x 16, bicubic with antialiasing"


def test_without_transformers_or_weights(stub, monkeypatch, tmp_path, images, of_images) -> None:
    with pytest.raises(CapabilityError, match=r"dinov2-small.*\$KFPBENCH_DATA_DIR/weights.*config.json and model"):
        Dinov2().fit(of_images(images(2)))
    with pytest.raises(DataError, match="no weights of features dinov2 there"):
        Dinov2(folder=str(tmp_path / "typo")).fit(of_images(images(2)))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"config.json and model.safetensors not found.*pickles"):
        Dinov2(folder=str(empty)).fit(of_images(images(2)))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CapabilityError, match=r"need transformers.*pip install 'kfpbench\[dinov2\]'"):
        Dinov2().fit(of_images(images(2)))


def test_other_networks_and_data_are_refused(stub, tmp_path, images, of_images) -> None:
    with pytest.raises(DataError, match="another kind; got 'vit'"):
        Dinov2(folder=str(write(tmp_path / "vit", {**CONFIG, "model_type": "vit"}))).fit(of_images(images(2)))
    folder = write(tmp_path / "net")
    with pytest.raises(ParameterError, match="a multiple of 4"):
        Dinov2(folder=str(folder), side=18).fit(of_images(images(2)))
    with pytest.raises(CapabilityError, match="colour images"):
        Dinov2(folder=str(folder)).fit(of_images(images(2)[:, :64], (1, 8, 8)))
    with pytest.raises(ShapeError, match="flattened images"):
        Dinov2(folder=str(folder)).fit(of_images(images(2))).transform(images(2)[:, :-1])
    save_file({"project.bias": torch.zeros(6)}, folder / "model.safetensors")
    with pytest.raises(DataError, match=r"not those of the network.*project.weight"):
        Dinov2(folder=str(folder), side=16).fit(of_images(images(2)))


@needs_transformers
def test_a_small_network_of_transformers(tmp_path, images, of_images) -> None:
    """Its class token for images that are resized here, against the network called by hand."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, image_size=28, patch_size=14)
    network = Dinov2Model(config).eval()
    network.save_pretrained(tmp_path / "dinov2-small")
    rows = images(3)
    fitted = Dinov2(folder=str(tmp_path / "dinov2-small"), side=28).fit(of_images(rows))
    pixels = nn.functional.interpolate(
        torch.from_numpy(rows).view(-1, 3, 32, 32) / 2 + 0.5, (28, 28), mode="bicubic", antialias=True
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        given = (pixels.clamp(0, 1) - mean[:, None, None]) / std[:, None, None]
        expected = network(pixel_values=given).pooler_output.numpy()
    np.testing.assert_allclose(fitted.transform(rows), expected, atol=1e-5)
    assert fitted.transform(rows).shape == (3, 12)
