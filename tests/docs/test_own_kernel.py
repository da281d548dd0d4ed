"""A newcomer's path: a copy of the example becomes another kernel, is checked, run, and tuned in a study."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

import kfpbench

EXAMPLES = Path(__file__).parents[2] / "examples"
NAME = "damped_rational"
# h(s) = exp(-r s) / u with u = 1 + a r s, a product of two positive definite kernels
VALUE = (
    ("u = 1.0 + squared_distance * (rate / self.a)", "u = 1.0 + squared_distance * (rate * self.a)"),
    ("value = u**-self.a", "value = (-rate * squared_distance).exp() / u"),
)
DERIVATIVES = (
    ("first = -rate * value / u", "first = -rate * value * (1.0 + self.a / u)"),
    (
        "second = rate**2 * (self.a + 1.0) / self.a * value / u**2",
        "second = rate**2 * value * ((1.0 + self.a / u) ** 2 + (self.a / u) ** 2)",
    ),
)


class Newcomer:
    """Runs commands in one folder and keeps the seconds of each step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}

    def does(self, step: str, *command: str, code: int = 0) -> str:
        """What the command prints, after its exit code was looked at."""
        begun = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.seconds[step] = time.perf_counter() - begun
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def edits(self, name: str, *changes: tuple[str, str]) -> None:
        """Replace these texts in a file, each of which must be there."""
        text = (self.folder / name).read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.folder / name).write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_a_kernel_of_ones_own_from_a_copy_to_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newcomer = Newcomer(tmp_path)
    command = str(Path(sys.executable).with_name("kfpbench"))
    contracts = (sys.executable, "-m", "kfpbench.testing", "kernels", "--plugin", "mine.py")
    for copied, name in (
        ("my_kernel.py", "mine.py"),
        ("my_kernel.yaml", "mine.yaml"),
        ("my_kernel_study.yaml", "study.yaml"),
    ):
        shutil.copy(EXAMPLES / copied, tmp_path / name)

    # half a change, which the contract suite finds; then the whole one
    renamed = ("my_rational_quadratic", NAME)
    newcomer.edits("mine.py", renamed, ("class MyRationalQuadratic", "class DampedRational"), *VALUE)
    newcomer.edits("mine.py", ("-> MyRationalQuadratic", "-> DampedRational"))
    said = newcomer.does("contract suite, derivatives forgotten", *contracts, code=1)
    assert "first_derivatives_match_the_value failed" in said
    newcomer.edits("mine.py", *DERIVATIVES)
    said = newcomer.does("contract suite", *contracts)
    assert re.search(r"\b([1-9]\d*) passed, 0 failed", said)

    # the run
    newcomer.edits("mine.yaml", renamed, ("my_kernel.py", "mine.py"), ("name: my_kernel\n", "name: mine\n"))
    assert "--allow-plugins" in newcomer.does("run without permission", command, "run", "mine.yaml", code=2)
    assert not (tmp_path / "reports").exists()
    newcomer.does("run", command, "run", "mine.yaml", "--allow-plugins")
    run = tmp_path / "reports" / "runs" / "mine"
    table = kfpbench.load_run(run)
    assert set(table["status"]) == {"ok"}
    energies = table[table["metric"] == "energy_distance"]
    energy = energies.groupby(energies["kernel"].fillna("gaussian"))["value"].mean()
    assert energy[NAME] < 0.5 * energy["gaussian"]
    assert NAME in (run / "report.html").read_text(encoding="utf-8")

    # the study
    newcomer.edits("study.yaml", renamed, ("my_kernel.py", "mine.py"), ("name: my_kernel_study\n", "name: tuned\n"))
    said = newcomer.does("study run", command, "study", "run", "study.yaml", "--allow-plugins")
    assert "12 of 12 trials finished: 12 ok" in said
    trials = dict(re.findall(r"trial (\d+) .* kernel=(\w+)", said))
    assert set(trials.values()) == {NAME, "rbf"}
    searched = re.findall(rf"kernel={NAME}, factor=\S+ a=([0-9.]+)", said)
    assert len(searched) == list(trials.values()).count(NAME)  # its own parameter, in its trials alone
    assert len(re.findall(r" a=[0-9.]+", said)) == len(searched)
    assert all(0.5 <= float(a) <= 4.0 for a in searched)
    assert NAME in (tmp_path / "reports" / "studies" / "tuned" / "study.html").read_text(encoding="utf-8")

    said = newcomer.does("study best", command, "study", "best", "study.yaml", "--allow-plugins")
    assert re.findall(r"best (\w+): trial \d+", said) == ["energy_distance", "seconds_per_image"]
    chosen = [number for number, kernel in trials.items() if kernel == NAME][:2]
    newcomer.does(
        "study export",
        *(command, "study", "export", "study.yaml", "best.yaml", "--trials", ",".join(chosen), "--allow-plugins"),
    )
    exported = YAML(typ="safe").load(tmp_path / "best.yaml")
    assert exported["plugins"] == ["mine.py"]
    assert exported["data"]["reference"] == "test"
    newcomer.does("run of the exported suite", command, "run", "best.yaml", "--allow-plugins")
    table = pd.read_parquet(tmp_path / "reports" / "runs" / "tuned_best" / "results.parquet")
    assert set(table["status"]) == {"ok"}
    assert set(table["label"]) == {*(f"koopman_t{number}" for number in chosen), "gaussian"}
    assert set(table["kernel"].dropna()) == {NAME}
    assert set(table["reference"]) == {"test"}

    with capsys.disabled():
        print("\na kernel of one's own, seconds of each step:")
        for step, seconds in newcomer.seconds.items():
            print(f"  {seconds:6.1f}  {step}")
