"""Run one spectrum cell: eigenvalues with residuals, and errors where the exact ones are known; no sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.cache.use import Stored, keep, look_up
from kfpbench.data.reference_problem import ReferenceProblem
from kfpbench.data.shared_cost import billed
from kfpbench.eigensolvers.spectrum import Spectrum
from kfpbench.eigensolvers.spectrum_task import SpectrumTask
from kfpbench.errors import NumericalError
from kfpbench.protocols import BoundScore, Measurement
from kfpbench.runner.eigenfunction_grid import function_grid
from kfpbench.runner.eigenvalue_errors import SPARE, match_eigenvalues
from kfpbench.runner.kept_work import stored_spectrum
from kfpbench.runner.materials import DTYPES, Materials, choose_device, wake
from kfpbench.runner.memory import PeakMemory
from kfpbench.runner.sample_cell import Outcome, describe_score
from kfpbench.runner.timing import Stopwatch
from kfpbench.store.eigenfunctions import FunctionGrid
from kfpbench.store.json_values import plain
from kfpbench.store.records import measurement_entry
from kfpbench.suite.cell import Cell
from kfpbench.suite.components import create

_LEADING = 3  # max_eigenvalue_error is over this many non-zero modes


def run_spectrum_cell(cell: Cell, materials: Materials, outcome: Outcome) -> None:
    """Fill ``outcome`` with eigenvalues, residuals, flags, and eigenfunctions to draw.

    Measurements: eigenvalue_k_re, eigenvalue_k_im and residual_k, k from 1 in descending real part; sound_modes,
    flagged_modes; where the exact spectrum is known eigenvalue_error_k of the k-th sound non-zero mode (see
    `match_eigenvalues`) and max_eigenvalue_error over the first three, which is left out where fewer were found.
    """
    task: SpectrumTask = create("spectrum", cell.spec["spectrum"])
    if cell.spec["score"] is None:
        problem: ReferenceProblem = create("datasets", cell.spec["data"])
        solved = _own_dynamics(task, problem, cell, outcome)
        _compare(solved, problem, task.n_eigs, outcome)
    else:
        solved = _reverse_process(task, cell, materials, outcome)
        outcome.details["frame"] = task.operator.frame
    outcome.functions = solved.functions
    _describe(solved, outcome)


@dataclass(frozen=True)
class Solved:
    """What a cell tells of a `Spectrum`, whose fields the first five are, and what is drawn of it."""

    values: NDArray[np.complex128]
    residuals: NDArray[np.float64]
    flags: tuple[str, ...]
    status: str
    diagnostics: dict[str, Any]
    functions: FunctionGrid | None

    @classmethod
    def of(cls, spectrum: Spectrum, functions: FunctionGrid | None) -> Solved:
        """That of a spectrum."""
        told = plain(spectrum.diagnostics, "diagnostics")
        return cls(spectrum.values, spectrum.residuals, tuple(spectrum.flags), spectrum.status, told, functions)


def _own_dynamics(task: SpectrumTask, problem: ReferenceProblem, cell: Cell, outcome: Outcome) -> Solved:
    device = choose_device(cell.spec["device"])
    outcome.device = str(device)
    wake(device)
    return _solved(
        stored_spectrum(cell, None, task, Solved),
        Stopwatch(device),
        lambda: task.solve_reference(problem, cell.seed, device, DTYPES[cell.spec["dtype"]]),
        lambda spectrum: Solved.of(spectrum, function_grid(spectrum, problem.log_density)),
        None,
        outcome,
    )


def _reverse_process(task: SpectrumTask, cell: Cell, materials: Materials, outcome: Outcome) -> Solved:
    problem = materials.problem(cell)
    outcome.device = str(problem.device)
    outcome.details["score"] = describe_score(problem.score)
    outcome.details["data"] = {"fingerprint": problem.dataset.fingerprint, "notes": list(problem.dataset.notes)}
    wake(problem.device)
    return _solved(
        stored_spectrum(cell, problem, task, Solved),
        Stopwatch(problem.device),
        lambda: task.solve(problem),
        lambda spectrum: Solved.of(spectrum, function_grid(spectrum)),
        problem.score,
        outcome,
    )


def _solved(
    stored: Stored[Solved] | None,
    watch: Stopwatch,
    solve: Callable[[], Spectrum],
    tell: Callable[[Spectrum], Solved],
    score: BoundScore | None,
    outcome: Outcome,
) -> Solved:
    """What the cache has of an earlier run, at the cost that it had then; else what is solved now."""
    outcome.phases = watch.seconds
    with watch.phase("setup"):
        kept = look_up(stored) if stored is not None else None
    measured = watch.seconds["setup"]
    if kept is not None:
        spared, told = max(kept.seconds - measured, 0.0), kept.extra
        note = f"read from the cache; it is charged as measured on {kept.made}"
        _costs(measured, spared, told["memory"], told["evaluations"], outcome, note)
        return kept.value
    watch.seconds.clear()  # looking in vain is no part of it
    before = 0 if score is None else score.evaluations
    with PeakMemory(watch.device) as memory, watch.phase("setup"), billed() as reused:
        spectrum = solve()
    evaluations = None if score is None else score.evaluations - before
    measured, spared = watch.seconds["setup"], sum(reused.values())
    _costs(measured, spared, memory.result.increase, evaluations, outcome)
    solved = tell(spectrum)
    if stored is not None:
        keep(stored, solved, measured + spared, {"memory": memory.result.increase, "evaluations": evaluations})
    return solved


def _costs(
    measured: float, spared: float, memory: int | None, evaluations: int | None, outcome: Outcome, note: str = ""
) -> None:
    shared = {"measured": measured, "shared": spared, **({"note": note} if note else {})}
    costs = [Measurement("setup_seconds", measured + spared, unit="s", details=shared)]
    if evaluations is not None:
        costs.append(Measurement("setup_nfe", float(evaluations)))
    if memory is not None:
        costs.append(Measurement("peak_memory_mib", memory / 2**20, unit="MiB"))
    outcome.measurements += [measurement_entry(one, "lower") for one in costs]


def _compare(spectrum: Solved, problem: ReferenceProblem, n_eigs: int, outcome: Outcome) -> None:
    """Errors against the exact spectrum, where it can be had."""
    exact, reason = _exact(problem, len(spectrum.values) + SPARE)
    if exact is None:
        outcome.details["notes"] = [reason]
        return
    matches = match_eigenvalues(spectrum.values, spectrum.flags, exact)
    ordered = [match.error for match in matches if match is not None]  # values descend in their real part
    measured = [Measurement(f"eigenvalue_error_{k}", error) for k, error in enumerate(ordered, start=1)]
    wanted = min(_LEADING, n_eigs - 1)
    if 0 < wanted <= len(ordered):
        measured.append(Measurement("max_eigenvalue_error", max(ordered[:wanted]), n=wanted))
    outcome.measurements += [measurement_entry(one, "lower") for one in measured]
    listed = exact[: len(spectrum.values)]
    outcome.details["exact_eigenvalues"] = [[value.real, value.imag] for value in listed.tolist()]
    outcome.details["matches"] = [m and {"exact": [m.exact.real, m.exact.imag], "error": m.error} for m in matches]


def _exact(problem: ReferenceProblem, count: int) -> tuple[NDArray[np.complex128] | None, str]:
    """The exact eigenvalues, or the reason why there are none to compare with."""
    try:
        exact = problem.exact_eigenvalues(count)
    except NumericalError as error:  # such as a well so deep that its slowest rate is lost in rounding
        return None, f"no exact eigenvalues: {error}"
    return (None, "no exact eigenvalues are known") if exact is None else (np.asarray(exact, dtype=complex), "")


def _describe(spectrum: Solved, outcome: Outcome) -> None:
    values, residuals = spectrum.values.tolist(), spectrum.residuals.tolist()
    for number, (value, residual) in enumerate(zip(values, residuals, strict=True), start=1):
        outcome.measurements += [
            measurement_entry(Measurement(f"eigenvalue_{number}_re", value.real)),
            measurement_entry(Measurement(f"eigenvalue_{number}_im", value.imag)),
            measurement_entry(Measurement(f"residual_{number}", residual), "lower"),
        ]
    flagged = sum(bool(flag) for flag in spectrum.flags)
    outcome.measurements += [
        measurement_entry(Measurement("sound_modes", float(len(values) - flagged)), "higher"),
        measurement_entry(Measurement("flagged_modes", float(flagged)), "lower"),
    ]
    outcome.details |= {
        "eigenvalues": [[value.real, value.imag] for value in values],
        "residuals": residuals,
        "flags": list(spectrum.flags),
        "status": spectrum.status,
        "solver": spectrum.diagnostics,
    }
