"""A kernel in one file, checked from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_kernel.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kfpbench.testing", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_example_kernel_passes():
    result = run("kernels", "--plugin", str(EXAMPLE))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failed" in result.stdout


def test_a_broken_copy_of_the_example_is_explained(tmp_path):
    source = EXAMPLE.read_text(encoding="utf-8")
    broken = source.replace("first = -rate * value / u", "first = rate * value / u").replace(
        "fitted = copy.copy(self)", "fitted = self"
    )
    assert broken != source
    (tmp_path / "kernel.py").write_text(broken, encoding="utf-8")
    result = run("kernels", "my_rational_quadratic", "--plugin", str(tmp_path / "kernel.py"), "--failures")
    assert result.returncode == 1
    assert "h' has the wrong sign" in result.stdout
    assert "fit returns the kernel itself" in result.stdout
    assert "fitted = copy.copy(self)" in result.stdout  # the remedy


def test_a_wrong_command_line_is_an_error(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    result = run("kernels", "--plugin", str(tmp_path / "empty.py"))
    assert result.returncode == 2
    assert "registers no kernels" in result.stdout
