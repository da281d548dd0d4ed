"""Run the asv benchmarks on two commits, by turns, and fail where the second is worse than the first by a factor.

    python suites/asv_tools/compare.py BASE HEAD --factor 1.5 --bench kernels

The benchmarks are those of the working tree, the code under them that of each commit, built into asv's environment.
Exit codes: 0 nothing worse, 1 something worse, 2 the comparison could not be made. See docs/asv.md for what counts.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.machine import Machine
from asv.results import iter_results_for_machine_and_hash
from scipy.stats import mannwhitneyu

SIGNIFICANT = 0.002  # of the Mann-Whitney test, as in asv's own comparison
# Differences below these are rounding: a few pages, and errors that no one can tell from zero.
LEAST = {"bytes": 8 * 2**20, "seconds": 0.0}
LEAST_OTHER = 1e-6


@dataclass(frozen=True)
class Result:
    """What one commit got in one benchmark. ``value`` None: it failed; NaN: it was skipped. ``samples``: seconds."""

    value: float | None
    samples: tuple[float, ...] = ()

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return self.value is not None and not math.isnan(self.value)


@dataclass(frozen=True)
class Row:
    """One benchmark with its parameters, on both commits."""

    name: str
    unit: str
    base: Result
    head: Result

    @property
    def ratio(self) -> float:
        """Of the values, head to base; NaN where one is missing, inf where something came from nothing."""
        if not (self.base.known and self.head.known):
            return math.nan
        base, head = float(self.base.value or 0.0), float(self.head.value or 0.0)
        if base <= 0.0:
            return 1.0 if head <= 0.0 else math.inf
        return head / base


def verdict(row: Row, factor: float) -> str:
    """One of worse, better, same, broken (runs on base alone), new (on head alone), failed, skipped (on both).

    Worse: above the factor, and by more than rounding. Times besides: the shortest of each commit's times too, since
    load from elsewhere makes times longer and never shorter, and significant by the Mann-Whitney test.
    """
    base, head = row.base, row.head
    if base.known and not head.known:
        return "broken"
    if head.known and not base.known:
        return "new"
    if not head.known:
        return "failed" if head.value is None else "skipped"
    if _worse(base, head, row.unit, factor):
        return "worse"
    return "better" if _worse(head, base, row.unit, factor) else "same"


def _worse(base: Result, head: Result, unit: str, factor: float) -> bool:
    assert base.value is not None
    assert head.value is not None
    if head.value <= factor * base.value or head.value - base.value <= LEAST.get(unit, LEAST_OTHER):
        return False
    if not (base.samples and head.samples):
        return True
    if min(head.samples) <= factor * min(base.samples):
        return False
    return bool(mannwhitneyu(head.samples, base.samples, alternative="greater").pvalue < SIGNIFICANT)


def pooled(first: Row, second: Row) -> Row:
    """Both measurements of one benchmark as one: all times, and their median; what has no times, as measured last."""

    def together(one: Result, other: Result) -> Result:
        samples = one.samples + other.samples
        return Result(statistics.median(samples), samples) if one.samples and other.samples else other

    return Row(first.name, first.unit, together(first.base, second.base), together(first.head, second.head))


# ---- running


def commit(name: str) -> str:
    """The full hash of a commit. Raises SystemExit with code 2 for one that git does not know."""
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], capture_output=True, text=True
    )
    if found.returncode:
        refuse(f"git knows no commit {name!r}; give BASE=... and HEAD=...")
    return found.stdout.strip()


def refuse(why: str) -> None:
    """Say why there is no comparison, and leave."""
    print(f"asv-compare: {why}", file=sys.stderr)
    raise SystemExit(2)


def measure(commits: Sequence[str], bench: Sequence[str], environment: str, rounds: int) -> None:
    """Run benchmarks on commits, ``rounds`` times by turns, their order reversed each time; asv stores the results.

    asv exits with 2 where a benchmark failed, which is looked at afterwards; anything else is the end.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(commits))
        file.flush()
        command = [sys.executable, "-m", "asv", "run", f"HASHFILE:{file.name}", "--environment", environment]
        command += ["--interleave-rounds", "--record-samples", "--attribute", f"rounds={rounds}", "--no-pull"]
        command += [word for pattern in bench for word in ("--bench", pattern)]
        if subprocess.run(command).returncode not in (0, 2):
            refuse("asv could not run the benchmarks")


