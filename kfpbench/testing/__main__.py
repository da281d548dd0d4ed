"""``python -m kfpbench.testing KIND [NAME ...] [--plugin FILE]``: check components against the contract of their kind.

Without names, all that the plugin file registers are checked, or all registered components when no file is given.
Executes the plugin file. Exits with status 1 when a check failed, 2 for a bad command line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kfpbench.errors import KfpbenchError
from kfpbench.registry import available, load_plugin_file
from kfpbench.testing import KINDS, Finding, report


def main(arguments: list[str] | None = None) -> int:
    """Print the findings as a table, failures in full below it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kfpbench.testing", description="Check components by contract.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="registered components; default: all")
    parser.add_argument("--plugin", type=Path, metavar="FILE", help="a local plugin file, which is executed")
    parser.add_argument("--failures", action="store_true", help="leave out checks that passed")
    given = parser.parse_args(arguments)
    console = Console()
    try:
        findings = _findings(given.kind, given.names, given.plugin)
    except KfpbenchError as error:
        console.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True, highlight=False)
        return 2
    failed = [finding for finding in findings if finding.outcome == "failed"]
    table = Table(title=f"contract of {given.kind}")
    for column in ("component", "check", "outcome", "reason"):
        table.add_column(column, overflow="fold", no_wrap=column in ("check", "outcome"))
    for finding in findings:
        if not (given.failures and finding.passed):
            style = {"passed": "green", "failed": "red", "skipped": "yellow"}[finding.outcome]
            cells = (finding.component, finding.check, f"[{style}]{finding.outcome}[/{style}]", escape(finding.what))
            table.add_row(*cells)
    console.print(table)
    for finding in failed:
        console.print(escape(str(finding)), style="red", soft_wrap=True, highlight=False)
    skipped = sum(finding.outcome == "skipped" for finding in findings)
    passed = len(findings) - len(failed) - skipped
    console.print(f"{passed} passed, {len(failed)} failed, {skipped} skipped")
    return 1 if failed else 0


def _findings(kind: str, names: list[str], plugin: Path | None) -> list[Finding]:
    if plugin is not None:
        load_plugin_file(plugin)
        origin = str(plugin.resolve())
        names = names or [name for name, entry in available(kind).items() if entry.origin == origin]
        if not names:
            raise KfpbenchError(
                f"the plugin file registers no {kind}",
                got=str(plugin),
                remedy=f'Decorate the class with @kfpbench.register("{kind}", "name").',
            )
    return [finding for name in names or available(kind) for finding in report(kind, name)]


if __name__ == "__main__":
    sys.exit(main())
