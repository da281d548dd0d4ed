"""What a contract finds wrong with a component, for the tests that plant defects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kfpbench.testing import Finding, report


@pytest.fixture
def failures() -> Callable[[str, object], dict[str, Finding]]:
    """The failed checks of a component, by name."""

    def of(kind: str, component: object) -> dict[str, Finding]:
        return {finding.check: finding for finding in report(kind, component) if finding.outcome == "failed"}

    return of
