"""What counts as worse, and what the command refuses; the whole of it, with commits of its own, is slow."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def timed(compare, samples):
    return compare.Result(sorted(samples)[len(samples) // 2], tuple(samples))


def noisy(seed, scale=1.0, bursts=0.0, count=20):
    """Times that are at least ``scale``, some of them (those that meet load) several times as long."""
    draw = random.Random(seed)
    return [scale * (1.0 + 0.1 * draw.random()) * (3.0 if draw.random() < bursts else 1.0) for _ in range(count)]


def row(compare, base, head, unit="seconds"):
    return compare.Row("bench", unit, base, head)


def test_twice_as_slow_is_worse_and_its_inverse_better(compare):
    fast, slow = timed(compare, noisy(0)), timed(compare, noisy(1, scale=2.0))
    assert compare.verdict(row(compare, fast, slow), 1.5) == "worse"
    assert compare.verdict(row(compare, slow, fast), 1.5) == "better"
    assert compare.verdict(row(compare, fast, slow), 2.5) == "same"


def test_load_during_most_of_one_commits_times_is_not_worse(compare):
    """The median is three times as long, the shortest time is not."""
    quiet, loaded = timed(compare, noisy(0)), timed(compare, noisy(1, bursts=0.8))
    assert loaded.value > 2.5 * quiet.value
    assert compare.verdict(row(compare, quiet, loaded), 1.5) == "same"


def test_a_second_measurement_clears_what_load_made_look_worse(compare):
    """Both of the first measurement's times were taken under load on one commit; the second finds it as fast."""
    first = row(compare, timed(compare, noisy(0)), timed(compare, noisy(1, scale=2.5)))
    second = row(compare, timed(compare, noisy(2)), timed(compare, noisy(3)))
    assert compare.verdict(first, 1.5) == "worse"
    both = compare.pooled(first, second)
    assert len(both.head.samples) == 40
    assert compare.verdict(both, 1.5) == "same"
    slow = row(compare, timed(compare, noisy(4)), timed(compare, noisy(5, scale=2.5)))
    assert compare.verdict(compare.pooled(first, slow), 1.5) == "worse"


def test_too_few_times_are_not_significant(compare):
    assert compare.verdict(row(compare, timed(compare, [1.0, 1.1]), timed(compare, [2.0, 2.1])), 1.5) == "same"


def test_bytes_and_errors_are_compared_by_value(compare):
    def result(value):
        return compare.Result(value)

    mib = 2.0**20
    assert compare.verdict(row(compare, result(100 * mib), result(200 * mib), "bytes"), 1.5) == "worse"
    assert compare.verdict(row(compare, result(0.0), result(4 * mib), "bytes"), 1.5) == "same"  # a few pages
    assert compare.verdict(row(compare, result(0.0), result(40 * mib), "bytes"), 1.5) == "worse"
    assert compare.verdict(row(compare, result(1e-15), result(1e-14), "eigenvalue"), 1.5) == "same"  # rounding
    assert compare.verdict(row(compare, result(0.01), result(0.02), "eigenvalue"), 1.5) == "worse"


