"""The page on samplers names every sampler and option, its fragments are valid, and NFE and refiners are as it says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from kfpbench.errors import CapabilityError
from kfpbench.noise import NoiseStream
from kfpbench.operators.frames import FRAMES
from kfpbench.operators.generator import GeneratorOptions
from kfpbench.processes.ve import VarianceExploding
from kfpbench.protocols import FittedRefiner
from kfpbench.registry import available
from kfpbench.samplers.conditional_noise import COVARIANCES
from kfpbench.samplers.density import Density
from kfpbench.samplers.jump import Jump
from kfpbench.samplers.koopman import Koopman
from kfpbench.samplers.partitioned import Partitioned
from kfpbench.suite.load import suite_from_mapping

PAGE = (Path(__file__).parents[2] / "docs" / "samplers.md").read_text(encoding="utf-8")
FRAGMENTS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
OURS = {name for name, entry in available("samplers").items() if entry.origin.startswith("kfpbench ")}
STEPS, COUNT = 7, 5
EVALUATIONS = {
    "steps": STEPS,
    "2 steps": 2 * STEPS,
    "2 steps - 1": 2 * STEPS - 1,
    "steps (1 + corrections)": 2 * STEPS,  # one by default
    "0": 0,
    "0, its own denoiser's O(n N d) apart": 0,
}


def table(head: str) -> dict[str, list[str]]:
    """The cells of the table whose head begins so, by the name in its first column."""
    (found,) = re.findall(rf"^\| {re.escape(head)}.*\n\| ---.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in found.splitlines()]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


SPECTRAL, BASELINES = table("name | from noise"), table("name | order | NFE | refines |")


def test_every_sampler_has_a_line_in_a_table():
    assert not SPECTRAL.keys() & BASELINES.keys()
    assert SPECTRAL.keys() | BASELINES.keys() == OURS
    assert len(FRAGMENTS) >= 5


@pytest.mark.parametrize("component", [GeneratorOptions, Koopman, Density, Jump, Partitioned])
def test_every_option_of_the_spectral_samplers_is_named(component):
    missing = [name for name in inspect.signature(component).parameters if f"`{name}`" not in PAGE]
    assert [name for name in missing if f"`{name}: " not in PAGE] == []


def test_the_tables_have_every_frame_and_covariance():
    assert table("frame | y").keys() == FRAMES.keys()
    for name in COVARIANCES:
        assert re.search(rf"^\| (`covariance`|) ?\| `{name}` \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda text: re.search(r"name: (\w+)", text)[1])
def test_fragments_are_valid(fragment):
    suite = suite_from_mapping(
        {
            "name": "page",
            "data": {"name": "cifar10"},
            "score": {"name": "empirical"},
            "process": {"name": "ve"},
            **YAML(typ="safe").load(fragment),
        }
    )
    assert suite.cells


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_evaluations_and_refiners_are_as_stated(make_problem, planar, name):
    plugin = available("samplers")[name].load()
    problem = make_problem(planar, VarianceExploding(0.05, 10.0))
    takes_steps = "steps" in inspect.signature(plugin).parameters
    try:
        fitted = (plugin(steps=STEPS) if takes_steps else plugin()).fit(problem)
    except CapabilityError as error:
        assert name == "diffusers_scheduler"
        pytest.skip(str(error))
    assert isinstance(fitted, FittedRefiner) is (BASELINES[name][2] == "yes")
    stated, before = BASELINES[name][1], problem.score.evaluations
    fitted.sample(NoiseStream.of_range(3, 0, COUNT, 2, torch.device("cpu"), torch.float64))
    counted = (problem.score.evaluations - before) / COUNT
    if stated == "6 steps, chosen by a pilot":
        assert counted == 6 * fitted.describe()["steps"]
    elif stated == "the scheduler's":
        assert counted == STEPS  # of the default, a multistep method
    else:
        assert counted == EVALUATIONS[stated]
