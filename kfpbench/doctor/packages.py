"""The packages that kfpbench declares: those it needs, and those of its extras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from kfpbench.doctor.finding import Finding, Scope, ok, problem, warning

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_DEVELOPMENT = "dev"  # an extra of tools, which no user needs


def packages(scope: Scope) -> Iterator[Finding]:
    """Versions against the declared bounds: needed packages in one finding, then one finding an extra."""
    declared = metadata.requires("kfpbench") or []
    yield from judge(declared, installed_version)


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def judge(declared: Iterable[str], version_of: Callable[[str], str | None]) -> Iterator[Finding]:
    """Findings for requirements as package metadata writes them: ``torch>=2.6``, ``x>=1; extra == "y"``."""
    needed, extras = _parse(declared)
    faults = _faults(needed, version_of)
    if faults:
        fix = "python -m pip install " + " ".join(f"'{requirement}'" for requirement, _ in faults)
        yield problem("packages", "; ".join(text for _, text in faults), fix)
    else:
        yield ok("packages", f"all {len(needed)} needed packages are there, in versions that are supported")
    for extra, requirements in sorted(extras.items()):
        if extra == _DEVELOPMENT:
            continue
        name = f"extra {extra}"
        faults = _faults(requirements, version_of)
        install = f"python -m pip install 'kfpbench[{extra}]'"
        if all(version_of(requirement.name) is None for requirement in requirements):
            yield ok(name, f"not installed; who wants its components: {install}")
        elif faults:
            yield warning(name, "; ".join(text for _, text in faults), install)
        else:
            found = ", ".join(f"{requirement.name} {version_of(requirement.name)}" for requirement in requirements)
            yield ok(name, found)


def _parse(declared: Iterable[str]) -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Requirements without a marker of an extra, and those of each extra, where they apply to this machine."""
    from packaging.requirements import Requirement

    needed: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {}
    for text in declared:
        requirement = Requirement(text)
        extra = _extra(requirement)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue  # for another platform or Python
        requirement.marker = None
        if not extra:
            needed.append(requirement)
        elif requirement.name != "kfpbench":  # an extra may stand for other extras of the same package
            extras.setdefault(extra, []).append(requirement)
    return needed, extras


def _extra(requirement: Requirement) -> str:
    """The extra that a requirement belongs to, "" for none."""
    _, found, after = str(requirement.marker or "").partition("extra == ")
    return after.split()[0].strip("\"')") if found else ""


def _faults(
    requirements: Iterable[Requirement], version_of: Callable[[str], str | None]
) -> list[tuple[Requirement, str]]:
    faults = []
    for requirement in requirements:
        version = version_of(requirement.name)
        if version is None:
            faults.append((requirement, f"{requirement.name} is not installed"))
        elif not requirement.specifier.contains(version, prereleases=True):
            faults.append((requirement, f"{requirement.name} {version} is installed, {requirement} is supported"))
    return faults