def test_failures_and_skips(compare):
    good, failed, skipped = compare.Result(1.0), compare.Result(None), compare.Result(math.nan)
    words = {
        (good, failed): "broken",
        (good, skipped): "broken",
        (failed, good): "new",
        (skipped, good): "new",
        (failed, failed): "failed",
        (skipped, skipped): "skipped",
    }
    for (base, head), word in words.items():
        assert compare.verdict(row(compare, base, head), 1.5) == word


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["HEAD", "HEAD"], "the same commit"),
        (["no-such-branch", "HEAD"], "git knows no commit"),
        (["HEAD~1", "HEAD", "--factor", "1"], "above 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(compare, capsys, monkeypatch, words, message):
    monkeypatch.chdir(ROOT)
    if subprocess.run(["git", "rev-parse", "HEAD~1"], capture_output=True).returncode:
        pytest.skip("this is no git checkout with two commits")
    with pytest.raises(SystemExit) as stop:
        compare.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_links_leave_the_project_out(tmp_path, monkeypatch):
    pytest.importorskip("asv", reason="asv is not installed: pip install kfpbench[dev]")
    import importlib.util
    import sysconfig

    file = ROOT / "suites" / "asv_tools" / "linked_environment.py"
    spec = importlib.util.spec_from_file_location("linked_environment", file)
    linked = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(linked)
    here, target = tmp_path / "here", tmp_path / "there"
    for folder in ("project", "project-1.dist-info", "other", "other-1.dist-info"):
        (here / folder).mkdir(parents=True)
    (here / "project.pth").write_text("")
    for name in ("project", "other"):
        (here / f"{name}-1.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    files = ["project/a.py", "project.pth", "project-1.dist-info/METADATA", "../../bin/project"]
    (here / "project-1.dist-info" / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    target.mkdir()
    (target / "gone").symlink_to(here / "gone")
    (target / "project").mkdir()  # installed from a commit
    monkeypatch.setattr(sysconfig, "get_path", lambda *_, **__: str(here))
    linked.link_packages(target, "project")
    assert sorted(entry.name for entry in target.iterdir()) == ["other", "other-1.dist-info", "project"]
    assert not (target / "project").is_symlink()


@pytest.fixture
def clone(tmp_path):
    """A clone with what this working tree holds as one more commit on its branch `main`."""
    if subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True).returncode:
        pytest.skip("this is no git checkout")
    target = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, target], check=True)
    for folder in ("suites", "kfpbench", "baselines"):
        shutil.copytree(ROOT / folder, target / folder, dirs_exist_ok=True)
    for name in ("asv.conf.json", "pyproject.toml"):
        shutil.copy(ROOT / name, target / name)
    git(target, "checkout", "--quiet", "-B", "main")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "--allow-empty", "-m", "present")
    return target


def git(folder, *words):
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", folder, *who, *words], check=True)


@pytest.mark.slow
def test_results_are_stored_under_the_commit(clone):
    pytest.importorskip("asv", reason="asv is not installed: pip install kfpbench[dev]")
    asv = [sys.executable, "-m", "asv"]
    subprocess.run([*asv, "machine", "--yes"], cwd=clone, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True).stdout.strip()
    chosen = ["--bench", "kernel_rbf.track_eigenvalue_error"]
    command = [*asv, "run", "--python=same", f"--set-commit-hash={head}", "--quick", *chosen]
    subprocess.run(command, cwd=clone, check=True)
    files = list((clone / ".asv" / "results").glob(f"*/{head[:8]}-existing*.json"))
    assert len(files) == 1
    stored = json.loads(files[0].read_text())
    assert stored["commit_hash"] == head
    assert "kernels.kernel_rbf.track_eigenvalue_error" in stored["results"]


@pytest.mark.slow
def test_a_planted_slowdown_is_found_and_nothing_between_equal_commits(clone):
    pytest.importorskip("asv", reason="asv is not installed: pip install kfpbench[dev]")
    git(clone, "commit", "--quiet", "--allow-empty", "-m", "nothing")
    chosen = ["--rounds", "3", "--bench", r"kernel_(rbf|matern52)\.time_gram\(1000, 2\)"]

    def compared():
        command = [sys.executable, "suites/asv_tools/compare.py", "HEAD~1", "HEAD", *chosen]
        return subprocess.run(command, cwd=clone, capture_output=True, text=True)

    equal = compared()
    assert equal.returncode == 0, equal.stdout + equal.stderr
    file = clone / "kfpbench" / "kernels" / "matern52.py"
    text = file.read_text()
    marked = "        decay = (-u).exp()\n"
    assert text.count(marked) == 1
    file.write_text(text.replace(marked, f"        for _ in range(20):\n    {marked}"))
    git(clone, "commit", "--quiet", "--all", "-m", "slow")
    slow = compared()
    assert slow.returncode == 1, slow.stdout + slow.stderr
    bad = slow.stdout.partition("Worse than")[2]
    assert "kernels.kernel_matern52.time_gram(1000, 2)" in bad
    assert "kernel_rbf" not in bad
