"""The `doctor` command: run the checks, show what they found, and choose the exit code."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from kfpbench.doctor.finding import Check, Finding, Scope, one_line, problem

_WIDTH = 118
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
_REPORT = "This is a fault of the check or of what it looked at: rerun with --json and report it."


def examine(checks: Iterable[Check], scope: Scope) -> Iterator[Finding]:
    """The findings of all checks. Never raises: a check that fails is itself a finding."""
    for check in checks:
        name = getattr(check, "__name__", "check").replace("_", " ")
        try:
            yield from check(scope)
        except (Exception, SystemExit) as error:  # a broken installation fails in any way; the other checks still tell
            yield problem(name, f"the check failed: {type(error).__name__}: {one_line(error)}", _REPORT)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without problems, 1 with; warnings do not count."""
    return int(any(finding.status == "problem" for finding in findings))


def as_json(findings: Sequence[Finding]) -> str:
    """All findings, and their number by status."""
    from kfpbench import __version__

    counts = {status: sum(one.status == status for one in findings) for status in _STYLES}
    listed = [
        {"check": one.check, "status": one.status, "found": one.found, "fix": one.fix or None} for one in findings
    ]
    document = {"kfpbench": __version__, "exit_code": exit_code(findings), "counts": counts, "findings": listed}
    return json.dumps(document, indent=2)


def as_lines(finding: Finding) -> list[str]:
    """A finding for a terminal or a log: what was found, wrapped, and the fix below it."""
    head = f"{finding.status:<8} {finding.check:<22} "
    lines = _wrapped(finding.found, head)
    return lines + _wrapped(finding.fix, " " * len(head) + "fix: ") if finding.fix else lines


def _wrapped(text: str, head: str) -> list[str]:
    """Lines that begin with ``head``, and below it with blanks; paths and commands stay whole."""
    below = " " * len(head)
    return textwrap.wrap(
        text, _WIDTH, initial_indent=head, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
    )


def diagnose(scope: Scope, *, json_wanted: bool) -> int:
    """Run all checks, print as they finish (or JSON at the end), and return the exit code."""
    from rich.console import Console
    from rich.text import Text

    from kfpbench.doctor.checks import CHECKS

    console = Console()
    findings = []
    for finding in examine(CHECKS, scope):
        findings.append(finding)
        if not json_wanted:
            for line in as_lines(finding):
                text = Text(line)
                if line.startswith(finding.status):
                    text.stylize(_STYLES[finding.status], 0, len(finding.status))
                console.print(text, soft_wrap=True)
    if json_wanted:
        print(as_json(findings))
    else:
        counts = {status: sum(one.status == status for one in findings) for status in ("problem", "warning")}
        console.print(f"{counts['problem']} problem(s), {counts['warning']} warning(s)", highlight=False)
    return exit_code(findings)
