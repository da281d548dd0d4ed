"""``import kfpbench`` and the light verbs must not import heavy packages: each takes a process of its own to see."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "pykeops", "plotly", "pandas", "sklearn", "scipy", "gpytorch", "pyarrow")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=True)


def heavy_after(program: str) -> set[str]:
    """The heavy packages that a program has imported when it ends."""
    done = python("-c", f"import sys\n{program}\nprint('\\nmodules:', *sys.modules)")
    modules = done.stdout.rpartition("modules:")[2].split()
    assert "kfpbench" in modules
    return {module.partition(".")[0] for module in modules} & set(HEAVY)


def test_the_probe_sees_heavy_imports() -> None:
    assert heavy_after("import kfpbench, pandas") >= {"pandas"}


def test_importing_the_package_is_light() -> None:
    done = python("-X", "importtime", "-c", "import kfpbench")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "kfpbench" in imported
    assert not imported & {*HEAVY, "numpy", "typer", "pydantic"}


@pytest.mark.parametrize("arguments", [["--help"], ["ls"], ["run", "--help"], ["train", "--help"]])
def test_light_verbs_import_nothing_heavy(arguments: list[str]) -> None:
    program = f"from kfpbench.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit as end:\n"
    assert heavy_after(program + "    assert not end.code\nelse:\n    sys.exit('no exit')") == set()


def test_what_every_run_begins_with_is_light() -> None:
    """Progress and options are imported before the suite is read: scipy.stats alone would double that time."""
    assert "scipy" not in heavy_after("import kfpbench.runner.progress")
    assert "scipy.stats" not in python("-c", "import sys, kfpbench.runner.command; print(*sys.modules)").stdout.split()


def test_loading_a_table_needs_no_torch() -> None:
    assert "torch" not in heavy_after("import kfpbench\nkfpbench.load_run")


def test_the_public_names_are_there() -> None:
    import kfpbench

    for name in kfpbench.__all__:
        assert getattr(kfpbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = kfpbench.no_such_name
