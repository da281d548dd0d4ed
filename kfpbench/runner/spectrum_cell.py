"""Run one spectrum cell: eigenvalues with residuals, no sampler."""

from __future__ import annotations

from kfpbench.protocols import Measurement
from kfpbench.runner.materials import Materials, wake
from kfpbench.runner.memory import PeakMemory
from kfpbench.runner.sample_cell import Outcome
from kfpbench.runner.timing import Stopwatch
from kfpbench.store.records import measurement_entry
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create


def run_spectrum_cell(cell: Cell, materials: Materials, outcome: Outcome) -> None:
    """Fill ``outcome`` with eigenvalue_k_re, eigenvalue_k_im and residual_k, k from 1 in descending real part."""
    task = create("spectrum", cell.spec["spectrum"])
    problem = materials.problem(cell)
    outcome.device = str(problem.device)
    outcome.details["data"] = {"fingerprint": problem.dataset.fingerprint, "notes": list(problem.dataset.notes)}
    wake(problem.device)
    watch = Stopwatch(problem.device)
    outcome.phases = watch.seconds
    before = problem.score.evaluations
    with PeakMemory(problem.device) as memory, watch.phase("setup"):
        spectrum = task.solve(problem)
    measured = [
        Measurement("setup_seconds", watch.seconds["setup"], unit="s"),
        Measurement("setup_nfe", float(problem.score.evaluations - before)),
    ]
    if memory.result.increase is not None:
        measured.append(Measurement("peak_memory_mib", memory.result.increase / 2**20, unit="MiB"))
    outcome.measurements += [measurement_entry(one, "lower") for one in measured]
    for number, (value, residual) in enumerate(zip(spectrum.values, spectrum.residuals, strict=True), start=1):
        outcome.measurements += [
            measurement_entry(Measurement(f"eigenvalue_{number}_re", value.real)),
            measurement_entry(Measurement(f"eigenvalue_{number}_im", value.imag)),
            measurement_entry(Measurement(f"residual_{number}", residual), "lower"),
        ]
    outcome.details |= {
        "eigenvalues": [[value.real, value.imag] for value in spectrum.values],
        "residuals": spectrum.residuals,
        "flags": spectrum.flags,
        "solver": spectrum.diagnostics,
    }
