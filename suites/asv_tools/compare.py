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

# Differences below these are rounding: a few pages, and errors that no one can tell from zero.
LEAST = {"bytes": 8 * 2**20, "seconds": 0.0}
LEAST_OTHER = 1e-6
CONFIDENCE = 0.9  # of the interval of a ratio, where there are rounds enough (5) for it
MOST_PASSES = 3  # measurements of a suspect, each of all rounds


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
    """One benchmark with its parameters: what both commits got in each round, ``base`` and ``head`` of one length."""

    name: str
    unit: str
    base: tuple[Result, ...]
    head: tuple[Result, ...]

    @property
    def ratios(self) -> list[float]:
        """Of each round in which both commits have a number: the shortest times, or the values, head to base.

        The shortest, since load from elsewhere makes times longer and never shorter; inf where something came from
        nothing.
        """
        rounds = zip(self.base, self.head, strict=True)
        both = [(_least(base), _least(head)) for base, head in rounds if base.known and head.known]
        return [head / base if base > 0.0 else (1.0 if head <= 0.0 else math.inf) for base, head in both]

    @property
    def values(self) -> tuple[Result, Result]:
        """Each commit's median over the rounds, or how it got none."""
        return _median(self.base), _median(self.head)

    @property
    def factor(self) -> tuple[float, float, float]:
        """The ratio and its interval: ``location`` of the rounds' ratios."""
        return location(self.ratios)


def _least(result: Result) -> float:
    assert result.value is not None
    return min(result.samples, default=result.value)


def _median(results: Sequence[Result]) -> Result:
    known = [result.value for result in results if result.value is not None and not math.isnan(result.value)]
    if known:
        return Result(statistics.median(known))
    return Result(None) if any(result.value is None for result in results) else Result(math.nan)


