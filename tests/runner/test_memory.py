import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kfpbench.runner import memory
from kfpbench.runner.memory import PeakMemory, available_bytes

MB = 10**6
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def allocate(megabytes):
    """Touch that much memory and let it go again."""
    return float(np.ones(megabytes * MB // 8).sum())


@linux
def test_a_freed_allocation_is_seen_within_a_tenth():
    with PeakMemory() as peak:
        allocate(200)
    assert peak.result.source == "VmHWM"
    assert 0.9 * 200 * MB < peak.result.increase < 1.1 * 200 * MB
    assert peak.result.peak > peak.result.increase


@linux
def test_an_earlier_larger_peak_does_not_count():
    allocate(300)
    with PeakMemory() as peak:
        allocate(50)
    assert 0.8 * 50 * MB < peak.result.increase < 1.2 * 50 * MB + 4 * MB


@linux
def test_nothing_allocated_is_nearly_nothing():
    with PeakMemory() as peak:
        pass
    assert 0 <= peak.result.increase < 4 * MB


@linux
def test_an_inner_phase_does_not_hide_the_outer_peak():
    with PeakMemory() as outer:
        allocate(150)
        with PeakMemory() as inner:
            allocate(40)
    assert 0.9 * 150 * MB < outer.result.increase < 1.1 * 150 * MB
    assert inner.result.increase < 60 * MB
    with PeakMemory() as outer, PeakMemory() as inner:
        allocate(100)
    assert outer.result.increase == pytest.approx(inner.result.increase, abs=8 * MB)


@linux
def test_a_failing_phase_is_measured():
    phase = PeakMemory()
    with pytest.raises(ZeroDivisionError), phase:
        _ = allocate(100) / 0
    assert phase.result.increase > 90 * MB
    assert PeakMemory._active == []


@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage")
def test_without_proc_the_lifetime_peak_is_used_with_a_note(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    with PeakMemory() as peak:
        keep = np.ones(10)
    assert keep.sum() == 10
    assert peak.result.source == "ru_maxrss"
    assert "lower bound" in peak.result.note
    assert peak.result.peak > 10 * MB
    assert 0 <= peak.result.increase <= peak.result.peak


def test_where_nothing_is_known_nothing_is_claimed(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(memory, "_lifetime_peak", lambda: None)
    with PeakMemory() as peak:
        pass
    assert (peak.result.peak, peak.result.increase, peak.result.source) == (None, None, "none")


def test_on_cuda_the_allocator_is_asked(monkeypatch):
    """With an allocator of our own in the place of CUDA's: 100 bytes held, a phase that reaches 175."""
    import torch

    state = SimpleNamespace(now=100, peak=500, synchronised=0)

    def synchronise(device):
        state.synchronised += 1

    def reset(device):
        state.peak = state.now

    monkeypatch.setattr(torch.cuda, "synchronize", synchronise)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state.now)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state.peak)
    with PeakMemory("cuda:0") as peak:
        state.peak = 175
    assert (peak.result.peak, peak.result.increase, peak.result.source) == (175, 75, "cuda")
    assert state.synchronised >= 2


@linux
def test_what_is_available_is_what_the_machine_says():
    assert 16 * MB < available_bytes() < 2**60


def test_a_container_has_no_more_than_its_limit(monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert available_bytes() is None
    meminfo.write_text("MemTotal: 900 kB\nMemAvailable: 700 kB\n")
    assert available_bytes() == 700 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert available_bytes() == 700 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert available_bytes() == 4000
    (tmp_path / "memory.current").write_text("6000\n")
    assert available_bytes() == 0