def read_rows(base: str, head: str, bench: Sequence[str], environment: str) -> list[Row]:
    """The stored results of both commits on this machine, for the benchmarks that the patterns choose."""
    conf = Config.load()
    benchmarks = Benchmarks.load(conf, regex=list(bench))
    machine = Machine.load(interactive=False).machine
    found = [dict(_stored(conf, benchmarks, machine, each, environment)) for each in (base, head)]
    units = {name: str(benchmark["unit"]) for name, benchmark in benchmarks.items()}
    missing = Result(None)
    return [
        Row(name, units[name.partition("(")[0]], found[0].get(name, missing), found[1].get(name, missing))
        for name in sorted(found[0].keys() | found[1].keys())
    ]


def _stored(
    conf: Config, benchmarks: Benchmarks, machine: str, commit_hash: str, environment: str
) -> Iterator[tuple[str, Result]]:
    for stored in iter_results_for_machine_and_hash(conf.results_dir, machine, commit_hash):
        if not stored.env_name.startswith(environment.partition(":")[0]):
            continue
        for name in stored.get_result_keys(benchmarks):
            params = benchmarks[name]["params"]
            values = stored.get_result_value(name, params)
            samples = stored.get_result_samples(name, params)
            chosen = benchmarks.benchmark_selection[name]
            for index, words in enumerate(itertools.product(*params)):
                if chosen is None or index in chosen:
                    label = f"{name}({', '.join(words)})" if words else name
                    yield label, Result(values[index], tuple(samples[index] or ()))


# ---- the command


def table(rows: Sequence[tuple[str, Row]]) -> str:
    """One line for each row: verdict, base, head, ratio, name."""
    lines = []
    for word, row in rows:
        values = [_shown(result, row.unit) for result in (row.base, row.head)]
        ratio = "" if math.isnan(row.ratio) else f"{row.ratio:.2f}"
        lines.append(f"{word:8} {values[0]:>12} {values[1]:>12} {ratio:>7}  {row.name}")
    return "\n".join([f"{'':8} {'base':>12} {'head':>12} {'ratio':>7}", *lines])


def _shown(result: Result, unit: str) -> str:
    if result.value is None:
        return "failed"
    if math.isnan(result.value):
        return "skipped"
    if unit == "seconds":
        return f"{1e3 * result.value:.3g} ms"
    return f"{result.value / 2**20:.1f} MiB" if unit == "bytes" else f"{result.value:.3g}"


def main(words: Sequence[str] | None = None) -> int:
    """Measure, look, measure the suspects again, and say which are worse by all their times together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base")
    parser.add_argument("head")
    parser.add_argument("--factor", type=float, default=1.5)
    parser.add_argument("--bench", action="append", help="regular expression; may be given more than once")
    parser.add_argument("--environment", default="linked")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args(words)
    if not given.factor > 1.0:
        refuse(f"the factor must be above 1; got {given.factor:g}")
    if not Path("asv.conf.json").is_file():
        refuse("run it where asv.conf.json is")
    base, head = commit(given.base), commit(given.head)
    if base == head:
        refuse(f"{given.base} and {given.head} are the same commit, {head[:8]}: there is nothing to compare")
    subprocess.run([sys.executable, "-m", "asv", "machine", "--yes"], check=True)
    bench = given.bench or ["."]
    measure([head, base], bench, given.environment, given.rounds)  # asv looks for benchmarks in the first
    rows = read_rows(base, head, bench, given.environment)
    if not rows:
        refuse("no benchmark has that name")
    judged = [(verdict(row, given.factor), row) for row in rows]
    suspects = [row.name for word, row in judged if word == "worse"]
    if suspects:
        print(f"\n{len(suspects)} look worse; these are measured again:", flush=True)
        exact = [f"^{re.escape(name)}$" for name in suspects]
        measure([head, base], exact, given.environment, given.rounds)
        again = {row.name: row for row in read_rows(base, head, exact, given.environment)}
        rows = [pooled(row, again[row.name]) if row.name in again else row for row in rows]
        judged = [(verdict(row, given.factor), row) for row in rows]
    bad = [pair for pair in judged if pair[0] in ("worse", "broken")]
    counts = {word: sum(pair[0] == word for pair in judged) for word in dict.fromkeys(pair[0] for pair in judged)}
    print("\n" + table(judged))
    print(f"\n{base[:8]} -> {head[:8]}: {', '.join(f'{count} {word}' for word, count in counts.items())}")
    if bad:
        print(f"\nWorse than {given.factor:g} times {given.base}:\n{table(bad)}")
        return 1
    print(f"Nothing is worse than {given.factor:g} times {given.base}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
