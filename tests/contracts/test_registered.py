"""Every registered plugin keeps the contract of its kind."""

from __future__ import annotations

from typing import Any

import pytest

from kfpbench import testing
from kfpbench.registry import available

SLOW = {  # by name: every check takes compilations of 10 s, or the whole suite half a minute
    ("backends", "keops"),
    ("eigensolvers", "krylov"),
}


def parameters() -> list[Any]:
    """One test for every case of every registered component, and every check of its kind."""
    found = []
    for kind in testing.KINDS:
        for name in available(kind):
            for case in testing.cases(kind, name):
                marks = [pytest.mark.slow] if (kind, name) in SLOW else []
                for check in testing.checks(kind):
                    found.append(pytest.param(case, check, id=f"{kind}-{case.label}-{check.name}", marks=marks))
    return found


_BUILT: dict[str, Any] = {}


@pytest.mark.parametrize(("case", "check"), parameters())
def test_every_registered_component_keeps_its_contract(case, check):
    key = f"{case.kind} {case.label}"
    if key not in _BUILT:  # one instance for all checks: what several of them look at is computed once
        _BUILT.clear()
        _BUILT[key] = testing.construct(case)
    finding = check.run(_BUILT[key], case.label)
    if finding.outcome == "skipped":
        pytest.skip(finding.what)
    assert finding.passed, str(finding)
