"""A run that is killed at any moment loses nothing and counts nothing twice."""

from __future__ import annotations

import random
from typing import Any

import pytest


def test_a_run_killed_at_five_moments_ends_as_an_undisturbed_one(tmp_path: Any, cheap: Any, same: Any) -> None:
    bench = cheap(tmp_path, 60)
    bench.run(tmp_path / "whole")
    assert bench.killed_until_done(tmp_path / "killed", 5, random.Random(7), 0.15) == 5
    same(tmp_path / "whole", tmp_path / "killed", 60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_at_fifty_moments_ends_as_an_undisturbed_one(
    tmp_path: Any, cheap: Any, same: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # cells that take longer than it takes to see their record: a kill after a record then costs one of them, seldom two
    data = {"name": "gmm2d", "train": 200, "validation": 50, "test": 1500}
    bench = cheap(tmp_path, 60, data=data, n_samples=1500, batch_size=1500)
    bench.run(tmp_path / "whole")
    # about half of the kills come before the first new record of a process; the cells may run out before the last ones
    killed = bench.killed_until_done(tmp_path / "killed", 50, random.Random(11), 0.015)
    with capsys.disabled():
        print(f"\nkilled {killed} of 50 times before the end")
    assert killed >= 40
    same(tmp_path / "whole", tmp_path / "killed", 60)
