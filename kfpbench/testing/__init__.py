"""Contract suites for plugins: every component of every kind, ours or not.

With pytest, one parametrised test runs every law on every component:

    @pytest.mark.parametrize("case", kfpbench.testing.cases("kernels", MyKernel), ids=lambda case: case.label)
    @pytest.mark.parametrize("check", kfpbench.testing.checks("kernels"), ids=lambda check: check.name)
    def test_contract(case, check):
        check(case.build())  # raises ContractError: what, got, allowed, remedy

Without it, ``report("kernels", MyKernel)`` returns the findings, and ``python -m kfpbench.testing kernels NAME`` (with
``--plugin FILE`` for a class in a file of your own) prints them.
"""

from __future__ import annotations

import importlib

from kfpbench.errors import PluginError
from kfpbench.protocols import KINDS
from kfpbench.testing.cases import Case, Keywords, cases, construct, construction, members_check
from kfpbench.testing.contract import Check, ContractError, Finding, NotApplicableError
from kfpbench.testing.shape import missing_members

__all__ = [
    "KINDS",
    "Case",
    "Check",
    "ContractError",
    "Finding",
    "NotApplicableError",
    "cases",
    "checks",
    "missing_members",
    "report",
]


def checks(kind: str) -> tuple[Check, ...]:
    """The checks of a kind; their ``law`` says what each asks for. Raises PluginError for a kind without a contract."""
    if kind not in KINDS:
        raise PluginError("no contract for this kind of component", got=kind, allowed=", ".join(KINDS))
    module = importlib.import_module(f"kfpbench.testing.{kind}")
    return (members_check(kind), *module.CONTRACT.checks)


def report(kind: str, component: object, examples: tuple[Keywords, ...] | None = None) -> list[Finding]:
    """All findings about a registered name, a class or an instance; see ``cases`` for how a class is built.

    A component that cannot be built, or lacks members of its protocol, gets that one finding: nothing else can be
    checked. Raises PluginError for a kind without a contract, UnknownComponentError for an unknown name.
    """
    laws = checks(kind)
    findings: list[Finding] = []
    for case in cases(kind, component, examples):
        fault = construction(case)
        if fault is not None:
            findings.append(fault)
            continue
        built = construct(case)
        for law in laws:
            found = law.run(built, case.label)
            findings.append(found)
            if law is laws[0] and not found.passed:
                break
    return findings
