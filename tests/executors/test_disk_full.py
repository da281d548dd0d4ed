"""A full disk is said to be full, and the folder can be continued."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from kfpbench.errors import DiskFullError
from kfpbench.runner.execute import run


def test_a_disk_that_fills_up_stops_the_run_and_keeps_its_cells(tmp_path: Path, cheap: Any, same: Any) -> None:
    bench = cheap(tmp_path, 8)
    run(bench.suite, out=tmp_path / "whole")
    size = (tmp_path / "whole" / "cells.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # the kernel writes a part of the line that goes beyond the limit, as a full disk does
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        with pytest.raises(DiskFullError, match=r"Free (some )?disk space"):
            run(bench.suite, out=tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = (tmp_path / "run" / "cells.jsonl").read_bytes()
    assert kept.endswith(b"\n")
    assert 0 < kept.count(b"\n") < 8
    run(bench.suite, out=tmp_path / "run")
    assert (tmp_path / "run" / "cells.jsonl").read_bytes().startswith(kept)
    same(tmp_path / "whole", tmp_path / "run", 8)
