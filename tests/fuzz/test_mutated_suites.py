"""Whatever happens to a suite file, it gives a plan, or an error that says where; never another exception or a hang."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import suite_mutator as mutator

from kfpbench.errors import KfpbenchError
from kfpbench.suite.load import load_suite

LIMIT_S = 20  # processor time of one suite, so that a busy machine is no hang; one that sleeps meets pytest's limit
FAST, SLOW, CHUNK = 150, 10_000, 1000
COMMANDS = 50


class TooLong(BaseException):
    """Not an Exception: nothing in between may take it for an error of its own."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(path: Path) -> tuple[str, str]:
    """'plan', 'refused', or what should not be, with its text."""
    try:
        with time_limit(LIMIT_S):
            suite = load_suite(path)
            if not suite.cells or len({cell.id for cell in suite.cells}) < len(suite.cells):
                return "no plan", f"{len(suite.cells)} cells"
            return "plan", ""
    except KfpbenchError as error:
        problems: Sequence[KfpbenchError] = getattr(error, "problems", None) or [error]
        lost = [str(one) for one in problems if not str(one.where).startswith(f"{path}:")]
        return ("without a place", "\n".join(lost)) if lost else ("refused", str(error))
    except TooLong:
        return "hang", traceback.format_exc(limit=-6)
    except BaseException:
        return "crash", traceback.format_exc(limit=-6)


def check(numbers: range, seeds: list[str], folder: Path) -> Counter[str]:
    """Load every mutated suite of these numbers; each is made from its number alone."""
    counts: Counter[str] = Counter()
    bad = []
    path = folder / "suite.yaml"
    for number in numbers:
        path.write_bytes(mutator.mutate(seeds, random.Random(number)))
        what, text = outcome(path)
        counts[what] += 1
        if what not in ("plan", "refused"):
            bad.append(f"mutation {number}: {what}\n{text[:2000]}")
    assert not bad, "\n\n".join(bad[:5])
    return counts


@pytest.fixture(scope="module", autouse=True)
def _imported(seeds: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every suite loads as it is; what they import is not counted against the limit of the first mutation."""
    path = tmp_path_factory.mktemp("seeds") / "suite.yaml"
    for text in seeds:
        if "plugins:" not in text:
            path.write_text(text, encoding="utf-8")
            assert load_suite(path).cells


@pytest.mark.skipif(not hasattr(signal, "SIGPROF"), reason="the time limit needs SIGPROF")
def test_a_hundred_and_fifty(seeds: list[str], tmp_path: Path) -> None:
    counts = check(range(FAST), seeds, tmp_path)
    assert counts["plan"] > FAST // 40  # the mutations reach beyond the parser
    assert counts["refused"] > FAST // 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not hasattr(signal, "SIGPROF"), reason="the time limit needs SIGPROF")
@pytest.mark.parametrize("start", range(0, SLOW, CHUNK))
def test_ten_thousand(start: int, seeds: list[str], tmp_path: Path) -> None:
    check(range(start, start + CHUNK), seeds, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(SLOW, SLOW + COMMANDS))
def test_the_command_line(number: int, seeds: list[str], tmp_path: Path) -> None:
    rng = random.Random(number)
    path = tmp_path / "suite.yaml"
    path.write_bytes(mutator.mutate(seeds, rng))
    verb = rng.choice((["validate"], ["validate", "--json"], ["run", "--dry-run"], ["run", "--dry-run", "--json"]))
    command = [sys.executable, "-P", "-m", "kfpbench.cli", *verb, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode:
        assert f"{path}:" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["suite.yaml"]  # nothing was run or written
