"""An asv environment that builds kfpbench from a commit and takes every other package from the environment asv runs in.

asv's `virtualenv` installs all requirements anew, which takes gigabytes and minutes; its `existing` environment imports
what is installed, whichever commit is asked for. This one, `--environment linked`, is a virtual environment whose
site-packages holds links to the packages beside asv, but not to kfpbench, which is installed from each commit. So any
commits can be run and compared in seconds, plugins that are installed here are benchmarked, and the environment that
asv runs in is only read. It needs symbolic links: Linux or macOS.

asv imports it by the line `plugins` of asv.conf.json.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

from asv.console import log
from asv.environment import Environment, EnvironmentUnavailable

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Linked(Environment):
    """One directory below asv's ``env_dir``; the links are made anew at every start, so that new packages are seen."""

    tool_name = "linked"

    def __init__(self, conf: Any, python: str, requirements: Any, tagged_env_vars: Any) -> None:
        if python not in (RUNNING, "same"):
            raise EnvironmentUnavailable(f"linked: asv runs in Python {RUNNING}, not in {python}")
        self._requirements = requirements  # its name, which the base class asks for, is made of it
        super().__init__(conf, RUNNING, requirements, tagged_env_vars)
        self._build_command = ["python -m pip wheel --quiet --no-deps -w {build_cache_dir} {build_dir}"]
        self._install_command = ["in-dir={env_dir} python -m pip install --quiet --no-deps --no-index {wheel_file}"]

    @classmethod
    def matches(cls, python: str) -> bool:
        """Never chosen by asv itself."""
        return False

    def check_presence(self) -> bool:
        """Whether it is there already; it has no `pip` command, which asv looks for."""
        return (Path(self._path) / "asv-env-info.json").is_file() and (Path(self._path) / "bin" / "python").exists()

    def create(self) -> None:
        """Make it where it is not there, and link the packages."""
        if not self._is_setup:
            super().create()
            link_packages(self._site_packages(), self._project)

    def _setup(self) -> None:
        log.info(f"Creating {self.name}")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self._path], check=True)

    def _site_packages(self) -> Path:
        return Path(sysconfig.get_path("purelib", vars={"base": self._path, "platbase": self._path}))

    def run(self, args: list[str], **kwargs: Any) -> Any:
        """Run its Python."""
        return self.run_executable("python", args, **kwargs)


def link_packages(target: Path, project: str) -> None:
    """Link every entry of the running interpreter's site-packages into ``target`` but those of ``project``.

    Links of an earlier start are removed; what was installed there, the project, stays.
    """
    for entry in target.iterdir():
        if entry.is_symlink():
            entry.unlink()
    for source in dict.fromkeys(Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")):
        own = entries_of(project, source)
        for entry in source.iterdir():
            link = target / entry.name
            if entry.name not in own and entry.name != "__pycache__" and not link.exists():
                link.symlink_to(entry)


def entries_of(project: str, folder: Path) -> set[str]:
    """The first parts of the paths that a distribution installed into ``folder``: its packages, records and hooks."""
    found = set()
    for distribution in metadata.distributions(name=project, path=[str(folder)]):
        for file in distribution.files or ():
            if file.parts[0] not in ("..", "__pycache__"):
                found.add(file.parts[0])
    return found
