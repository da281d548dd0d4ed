"""Checkpoints: the round trip within float16, every way in which a file can be wrong, and the model card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kfpbench.errors import DataError, NumericalError, ParameterError
from kfpbench.networks.architecture import Architecture
from kfpbench.networks.checkpoint import (
    SHIPPED,
    SHIPPED_LIMIT,
    CheckpointRecord,
    Hardware,
    TrainingRecord,
    digest,
    load_checkpoint,
    read_record,
    save_checkpoint,
)
from kfpbench.networks.model_card import write_model_card

RECORD = CheckpointRecord(
    architecture=Architecture(
        patch=1, channels=[8, 16], attention=[1], image_shape=(1, 8, 8), classes=["zero", "one"], sigma_data=0.6
    ),
    training=TrainingRecord(
        name="toy",
        command="kfpbench train toy.yaml",
        dataset="digits",
        fingerprint="f" * 64,
        rows=100,
        images=250,
        steps=25,
        seconds=7260.0,
        hardware=[Hardware(what="a small GPU, float32", images=250, seconds=7260.0)],
        torch="2.0",
        kfpbench="0.1",
        options={"seed": 3},
    ),
)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: 0.1 * torch.randn_like(value) for name, value in RECORD.architecture.build().named_parameters()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.safetensors"
    save_checkpoint(path, weights(), RECORD)
    return path


def rewrite(path: Path, change: dict[str, torch.Tensor | None], header: object = None) -> None:
    """Write the file again with tensors changed or (None) left out, and the record replaced."""
    tensors = {name: value for name, value in {**load_file(path), **change}.items() if value is not None}
    text = RECORD.model_dump_json() if header is None else json.dumps(header)
    save_file(tensors, path, metadata={"kfpbench": text})


def test_round_trip(file: Path) -> None:
    loaded = load_checkpoint(file)
    assert loaded.record == RECORD == read_record(file)
    assert loaded.sha256 == digest(file)
    assert not loaded.denoiser.training
    for name, value in loaded.denoiser.named_parameters():
        # half precision: 11 bits, and 2^-24 is its smallest step
        torch.testing.assert_close(value, weights()[name], rtol=2.0**-11, atol=2.0**-25)
        assert not value.requires_grad
    x, sigma, label = torch.ones(1, 1, 8, 8), torch.tensor([0.5]), torch.tensor([2])
    again = RECORD.architecture.build().eval()
    again.load_state_dict({name: value.half().float() for name, value in weights().items()})
    assert torch.equal(loaded.denoiser(x, sigma, label), again(x, sigma, label).detach())


def test_equal_weights_make_equal_files(file: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "b.safetensors", weights(), RECORD)
    assert digest(file) == digest(tmp_path / "b.safetensors")
    save_checkpoint(tmp_path / "b.safetensors", weights(seed=1), RECORD)
    assert digest(file) != digest(tmp_path / "b.safetensors")


def test_what_cannot_be_written_is_refused_and_leaves_the_old_file(file: Path) -> None:
    before = digest(file)
    with pytest.raises(NumericalError, match="float16"):
        save_checkpoint(file, {**weights(), "network.enter.bias": torch.full((8,), 7e4)}, RECORD)
    with pytest.raises(ParameterError, match=r"too large to ship.*at most 0\.0625 MiB"):
        save_checkpoint(file, weights(), RECORD, limit=2**16)
    assert digest(file) == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_wrong_tensors(file: Path) -> None:
    rewrite(file, {"network.enter.bias": None, "more": torch.ones(1)})
    with pytest.raises(DataError, match=r"1 missing \(network.enter.bias\), 1 unexpected \(more\)"):
        load_checkpoint(file)
    save_checkpoint(file, weights(), RECORD)
    rewrite(file, {"network.enter.bias": torch.ones(9)})
    with pytest.raises(DataError, match=r"network.enter.bias has the wrong shape; got \(9,\); allowed: \(8,\)"):
        load_checkpoint(file)
    for value in (torch.full((8,), torch.nan), torch.ones(8, dtype=torch.int64)):
        rewrite(file, {"network.enter.bias": value})
        with pytest.raises(DataError, match=r"not a finite number; got 'network.enter.bias'"):
            load_checkpoint(file)


def test_wrong_records(file: Path) -> None:
    good = json.loads(RECORD.model_dump_json())
    architecture = good["architecture"]
    wrong = [
        ({**good, "format_version": 2}, "newer format; got 2; allowed: 1"),
        ({**good, "architecture": {**architecture, "name": "transformer"}}, "architecture.name.*'transformer'"),
        ({**good, "architecture": {**architecture, "channels": [10**9]}}, "architecture.channels.0"),
        ({**good, "architecture": {**architecture, "image_shape": [1, 9, 9]}}, "cannot be halved"),
        # a false promise of a huge network is found out before memory is taken for it
        (
            {**good, "architecture": {**architecture, "channels": [4096] * 4, "blocks": 16}},
            "not those of the network|halved",
        ),
        (
            {**good, "architecture": {**architecture, "channels": [4096, 4096], "blocks": 16}},
            "not those of the network",
        ),
        ({"format_version": 1}, "architecture: Field required"),
        ([], "not valid"),
    ]
    for header, message in wrong:
        rewrite(file, {}, header)
        with pytest.raises(DataError, match=message):
            load_checkpoint(file)


def test_files_that_are_no_checkpoints(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*kfpbench train"):
        load_checkpoint(tmp_path / "none.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="no record of kfpbench"):
        load_checkpoint(tmp_path / "other.safetensors")
    content = file.read_bytes()
    for damaged in (content[:100], content[: len(content) // 2], b"", b"\x80\x04pickle" * 100):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read as safetensors"):
            load_checkpoint(file)


def test_the_card_says_what_the_record_says(file: Path) -> None:
    card = write_model_card(file, {"Frechet distance": "12.5 (n = 5,000)"})
    text = card.read_text()
    assert card == file.with_suffix(".md")
    for part in (
        "# toy.safetensors",
        "1 x 8 x 8 images",
        "digits, 100 training images",
        "250 (2.5 epochs) in 25 steps",
        "a small GPU, float32: 250 images in 2 h 1 min",
        "`kfpbench train toy.yaml`",
        "- Frechet distance: 12.5 (n = 5,000)",
        digest(file),
        "zero, one",
        '"seed": 3',
    ):
        assert part in text
    assert "Nothing yet" in write_model_card(file).read_text()


@pytest.mark.skipif(not SHIPPED.exists(), reason=f"no checkpoint is shipped at {SHIPPED.name}")
def test_the_shipped_checkpoint_is_small_and_its_card_is_its_own() -> None:
    assert SHIPPED.stat().st_size <= SHIPPED_LIMIT
    assert load_checkpoint(SHIPPED).record.architecture.image_shape == (3, 32, 32)
    assert digest(SHIPPED) in SHIPPED.with_suffix(".md").read_text()
