"""FID features on a stand-in for torch-fidelity's network: weights, pixels, and why there may be none."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kfpbench.errors import CapabilityError, DataError, ParameterError, ShapeError
from kfpbench.features import inception
from kfpbench.features.inception import Inception
from kfpbench.metrics.frechet import FrechetDistance
from kfpbench.protocols import MetricInput
from kfpbench.testing import report

NAME = "pt_inception-2015-12-05-6726825d.pth"


class Stub(nn.Module):
    """The interface of torch-fidelity 0.4's extractor; 2048 sums of the pixels of 8 x 8 blocks, times weights."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None) -> None:
        super().__init__()
        assert (name, features_list) == ("inception", ["2048"])
        self.fc = nn.Linear(48, 2048, bias=False)
        # as torch-fidelity does: whatever the file holds is unpickled
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> tuple[Tensor]:
        assert x.dtype == torch.uint8
        self.seen.append(x)
        pooled = nn.functional.adaptive_avg_pool2d(x.float(), (4, 4)).flatten(1)
        return (self.fc(pooled),)


@pytest.fixture(autouse=True)
def _cold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights of this machine, and nothing loaded."""
    monkeypatch.delenv("KFPBENCH_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    inception._load.cache_clear()
    inception._digest.cache_clear()


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch_fidelity")
    module.FeatureExtractorInceptionV3, module.__version__ = Stub, "0.4.0"
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def make(path: Path, seed: int = 0, content: Any = None) -> Path:
        """Write weights of the stand-in, and expect their digest."""
        value = torch.randn(2048, 48, generator=torch.Generator().manual_seed(seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"fc.weight": value} if content is None else content, path)
        monkeypatch.setattr(inception, "_SHA256_STARTS", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
        return path

    return make


def test_pixels_are_rounded_to_eight_bits(fidelity, weights, tmp_path, of_images) -> None:
    path = weights(tmp_path / NAME)
    rows = np.full((3, 3 * 64), 0.0, np.float32)
    rows[0] = np.linspace(-1.5, 1.5, 192)  # values outside are clipped
    rows[1], rows[2] = -1.0 + 1.4 / 127.5, -1.0 + 1.6 / 127.5
    fitted = Inception(weights=str(path), tile=2).fit(of_images(rows, (3, 8, 8)))
    found = fitted.transform(rows)
    network = fitted._network()
    seen = torch.cat(network.seen)
    assert [len(part) for part in network.seen] == [2, 1]
    assert seen.shape == (3, 3, 8, 8)
    expected = np.clip(np.rint((np.clip(rows, -1, 1).astype(np.float64) + 1) * 127.5), 0, 255)
    assert np.abs(seen.flatten(1).numpy().astype(int) - expected).max() <= 1  # ties of rounding
    assert seen[1:, 0, 0, 0].tolist() == [1, 2]
    assert (seen.min(), seen.max()) == (0, 255)
    with torch.inference_mode():
        direct = network(seen)[0].double().numpy()
    np.testing.assert_allclose(found, direct, rtol=1e-5, atol=1e-3)
    assert found.shape == (3, 2048)
    assert found.dtype == np.float64


def test_the_contract_holds(fidelity, weights, tmp_path, monkeypatch) -> None:
    weights(tmp_path / "data" / "weights" / NAME)
    monkeypatch.setenv("KFPBENCH_DATA_DIR", str(tmp_path / "data"))
    findings = report("features", Inception)
    assert all(finding.passed for finding in findings), [str(f) for f in findings if not f.passed]


@pytest.mark.parametrize(
    "place",
    [
        f"data/{NAME}",
        f"data/weights/{NAME}",
        f"cache/kfpbench/weights/{NAME}",
        "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth",
    ],
)
def test_weights_are_found_where_they_may_lie(fidelity, weights, tmp_path, monkeypatch, place) -> None:
    monkeypatch.setenv("KFPBENCH_DATA_DIR", str(tmp_path / "data"))
    path = weights(tmp_path / place)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert Inception().version == f"inception/{digest[:12]}, torch-fidelity 0.4.0"


def test_each_row_of_a_result_names_weights_and_resize(fidelity, weights, tmp_path, images, of_images) -> None:
    path = weights(tmp_path / NAME)
    rows, reference = images(6), images(6, seed=1)
    data = of_images(images(4, seed=2))
    given = MetricInput(rows, reference, data.train, data, "images/test", 0)
    (found,) = FrechetDistance(Inception(weights=str(path))).evaluate(given)
    assert found.details["features"] == "inception"
    assert found.details["features_version"].startswith(f"inception/{inception._SHA256_STARTS}")
    assert found.details["resize"] == "8 bits, 32 x 32 to 299 x 299, bilinear as in TensorFlow 1"
    assert (found.n, found.details["feature_dimension"]) == (6, 2048)


# ---- there are none ----


def test_without_torch_fidelity(monkeypatch, of_images, images) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    metric = FrechetDistance(Inception())  # building a metric needs nothing
    data = of_images(images(4))
    with pytest.raises(CapabilityError, match=r"need torch-fidelity.*pip install 'kfpbench\[fid\]'"):
        metric.evaluate(MetricInput(images(4), images(4, 1), data.train, data, "test", 0))


def test_without_weights(fidelity, monkeypatch, of_images, images, tmp_path) -> None:
    with pytest.raises(CapabilityError) as caught:
        Inception().fit(of_images(images(2)))
    said = str(caught.value)
    assert NAME in said
    assert "$KFPBENCH_DATA_DIR/weights" in said
    assert "Put torch-fidelity's weights file there, or name it with `weights:`. Nothing is downloaded." in said
    with pytest.raises(DataError, match="no weights of features inception there"):
        Inception(weights=str(tmp_path / "typo.pth")).fit(of_images(images(2)))


def test_another_file_is_refused(fidelity, weights, monkeypatch, tmp_path, of_images, images) -> None:
    path = weights(tmp_path / NAME)
    monkeypatch.setattr(inception, "_SHA256_STARTS", "6726825d")
    with pytest.raises(DataError, match=r"not the file of the FID's weights.*6726825d"):
        Inception(weights=str(path)).fit(of_images(images(2)))
    weights(path, content={"other.weight": torch.zeros(3)})
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="not those of the network"):
        Inception(weights=str(path)).fit(of_images(images(2)))


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(os.environ["KFPBENCH_TEST_MARK"]),))


def test_no_code_of_a_file_is_run(fidelity, monkeypatch, tmp_path, of_images, images) -> None:
    """Not even of one whose digest is right: torch-fidelity itself would unpickle it."""
    mark, path = tmp_path / "mark", tmp_path / NAME
    monkeypatch.setenv("KFPBENCH_TEST_MARK", str(mark))
    torch.save({"fc.weight": torch.zeros(2048, 48), "more": _RunsCode()}, path)
    monkeypatch.setattr(inception, "_SHA256_STARTS", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    with pytest.raises(DataError, match="could run code: it was not loaded"):
        Inception(weights=str(path)).fit(of_images(images(2)))
    assert not mark.exists()
    pickle.loads(pickle.dumps(_RunsCode()))  # the trap works
    assert mark.exists()


def test_other_data_are_refused(fidelity, weights, tmp_path, of_images, images) -> None:
    extractor = Inception(weights=str(weights(tmp_path / NAME)))
    with pytest.raises(CapabilityError, match="colour images"):
        extractor.fit(of_images(images(2)[:, :64], (1, 8, 8)))
    with pytest.raises(ParameterError, match="not been fitted"):
        extractor.transform(images(2))
    with pytest.raises(ShapeError, match="flattened images"):
        extractor.fit(of_images(images(2))).transform(images(2)[:, :-1])
