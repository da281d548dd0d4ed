"""One made-up run, with its report, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import made_up_run
import pytest

from kfpbench.report.html import write_report


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the made-up run, with its run folder around it."""
    folder = tmp_path_factory.mktemp("run")
    manifest, records = made_up_run.write_run(folder)
    return write_report(manifest, records, folder)
