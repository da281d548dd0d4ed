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


def noisy(draw, scale=1.0, bursts=0.0, count=5):
    """One round's times: at least ``scale``, some of them (those that meet load) several times as long."""
    samples = [scale * (1.0 + 0.1 * draw.random()) * (3.0 if draw.random() < bursts else 1.0) for _ in range(count)]
    return sorted(samples)[count // 2], tuple(samples)


def measured(compare, seed, head=1.0, rounds=4, bursts=(0.0, 0.0), loads=None):
    """``rounds`` of two commits; ``loads``: by how much each round is slower, in both, or a pair for base and head."""
    draw = random.Random(seed)
    results = []
    for load in loads or [1.0] * rounds:
        one, other = load if isinstance(load, tuple) else (load, load)
        results.append(
            (compare.Result(*noisy(draw, one, bursts[0])), compare.Result(*noisy(draw, head * other, bursts[1])))
        )
    return compare.Row("bench", "seconds", *(tuple(each) for each in zip(*results, strict=True)))


def row(compare, base, head, unit="seconds"):
    return compare.Row("bench", unit, (base,), (head,))


def test_twice_as_slow_is_worse_and_its_inverse_better(compare):
    slow, fast = measured(compare, 0, head=2.0), measured(compare, 1, head=0.5)
    assert compare.verdict(slow, 1.5) == "worse"
    assert compare.verdict(fast, 1.5) == "better"
    assert compare.verdict(slow, 2.5) == "same"
    assert compare.suspect(slow, 1.5, 1)
    assert not compare.suspect(fast, 1.5, 1)


def test_load_that_changes_from_round_to_round_hides_nothing_and_plants_nothing(compare):
    """Over all times together, the first half's of the one are as long as the second half's of the other."""
    loads = [1.0, 4.0, 2.0, 1.0, 8.0, 1.0, 3.0, 1.0]
    assert compare.verdict(measured(compare, 2, head=2.0, loads=loads), 1.5) == "worse"
    assert compare.verdict(measured(compare, 3, loads=loads), 1.5) == "same"


def test_load_during_most_of_one_commits_times_is_not_worse(compare):
    """The medians are three times as long, the shortest times are not."""
    loaded = measured(compare, 4, rounds=8, bursts=(0.0, 0.6))
    assert loaded.values[1].value > 2.0 * loaded.values[0].value
    assert compare.verdict(loaded, 1.5) == "same"


@pytest.mark.parametrize(("rounds", "bad"), [(8, 1), (12, 2)])
def test_some_rounds_under_load_change_no_verdict(compare, rounds, bad):
    for load in ((1.0, 5.0), (5.0, 1.0)):  # on HEAD alone, and on BASE alone
        loads = [load] * bad + [1.0] * (rounds - bad)
        assert compare.verdict(measured(compare, 5, loads=loads), 1.5) == "same"
        assert compare.verdict(measured(compare, 6, head=2.0, loads=loads), 1.5) == "worse"


def test_a_second_measurement_clears_what_load_made_look_worse(compare):
    first = measured(compare, 7, loads=[(1.0, 2.5)] * 3 + [1.0])
    assert compare.suspect(first, 1.5, 1)
    both = compare.pooled(first, measured(compare, 8))
    assert len(both.ratios) == 8
    assert compare.verdict(both, 1.5) == "same"


def test_rounds_that_disagree_are_not_evidence(compare):
    """The ratio is above the factor, but its interval holds 1."""
    unclear = measured(compare, 9, loads=[(1.0, 4.0), (1.0, 4.0), (1.0, 4.0), (2.0, 1.0)])
    assert unclear.factor[0] > 1.5
    assert compare.verdict(unclear, 1.5) == "same"
    assert [compare.suspect(unclear, 1.5, measured) for measured in (1, 2, 3)] == [True, True, False]
    clear = measured(compare, 9, head=2.0)
    assert [compare.suspect(clear, 1.5, passes) for passes in (1, 2)] == [True, False]


def test_equal_commits_pass_and_doubled_ones_fail_under_heavy_noise(compare):
    """Rounds whose ratios have a factor of e^0.25 as standard deviation: of 200 each, none equal fails at 8 rounds.

    The median's own deviation is below 0.25 sqrt(pi / 2 / 8) = 0.111; log 1.5 is 3.7 of it, one in 8,000, and
    log 2 - log 1.5 is 2.6, one in 210: of 200, more than 6 with a probability of 2e-4.
    """
    draw = random.Random(10)

    def one(head):
        rounds = [(1.0, head * math.exp(draw.gauss(0.0, 0.25))) for _ in range(8)]
        base, other = (tuple(compare.Result(each, (each,)) for each in times) for times in zip(*rounds, strict=True))
        return compare.verdict(compare.Row("bench", "seconds", base, other), 1.5)

    assert sum(one(1.0) == "worse" for _ in range(200)) == 0
    assert sum(one(2.0) == "worse" for _ in range(200)) >= 194


@pytest.mark.parametrize(
    ("count", "outside"), [(1, 0), (2, 0), (4, 0), (5, 0), (7, 0), (8, 1), (11, 2), (12, 2), (20, 5)]
)
def test_the_interval_is_the_sign_tests(compare, count, outside):
    """The tabulated critical values of the sign test, two-sided 10 %."""
    ratios = [math.exp(math.sin(7.0 * index)) for index in range(count)]
    middle, low, high = compare.location(ratios)
    assert (low, high) == (sorted(ratios)[outside], sorted(ratios)[-1 - outside])
    inverse = compare.location([1.0 / ratio for ratio in ratios])
    assert inverse == pytest.approx((1.0 / middle, 1.0 / high, 1.0 / low))


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
        (["HEAD~1", "HEAD", "--rounds", "1"], "2 or more"),
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
def test_a_history_of_three_commits_is_published_as_three_points(clone):
    pytest.importorskip("asv", reason="asv is not installed: pip install kfpbench[dev]")
    for message in ("second", "third"):
        git(clone, "commit", "--quiet", "--allow-empty", "-m", message)
    asv = [sys.executable, "-m", "asv"]
    subprocess.run([*asv, "machine", "--yes"], cwd=clone, check=True)
    chosen = ["--quick", "--bench", r"kernel_rbf\.time_gram\(1000, 2\)"]
    subprocess.run([*asv, "run", "main~3..main", "--environment", "linked", *chosen], cwd=clone, check=True)
    subprocess.run([*asv, "publish"], cwd=clone, check=True)
    site = clone / ".asv" / "html"
    (graph,) = site.glob("graphs/*/branch-main/**/kernels.kernel_rbf.time_gram.json")
    points = json.loads(graph.read_text())
    assert len(points) == 3
    asked = [(place, values[0]) for place, values in points]  # the other parameters were not measured
    assert all(seconds > 0 for _, seconds in asked)
    shas = json.loads((site / "index.json").read_text())["revision_to_hash"]
    named = [shas[str(place)] for place, _ in asked]
    history = subprocess.run(
        ["git", "rev-list", "--reverse", "main~3..main"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert named == history.stdout.split()


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
