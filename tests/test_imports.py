"""``import kfpbench`` and the light verbs must not import heavy packages: each takes a process of its own to see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_running_a_finished_suite_again_imports_nothing_heavy(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "name: done\ndata: {name: gmm2d, train: 40, validation: 20, test: 30}\nscore: gaussian\nprocess: ve\n"
        "samplers: [gaussian]\nmetrics: [energy_distance]\nn_samples: 20\nlatency_repeats: 1\n"
    )
    arguments = ["run", str(suite), "--out", str(tmp_path / "out")]
    python("-m", "kfpbench.cli", *arguments)
    program = f"from kfpbench.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit as end:\n"
    program += "    assert not end.code\nelse:\n    sys.exit('no exit')"
    assert heavy_after(program) == set()
    suite.write_text(suite.read_text() + "# edited\n")
    assert "torch" in heavy_after(program)  # it has to be planned again


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
