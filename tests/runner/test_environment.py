import json
import os
import platform
import subprocess
from pathlib import Path

import pytest

from kfpbench.runner import environment
from kfpbench.runner.environment import describe_environment, git_state, machine_is_loaded
from kfpbench.store.json_values import dumps, loads


@pytest.fixture(scope="module")
def described():
    return describe_environment("cpu")


def test_it_names_what_a_reader_needs(described):
    import numpy
    import torch

    import kfpbench

    assert described["kfpbench"] == kfpbench.__version__
    assert described["python"] == platform.python_version()
    assert described["torch"]["version"] == torch.__version__
    assert described["packages"]["numpy"] == numpy.__version__
    assert described["threads"]["torch"] == torch.get_num_threads()
    assert described["cpu"]["logical_cores"] == os.cpu_count()
    assert described["device"] == "cpu"
    assert described["gpu"] is None


def test_it_is_stored_without_loss(described):
    assert loads(dumps(described)) == described


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads /proc")
def test_the_hardware_is_that_of_proc(described):
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert described["memory_bytes"] == pytest.approx(total, rel=0.05)
    assert 1 <= described["cpu"]["usable_cores"] <= described["cpu"]["logical_cores"]
    physical = described["cpu"]["physical_cores"]
    assert physical is None or 1 <= physical <= described["cpu"]["logical_cores"]


def test_the_thread_variables_are_recorded(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    threads = describe_environment("cpu")["threads"]
    assert (threads["OMP_NUM_THREADS"], threads["MKL_NUM_THREADS"]) == ("3", None)


def test_governor_and_turbo_are_read_where_the_platform_has_them(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_PROCESSORS", tmp_path)
    assert (environment._governor(), environment._turbo()) == (None, None)
    for number, name in enumerate(["powersave", "performance", "powersave"]):
        folder = tmp_path / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{name}\n")
    assert environment._governor() == "performance, powersave"
    (tmp_path / "cpufreq").mkdir()
    (tmp_path / "cpufreq" / "boost").write_text("1\n")
    assert environment._turbo() is True
    (tmp_path / "intel_pstate").mkdir()
    (tmp_path / "intel_pstate" / "no_turbo").write_text("1\n")
    assert environment._turbo() is False


def test_the_host_is_private_unless_asked_for(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    assert "secret-host" not in json.dumps(describe_environment("cpu"))
    assert describe_environment("cpu", hostname=True)["hostname"] == "secret-host"


def test_no_path_is_recorded(described):
    text = json.dumps(described)
    for private in {str(Path.home()), os.getcwd(), os.path.dirname(os.__file__)} - {"/"}:
        assert private not in text


def test_a_checkout_has_a_commit_and_may_be_dirty(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("init", "-q")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert git_state(tmp_path) == {"commit": None, "dirty": None}  # no commit yet
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "results").write_text("untracked files are not changes of the code")
    assert git_state(tmp_path)["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path)["dirty"] is True


def test_without_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("load", "cores", "own", "busy"),
    [(0.0, 1, 1, False), (0.3, 1, 1, True), (1.5, 2, 1, False), (1.6, 2, 1, True), (12.0, 16, 8, False)],
)
def test_a_load_that_leaves_too_little_room_is_noted(load, cores, own, busy):
    note = machine_is_loaded(own, load=load, cores=cores)
    assert (note is not None) == busy
    if note:
        assert f"{load:.2f}" in note
        assert f"{cores} core" in note


def test_where_there_is_no_load_average_there_is_no_note(monkeypatch):
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert machine_is_loaded() is None
