"""Metrics are tiled: 50,000 samples against 50,000 rows in 64 dimensions fit into 4 GiB.

Each metric runs in a process of its own, whose peak resident memory is read: it counts NumPy's, SciPy's and torch's
alike. The line through two sizes is followed to 50,000 rows; one n x n array of doubles would be 288 MB at the larger
size already and 20 GB at 50,000.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SIZES = (3000, 6000)
LIMIT = 4 * 2**30
TILED = [
    "energy_distance",
    "sliced_wasserstein",
    "frechet",
    "frechet_infinity",
    "kid",
    "precision_recall",
    "density_coverage",
    "nearest_train",
    "data_copying",
    "authenticity",
    "vendi",
    "pairwise_diversity",
]
MEASURE = """
import sys
from pathlib import Path
import numpy as np
from kfpbench.data.dataset import Dataset
from kfpbench.protocols import MetricInput
from kfpbench.registry import find

def peak(n):
    rng = np.random.default_rng(n)
    x, y, train, other = (rng.standard_normal((n, 64)).astype(np.float32) for _ in range(4))
    metric = find("metrics", sys.argv[1]).load()()
    measured = metric.evaluate(MetricInput(x, y, train, Dataset("toy", train, other, y), "test", 0))
    assert measured
    # not ru_maxrss, which a process inherits from the one that started it
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

before = peak(300)
print(peak(int(sys.argv[2])) - before)
"""


def increase(metric: str, n: int) -> int:
    """Peak memory in bytes of a metric at n rows over that at 300, libraries and all."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, metric, str(n)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak resident memory is read from Linux's /proc")
@pytest.mark.parametrize("metric", TILED)
def test_fifty_thousand_rows_in_64_dimensions_fit_in_4_gib(metric, capsys):
    small, large = (increase(metric, n) for n in SIZES)
    slope = max(large - small, 0) / (SIZES[1] - SIZES[0])
    expected = max(small, large) + (50_000 - SIZES[1]) * slope
    with capsys.disabled():
        print(f"\n{metric}: {large / 2**20:.0f} MiB at {SIZES[1]} rows, {expected / 2**30:.2f} GiB expected at 50,000")
    assert large > 6000 * 64 * 4  # the meter sees at least the rows themselves
    assert expected < LIMIT
