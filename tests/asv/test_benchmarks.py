"""Every registered component has benchmarks, and they run; a planted plugin is found; what is missing is skipped."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kfpbench.registry import available

ROOT = Path(__file__).parents[2]
MODULES = {"kernels": "kernels", "backends": "backends", "eigensolvers": "eigensolvers", "samplers": "samplers"}
SMALL = {"kernels": (60, 2), "backends": (60, 2), "eigensolvers": (60, 2), "samplers": (5, 2)}


def methods(made):
    return [name for name in dir(made) if name.startswith(("time_", "track_"))]


@pytest.mark.parametrize("kind", MODULES)
def test_every_registered_component_has_a_class(benchmarks, kind):
    module = benchmarks(MODULES[kind])
    prefix = benchmarks("components").PREFIX[kind]
    for name in available(kind):
        made = vars(module)[f"{prefix}_{name}"]
        assert made.component == name
        assert {method.split("_")[0] for method in methods(made)} == {"time", "track"}
        assert made.param_names[0] in ("points", "images")
        assert made.param_names[1] == "dimension"


@pytest.mark.parametrize(
    ("kind", "name", "method"),
    [
        *[("kernels", name, "time_gram") for name in available("kernels")],
        *[("backends", name, "time_generator_gram") for name in available("backends") if name not in ("keops", "auto")],
        *[("eigensolvers", name, "time_solve") for name in available("eigensolvers") if name != "kooplearn_dirichlet"],
        *[
            ("samplers", name, "time_draw")
            for name in available("samplers")
            if name not in ("koopman", "density", "diffusers_scheduler")
        ],
    ],
)
def test_setups_and_timed_parts_run(benchmarks, kind, name, method):
    """At a small size; those that take seconds, or compile, are run by asv alone."""
    module = benchmarks(MODULES[kind])
    run = vars(module)[f"{benchmarks('components').PREFIX[kind]}_{name}"]()
    run.setup(*SMALL[kind])
    assert getattr(run, method)(*SMALL[kind]) is None


@pytest.mark.parametrize("kind", MODULES)
def test_what_a_module_imports_is_no_benchmark(benchmarks, kind):
    """asv takes every public class with a method of the form `time_x` for one, imported ones too."""
    module = benchmarks(MODULES[kind])
    found = [name for name, value in vars(module).items() if isinstance(value, type) and methods(value)]
    prefix = f"{benchmarks('components').PREFIX[kind]}_"
    assert [name for name in found if not name.startswith(("_", prefix))] == []


def test_setup_is_done_once(benchmarks):
    run = benchmarks("kernels").kernel_rbf()
    run.setup(60, 2)
    points = run.points
    run.setup(60, 2)
    assert run.points is points
    run.setup(70, 2)
    assert len(run.points) == 70


def test_tracked_errors_are_those_of_the_known_spectrum(benchmarks):
    """A quadratic polynomial spans the first eigenfunctions exactly; the Gaussian kernel errs by a few per cent."""
    kernels = benchmarks("kernels")
    errors = {}
    for name in ("polynomial", "rbf"):
        run = getattr(kernels, f"kernel_{name}")()
        run.setup(500, 2)
        errors[name] = run.track_eigenvalue_error(500, 2)
    assert errors["polynomial"] < 1e-9
    assert 1e-4 < errors["rbf"] < 0.1


def test_no_sound_mode_is_a_failure_and_not_a_skip(benchmarks):
    from types import SimpleNamespace

    from kfpbench.errors import NumericalError

    flagged = SimpleNamespace(values=[0.0, -1.0], flags=["", "spurious"])
    with pytest.raises(NumericalError, match="no sound mode"):
        benchmarks("reference").leading_error(flagged)


def test_what_cannot_work_together_is_skipped(benchmarks):
    run = benchmarks("kernels").kernel_matern32()
    run.setup(60, 2)
    with pytest.raises(NotImplementedError, match="derivatives"):
        run.time_generator_gram(60, 2)


def test_a_component_that_a_commit_lacks_is_skipped(benchmarks):
    """asv asks by name; module attributes that are no benchmarks stay unknown, since asv looks for `setup` and such."""
    kernels = benchmarks("kernels")
    with pytest.raises(NotImplementedError, match="from_the_future"):
        kernels.kernel_from_the_future().setup(60, 2)
    assert getattr(kernels, "setup", None) is None
    assert getattr(kernels, "timeout", None) is None


def test_memory_is_what_the_call_added(benchmarks):
    import torch

    held = []
    components = benchmarks("components")
    found = components.peak_increase(lambda: held.append(torch.ones(2**25)))  # 128 MiB
    assert 100 * 2**20 < found < 200 * 2**20


def test_a_planted_plugin_is_benchmarked(tmp_path):
    """A distribution with one entry point, seen by asv's own discovery and run by asv's own runner."""
    runner = pytest.importorskip("asv.benchmark", reason="asv is not installed: pip install kfpbench[dev]").__file__
    example = (ROOT / "examples" / "my_kernel.py").read_text()
    (tmp_path / "planted.py").write_text(
        example.replace('@kfpbench.register("kernels", "my_rational_quadratic")\n', "")
    )
    record = tmp_path / "planted-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[kfpbench.kernels]\nmy-planted = planted:MyRationalQuadratic\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "ASV_PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    folder = str(ROOT / "suites" / "asv")

    def asv(*words):
        subprocess.run([sys.executable, runner, *words], env=environment, cwd=tmp_path, check=True, timeout=300)

    asv("discover", folder, str(tmp_path / "found.json"))
    found = (tmp_path / "found.json").read_text()
    assert '"kernels.kernel_my_planted.time_gram"' in found
    asv("run", folder, "kernels.kernel_my_planted.track_eigenvalue_error-0", "{}", "None", str(tmp_path / "error.json"))
    error = float((tmp_path / "error.json").read_text())
    assert math.isfinite(error)
    assert error < 0.2


def test_the_cells_of_a_suite(benchmarks, tmp_path, monkeypatch):
    cells = benchmarks("suite_cells")
    assert cells.read_cells() == {}
    suite = tmp_path / "small.yaml"
    suite.write_text(
        textwrap.dedent("""
            schema_version: 1
            name: small
            data: {name: gmm_ring, train: 500, test: 200}
            score: mixture
            process: {name: ve, sigma_min: 0.05, sigma_max: 20.0}
            samplers: [{name: pf_ode_heun, label: heun, steps: 3}, gaussian]
            grid: {samplers.heun.steps: [2, 3]}
            metrics: [energy_distance, precision_recall]
            n_samples: 40
            repeats: 2
        """)
    )
    monkeypatch.setenv("KFPBENCH_ASV_SUITE", str(suite))
    found = cells.read_cells()
    assert list(found) == ["cell_heun__steps_2", "cell_heun__steps_3", "cell_gaussian"]
    assert cells.measures(found["cell_gaussian"]) == ["energy_distance"]  # of which less is better
    run = type("cell", (cells._SampleCell,), {"cell": found["cell_heun__steps_2"]})()
    run.setup()
    run.time_cell()
    assert 0 < run.track_seconds_per_image() < 1
    assert math.isfinite(run.measured("energy_distance"))
