"""A run that is killed at any moment loses nothing and counts nothing twice."""

from __future__ import annotations

import random
from typing import Any

import pytest


def test_a_run_killed_at_five_moments_ends_as_an_undisturbed_one(tmp_path: Any, cheap: Any, same: Any) -> None:
    bench = cheap(tmp_path, 60)
    bench.run(tmp_path / "whole")
    moment = random.Random(7)
    killed = bench.killed_until_done(tmp_path / "killed", 5, lambda: moment.uniform(0, 0.3))
    assert killed >= 3  # a fast machine may end before the last ones
    same(tmp_path / "whole", tmp_path / "killed", 60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_at_fifty_moments_ends_as_an_undisturbed_one(tmp_path: Any, cheap: Any, same: Any) -> None:
    bench = cheap(tmp_path, 60)
    bench.run(tmp_path / "whole")
    moment = random.Random(11)
    # some kills come before the first record of a process, and up to some three records after it
    killed = bench.killed_until_done(tmp_path / "killed", 50, lambda: moment.uniform(0, 0.03))
    assert killed >= 20
    same(tmp_path / "whole", tmp_path / "killed", 60)
