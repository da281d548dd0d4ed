"""The cache in runs: the second one spares the work, charges it, says so, and has the same samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kfpbench
from kfpbench.cache import use
from kfpbench.cache.location import cache_folder
from kfpbench.cache.store import Store
from kfpbench.cache.summary import cache_line
from kfpbench.cli import main
from kfpbench.data.moments import training_moments
from kfpbench.store.records import CellRecord

SUITE: dict[str, Any] = {
    "name": "cached",
    "data": {"name": "gmm_ring"},
    "score": "mixture",
    "process": {"name": "ve", "sigma_min": 0.05, "sigma_max": 10.0},
    "samplers": [
        {"name": "koopman", "operator": {"segments": 2, "points": 60}},
        {"name": "pf_ode_heun", "steps": 4},
    ],
    "metrics": [{"name": "frechet", "features": "identity"}],
    "n_samples": 60,
    "batch_size": 10,
    "latency_repeats": 3,
}


@pytest.fixture(autouse=True)
def keep_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small work is worth keeping too, and times need few batches."""
    monkeypatch.setattr(use, "Store", lambda folder, **options: Store(folder, **options, worth=0.0))
    monkeypatch.setattr(use, "_BYTES_PER_SECOND", 1e15)
    monkeypatch.setattr("kfpbench.runner.sample_cell._BATCH_SECONDS", 0.0)


def _run(out: Path, suite: dict[str, Any] = SUITE, **options: Any) -> list[CellRecord]:
    result = kfpbench.run(suite, out=out, **options)
    assert [record.status for record in result.records] == ["ok"] * len(result.records)
    return result.records


def _used(records: list[CellRecord], what: str) -> list[set[str]]:
    return [{entry["kind"] for entry in record.details.get("cache", {}).get(what, [])} for record in records]


def _value(record: CellRecord, name: str) -> float:
    return next(entry["value"] for entry in record.measurements if entry["metric"] == name)


def _samples(folder: Path, record: CellRecord) -> np.ndarray:
    with np.load(folder / record.files["samples"]) as content:
        return content[content.files[0]]


def test_a_second_run_reads_charges_and_says_so(tmp_path: Path) -> None:
    first = _run(tmp_path / "a")
    second = _run(tmp_path / "b")
    assert _used(first, "read") == [set(), set()]
    assert _used(second, "read")[0] >= {"fit", "samples"}
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(_samples(tmp_path / "a", before), _samples(tmp_path / "b", after))
        assert _value(before, "frechet") == _value(after, "frechet")
        assert _value(before, "setup_nfe") == _value(after, "setup_nfe")
        assert _value(before, "nfe") == _value(after, "nfe")
        assert after.details["kept_samples"]["drawn_now"] == 30  # and timed: times are taken in every run
    before, after = first[0], second[0]
    assert _value(after, "setup_seconds") == pytest.approx(_value(before, "setup_seconds"), rel=1e-9)
    details = next(entry["details"] for entry in after.measurements if entry["metric"] == "setup_seconds")
    assert "read from the cache" in details["note"]
    assert details["measured"] < details["shared"]
    assert "results read" in cache_line(second)


def test_more_cells_metrics_and_another_order_invalidate_nothing(tmp_path: Path) -> None:
    _run(tmp_path / "a")
    more = {
        **dict(reversed(SUITE.items())),
        "samplers": [{"name": "gaussian"}, *SUITE["samplers"][::-1]],
        "metrics": ["energy_distance"],
    }
    records = {record.label: record for record in _run(tmp_path / "b", more)}
    assert {"fit", "samples"} <= _used([records["koopman"]], "read")[0]
    assert "samples" in _used([records["pf_ode_heun"]], "read")[0]
    assert "samples" not in _used([records["gaussian"]], "read")[0]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"dtype": "float64"}, {"data": {"name": "gmm_ring", "train_size": 90}}]
)
def test_other_seeds_dtypes_and_data_miss(tmp_path: Path, change: dict[str, Any]) -> None:
    _run(tmp_path / "a")
    assert not {"fit", "samples"} & set().union(*_used(_run(tmp_path / "b", {**SUITE, **change}), "read"))