def location(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median ratio of the rounds, with its distribution-free interval of at least ``CONFIDENCE``.

    The interval is between two order statistics, found by the sign test: of 8 rounds from the second to the seventh
    ratio (93 %), of 12 from the third to the tenth (96 %), so that one or two rounds that met load do not matter. Fewer
    than 5 rounds cannot reach the confidence: from the least to the greatest (4 rounds: 87.5 %). NaN without rounds.
    Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods (3rd edition), section 3.6.
    """
    if not ratios:
        return math.nan, math.nan, math.nan
    ordered, count = sorted(ratios), len(ratios)
    outside, tail = 0, 1.0  # rounds left out at each end; the number of ways in which so few signs differ from the rest
    while 2.0 * (tail + math.comb(count, outside + 1)) <= (1.0 - CONFIDENCE) * 2**count:
        outside += 1
        tail += math.comb(count, outside)
    return _middle(ordered), ordered[outside], ordered[-1 - outside]


def _middle(ordered: Sequence[float]) -> float:
    """The median; of two in the middle, their geometric mean, so that exchanging the commits inverts it."""
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else math.sqrt(low * high)


def verdict(row: Row, factor: float) -> str:
    """One of worse, better, same, broken (runs on base alone), new (on head alone), failed, skipped (on both).

    Worse: by the ratio over the rounds above the factor, by its interval above 1, and by more than rounding.
    """
    base, head = row.values
    if base.known and not head.known:
        return "broken"
    if head.known and not base.known:
        return "new"
    if not head.known:
        return "failed" if head.value is None else "skipped"
    assert base.value is not None
    assert head.value is not None
    if abs(head.value - base.value) <= LEAST.get(row.unit, LEAST_OTHER):
        return "same"
    ratio, low, high = row.factor
    if ratio > factor and low > 1.0:
        return "worse"
    return "better" if ratio < 1.0 / factor and high < 1.0 else "same"


def suspect(row: Row, factor: float, measured: int) -> bool:
    """Whether it is to be measured again, after ``measured`` passes of all rounds.

    After the first: when the ratio is above the factor's square root, since few rounds may hide half of a change. After
    more of them: when it is above the factor and its interval still holds 1.
    """
    base, head = row.values
    if not (base.known and head.known) or measured >= MOST_PASSES:
        return False
    ratio, low, _ = row.factor
    return ratio > math.sqrt(factor) if measured == 1 else ratio > factor and low <= 1.0


def pooled(first: Row, second: Row) -> Row:
    """All rounds of both measurements of one benchmark."""
    return Row(first.name, first.unit, first.base + second.base, first.head + second.head)


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


def measure(base: str, head: str, bench: Sequence[str], environment: str, rounds: int) -> list[Row]:
    """Run benchmarks on both commits ``rounds`` times by turns, their order reversed each time.

    asv stores a commit's results anew in each round, and they are read after it. asv exits with 2 where a benchmark
    failed, which is looked at afterwards; anything else is the end. asv looks for benchmarks in the first commit of a
    round: those found on HEAD are compared.
    """
    rows: dict[str, Row] = {}
    for turn in range(rounds):
        print(f"\nRound {turn + 1} of {rounds}", flush=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join([base, head] if turn % 2 else [head, base]))
            file.flush()
            command = [sys.executable, "-m", "asv", "run", f"HASHFILE:{file.name}", "--environment", environment]
            command += ["--record-samples", "--no-pull"]
            command += [word for pattern in bench for word in ("--bench", pattern)]
            if subprocess.run(command).returncode not in (0, 2):
                refuse("asv could not run the benchmarks")
        for row in read_rows(base, head, bench, environment):
            if not turn:
                rows[row.name] = row
            elif row.name in rows:
                rows[row.name] = pooled(rows[row.name], row)
    return list(rows.values())


def read_rows(base: str, head: str, bench: Sequence[str], environment: str) -> list[Row]:
    """The stored results of both commits on this machine, as of one round, for benchmarks that the patterns choose."""
    conf = Config.load()
    benchmarks = Benchmarks.load(conf, regex=list(bench))
    machine = Machine.load(interactive=False).machine
    found = [dict(_stored(conf, benchmarks, machine, each, environment)) for each in (base, head)]
    units = {name: str(benchmark["unit"]) for name, benchmark in benchmarks.items()}
    missing = Result(None)
    return [
        Row(name, units[name.partition("(")[0]], (found[0].get(name, missing),), (found[1].get(name, missing),))
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
    """One line for each row: verdict, base, head, ratio with its interval, rounds, name."""
    lines = []
    for word, row in rows:
        values = [_shown(result, row.unit) for result in row.values]
        ratio, low, high = row.factor
        shown = "" if math.isnan(ratio) else f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"{word:8} {values[0]:>12} {values[1]:>12} {shown:>20} {len(row.ratios):>6}  {row.name}")
    return "\n".join([f"{'':8} {'base':>12} {'head':>12} {'ratio':>20} {'rounds':>6}", *lines])


def _shown(result: Result, unit: str) -> str:
    if result.value is None:
        return "failed"
    if math.isnan(result.value):
        return "skipped"
    if unit == "seconds":
        return f"{1e3 * result.value:.3g} ms"
    return f"{result.value / 2**20:.1f} MiB" if unit == "bytes" else f"{result.value:.3g}"


def main(words: Sequence[str] | None = None) -> int:
    """Measure, look, measure the suspects again, and say which are worse by all their rounds together."""
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
    if given.rounds < 2:
        refuse(f"the rounds must be 2 or more; got {given.rounds}")
    if not Path("asv.conf.json").is_file():
        refuse("run it where asv.conf.json is")
    base, head = commit(given.base), commit(given.head)
    if base == head:
        refuse(f"{given.base} and {given.head} are the same commit, {head[:8]}: there is nothing to compare")
    subprocess.run([sys.executable, "-m", "asv", "machine", "--yes"], check=True)
    bench = given.bench or ["."]
    rows = measure(base, head, bench, given.environment, given.rounds)
    if not rows:
        refuse("no benchmark has that name")
    for measured in itertools.count(1):
        suspects = [row.name for row in rows if suspect(row, given.factor, measured)]
        if not suspects:
            break
        print(f"\n{len(suspects)} may be worse; these are measured again:", flush=True)
        exact = [f"^{re.escape(name)}$" for name in suspects]
        again = {row.name: row for row in measure(base, head, exact, given.environment, given.rounds)}
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