def test_force_reads_nothing_and_no_cache_keeps_nothing(tmp_path: Path) -> None:
    _run(tmp_path / "a", cache=False)
    assert not cache_folder().exists()
    _run(tmp_path / "b", {**SUITE, "cache": False})
    assert not cache_folder().exists()
    _run(tmp_path / "c")
    forced = _run(tmp_path / "c", force=True)
    assert _used(forced, "read") == [set(), set()]
    assert _used(forced, "written")[0] >= {"fit", "samples"}


def test_damaged_entries_are_computed_again_and_reported(tmp_path: Path) -> None:
    first = _run(tmp_path / "a")
    for entry in Store(cache_folder()).entries():
        content = bytearray(entry.path.read_bytes())
        content[-1] ^= 1
        entry.path.write_bytes(bytes(content))
    second = _run(tmp_path / "b")
    assert {"fit", "samples"} <= _used(second, "rebuilt")[0] & _used(second, "written")[0]
    np.testing.assert_array_equal(_samples(tmp_path / "a", first[0]), _samples(tmp_path / "b", second[0]))
    assert "computed again" in cache_line(second)
    assert {"fit", "samples"} <= _used(_run(tmp_path / "c"), "read")[0]


def test_kept_samples_that_a_draw_contradicts_are_drawn_again(tmp_path: Path) -> None:
    first = _run(tmp_path / "a")
    store = Store(cache_folder(), worth=0.0)
    for entry in store.entries():
        if entry.kind == "samples":
            from kfpbench.cache.entry_file import decode, encode

            about, state = decode(entry.path.read_bytes())
            state.arrays = {name: rows + np.float32(1.0) for name, rows in state.arrays.items()}
            entry.path.write_bytes(encode(about, state))
    second = _run(tmp_path / "b")
    assert "samples" in _used(second, "rebuilt")[0]
    np.testing.assert_array_equal(_samples(tmp_path / "a", first[0]), _samples(tmp_path / "b", second[0]))


def test_spectra_are_kept(tmp_path: Path) -> None:
    suite = {
        "name": "spectra",
        "data": SUITE["data"],
        "score": "mixture",
        "process": SUITE["process"],
        "spectrum": [{"label": "modes", "n_eigs": 3, "operator": {"points": 80}}],
    }
    (before,), (after,) = _run(tmp_path / "a", suite), _run(tmp_path / "b", suite)
    assert _used([after], "read")[0] >= {"spectrum"}
    assert before.details["eigenvalues"] == after.details["eigenvalues"]
    assert before.details["solver"] == after.details["solver"]
    assert before.files.keys() == after.files.keys()
    assert _value(after, "setup_seconds") == pytest.approx(_value(before, "setup_seconds"))


def test_nothing_is_kept_outside_a_command() -> None:
    from kfpbench.data.digits import Digits

    training_moments(Digits().load())
    assert not cache_folder().exists()


def test_the_command_line_lists_verifies_and_prunes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["cache", *arguments])
        assert ended.value.code == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    assert "0 entries" in said("ls")
    _run(tmp_path / "a")
    capsys.readouterr()
    listed = json.loads(said("ls", "--json"))["entries"]
    assert {"fit", "samples"} <= {entry["kind"] for entry in listed}
    assert "gmm_ring, mixture, koopman" in said("ls")
    assert "0 damaged" in said("verify")
    path = Store(cache_folder()).entries()[0].path
    path.write_bytes(path.read_bytes()[:-1])
    assert "1 damaged and removed" in said("verify", code=1)
    assert "not a size" in said("prune", "--max-size", "much", code=2)
    assert "0 entries removed" in said("prune", "--max-size", "1GiB", "--older-than", "1d")
    kept = sorted(Store(cache_folder()).entries(), key=lambda entry: entry.used)
    most = sum(entry.bytes for entry in kept) - 1  # one byte too few: what was used first has to go
    said("prune", "--max-size", f"{most}B")
    left = {entry["entry"] for entry in json.loads(said("ls", "--json"))["entries"]}
    assert kept[0].name not in left
    assert kept[-1].name in left
    assert sum(entry.bytes for entry in Store(cache_folder()).entries()) <= most
    assert f"{len(left)} entries removed" in said("clear")
    assert "0 entries" in said("ls")
