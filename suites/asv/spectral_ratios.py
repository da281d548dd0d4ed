"""What the eigensolvers cost: beside a peer, on large problems, and against the number of points. `make speed` runs it.

    python suites/asv/spectral_ratios.py peers      # times kooplearn's GeneratorDirichlet takes ours, and the errors
    python suites/asv/spectral_ratios.py large      # 50,000 points in 3,072 dimensions: time and peak memory
    python suites/asv/spectral_ratios.py krylov     # 20,000 points in 8 dimensions without an N x N array
    python suites/asv/spectral_ratios.py scaling    # seconds against N, and the exponent, per solver and backend

Each part prints a table; `--json FILE` writes its rows. Memory is measured in a fresh process for each measurement.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from kfpbench import estimate_spectrum
from kfpbench.data.potentials import OrnsteinUhlenbeck
from kfpbench.errors import CapabilityError
from kfpbench.kernels.bandwidth import auto_length
from kfpbench.registry import available, find
from kfpbench.runner.memory import PeakMemory

GIB = 2**30
NEEDED = {"dense": 30.0, "nystrom": 50.0}  # times as fast as the peer
DENSE_POINTS = 4000


# ---- beside a peer


def peers(points, dimension, repeats, seed):
    """Seconds and error of the leading non-zero eigenvalue, -1, of all defaults against kooplearn's bare estimator.

    Every repeat draws new points and times one estimator after the other on them. kooplearn's runs with its default
    bandwidth and with the one that ours takes (``auto``); the ratio is to the faster, the error beside the smaller.
    """
    from kooplearn.kernel import GeneratorDirichlet

    problem = OrnsteinUhlenbeck(dimension=dimension)

    def ours(name, x):
        found = estimate_spectrum(x, problem.drift, problem.diffusion, eigensolver=name)
        sound = [value for value, flag in zip(found.values, found.flags, strict=True) if not flag]
        return sound[1].real if len(sound) > 1 else math.nan

    def theirs(length, x):
        gamma = None if length is None else 0.5 / length**2
        model = GeneratorDirichlet(math.sqrt(2.0 * problem.diffusion), n_components=6, gamma=gamma)
        return np.sort(model.fit(x).eig().real)[-2]

    runs = {
        "kooplearn": lambda x: theirs(None, x),
        "kooplearn, auto length": lambda x: theirs(auto_length(torch.from_numpy(x)), x),
        "dense": lambda x: ours("dense", x),
        "nystrom": lambda x: ours("nystrom", x),
    }
    for run in runs.values():  # imports and thread pools are not timed
        run(problem.sample(60, seed=10**6))
    seconds, errors = {name: [] for name in runs}, {name: [] for name in runs}
    for repeat in range(repeats):
        x = problem.sample(points, seed=seed + repeat)
        for name, run in runs.items():
            begin = time.perf_counter()
            value = run(x)
            seconds[name].append(time.perf_counter() - begin)
            errors[name].append(abs(value + 1.0))
    peer_names = [name for name in runs if name.startswith("kooplearn")]
    fastest = [min(seconds[name][repeat] for name in peer_names) for repeat in range(repeats)]
    peer_error = min(statistics.median(errors[name]) for name in peer_names)
    rows = []
    for name in runs:
        ratios = [slow / fast for slow, fast in zip(fastest, seconds[name], strict=True)]
        error = statistics.median(errors[name])
        met = bool(statistics.median(ratios) >= NEEDED[name] and error <= peer_error) if name in NEEDED else None
        row = {"solver": name, "seconds": statistics.median(seconds[name]), "error": error}
        row |= {"ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        row |= {"needed": NEEDED.get(name), "met": met}
        rows.append(row)
    return rows


# ---- one measurement in a process of its own


def fresh(measurement, **arguments):
    """What ``MEASUREMENTS[measurement](**arguments)`` returns, run in a fresh interpreter."""
    command = [sys.executable, __file__, "measure", measurement, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _spectrum(points, drift, diffusion, n_eigs, device, **choices):
    """Seconds, peak memory and values of one call of ``estimate_spectrum``."""
    with PeakMemory(device) as memory:
        begin = time.perf_counter()
        found = estimate_spectrum(points, drift, diffusion, n_eigs=n_eigs, device=device, **choices)
        seconds = time.perf_counter() - begin
    sound = [value for value, flag in zip(found.values, found.flags, strict=True) if not flag]
    return {
        "seconds": seconds,
        "peak_gib": None if memory.result.peak is None else memory.result.peak / GIB,
        "increase_gib": None if memory.result.increase is None else memory.result.increase / GIB,
        "status": found.status,
        "flagged": len(found.values) - len(sound),
        "values": [[float(value.real), float(value.imag)] for value in sound[:n_eigs]],
        "iterations": found.diagnostics["iterations"],
    }


def measure_large(points, dimension, centres, n_eigs, dtype, seed, device):
    """Gaussian points of variance 1 / j^2 along axis j, b = -x and a = diag(1 / j^2): the eigenvalues are -n.

    float32 arrays, as a data set's are; the peak is that of the process, these arrays included.
    """
    generator = np.random.default_rng(seed)
    scale = (1.0 / np.arange(1, dimension + 1)).astype(np.float32)
    x = generator.standard_normal((points, dimension), dtype=np.float32)
    x *= scale
    solver = {"eigensolver": "nystrom", "eigensolver_params": {"centres": centres}}
    return _spectrum(x, -x, scale.astype(np.float64) ** 2, n_eigs, device, dtype=dtype, **solver)


def measure_ou(points, dimension, eigensolver, backend, n_eigs, seed, device="cpu", params=None):
    """Draws of an Ornstein-Uhlenbeck process in float64."""
    problem = OrnsteinUhlenbeck(dimension=dimension)
    x = problem.sample(points, seed)
    solver = {"eigensolver": eigensolver, "eigensolver_params": params, "backend": backend}
    return _spectrum(x, problem.drift(x), problem.diffusion, n_eigs, device, **solver)


def measure_growth(sizes, dimension, eigensolver, backend, n_eigs, seed, device, limit):
    """``measure_ou`` for each N, while the next is not expected to take more than ``limit`` seconds."""
    common = (dimension, eigensolver, backend, n_eigs, seed, device)
    measure_ou(min(300, sizes[0]), *common)  # compiles and warms up
    rows, last = [], None
    for points in sizes:
        expected = 0.0 if last is None else last["seconds"] * (points / last["points"]) ** 2
        row = {"points": points}
        if expected > limit:
            row["left_out"] = f"expected to take {expected:.0f} s by N^2, more than {limit:g}"
        else:
            last = row = row | measure_ou(points, *common)
        rows.append(row)
    return rows


MEASUREMENTS = {"large": measure_large, "ou": measure_ou, "growth": measure_growth}


# ---- large problems


def large(points, dimension, centres, n_eigs, dtype, device, seed):
    """``nystrom`` in high dimension: below 6 GiB and 300 s on two idle cores."""
    arguments = {"points": points, "dimension": dimension, "centres": centres, "n_eigs": n_eigs}
    row = {"solver": "nystrom", **arguments, "device": device, "dtype": dtype}
    row |= fresh("large", **arguments, dtype=dtype, seed=seed, device=device)
    row["error"] = abs(row["values"][1][0] + 1.0) if len(row["values"]) > 1 else None
    row["met"] = bool(row["seconds"] < 300 and (row["peak_gib"] or math.inf) < 6)
    return [row]


def krylov(points, dimension, backend, centres, damping, n_eigs, seed):
    """``krylov`` on a lazy backend beside ``nystrom``: the largest relative difference of values 1 .. n_eigs - 1.

    ``centres`` are nystrom's and those of the preconditioner, ``damping`` is krylov's: its default, 1e-6, keeps more
    functions in 8 dimensions than the preconditioner spans. Met: within 30 minutes and 1 %, in less memory than one
    N x N array of float64.
    """
    own = {"krylov": {"damping": damping, "preconditioner_centres": centres}, "nystrom": {"centres": centres}}
    shared = {"points": points, "dimension": dimension, "backend": backend, "n_eigs": n_eigs, "seed": seed}
    rows = [
        {"solver": name, **shared, **fresh("ou", eigensolver=name, params=params, **shared)}
        for name, params in own.items()
    ]
    pairs = [[complex(*value) for value in row["values"][1:]] for row in rows]
    shown = [abs(one - other) / abs(other) for one, other in zip(*pairs, strict=False)]
    complete = min(len(values) for values in pairs) >= n_eigs - 1
    whole = 8 * points**2 / GIB
    rows[0] |= {"difference": max(shown, default=math.nan), "whole_gram_gib": whole}
    within = complete and rows[0]["difference"] <= 0.01 and rows[0]["seconds"] < 1800
    rows[0]["met"] = bool(within and (rows[0]["increase_gib"] or math.inf) < whole)
    return rows


# ---- cost against the number of points


def scaling(sizes, dimension, solvers, backends, n_eigs, limit, memory, device, seed):
    """Seconds and peak memory for each N, and the exponent p of t ~ N^p with its standard error.

    Left out, with the reason: ``dense`` above 4,000 points, what is predicted to need more than ``memory`` GiB, what
    is expected to take more than ``limit`` seconds; ``rff`` makes no Gram matrix and runs once.
    """
    rows = []
    for solver in solvers:
        for backend in backends if solver != "rff" else backends[:1]:
            shown = {"solver": solver, "backend": "-" if solver == "rff" else backend}
            reasons = {points: _too_large(solver, backend, points, dimension, n_eigs, memory) for points in sizes}
            fitting = [points for points in sizes if not reasons[points]]
            found = []
            if fitting:
                common = {"dimension": dimension, "eigensolver": solver, "backend": backend, "n_eigs": n_eigs}
                found = fresh("growth", sizes=fitting, **common, seed=seed, device=device, limit=limit)
            found += [{"points": points, "left_out": reason} for points, reason in reasons.items() if reason]
            timed = [(row["points"], row["seconds"]) for row in found if "seconds" in row]
            rows += [{**shown, **row} for row in found] + [{**shown, "points": "exponent", **exponent(timed)}]
    return rows


def _too_large(solver, backend, points, dimension, n_eigs, memory):
    if solver == "dense" and points > DENSE_POINTS:
        return f"dense: more than {DENSE_POINTS} points"
    component, products = find("eigensolvers", solver).load()(), find("backends", backend).load()()
    needed = component.working_memory(points, dimension, n_eigs, 8, products)
    return f"predicted to need {needed / GIB:.1f} GiB, more than {memory:g}" if needed > memory * GIB else ""


def exponent(timed):
    """p and its standard error in log t = p log N + c by least squares over (N, t); NaN for too few."""
    if len(timed) < 2:
        return {"exponent": math.nan, "standard_error": math.nan}
    x, y = np.log(np.array(timed, dtype=float)).T
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    rest = float(((y - slope * x) ** 2).sum())
    error = math.sqrt(rest / (len(x) - 2) / float(x @ x)) if len(x) > 2 else math.nan
    return {"exponent": slope, "standard_error": error}


# ---- the command


def table(rows):
    """Rows as aligned text; lists are left to the JSON."""
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, list)))

    def cell(value):
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [names, *[[cell(row.get(name)) for name in names] for row in rows]]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def parser():
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = command.add_subparsers(dest="part", required=True)

    def part(function, **defaults):
        sub = parts.add_parser(function.__name__, help=function.__doc__.splitlines()[0])
        sub.add_argument("--json", type=Path, help="write the rows there")
        for name, default in {**defaults, "seed": 0}.items():
            several = isinstance(default, list)
            kind = type(default[0] if several else default)
            sub.add_argument(f"--{name.replace('_', '-')}", type=kind, nargs="+" if several else None, default=default)
        sub.set_defaults(function=function)

    solvers = [
        name for name in ("dense", "nystrom", "randomized", "rff", "krylov") if name in available("eigensolvers")
    ]
    part(peers, points=1000, dimension=2, repeats=3)
    part(large, points=50_000, dimension=3072, centres=2000, n_eigs=20, dtype="float32", device="cpu")
    part(krylov, points=20_000, dimension=8, backend="auto", centres=2000, damping=1e-4, n_eigs=9)
    sizes = [1000, 2000, 4000, 8000, 16_000, 32_000, 50_000]
    backends = ["dense", "tiled", "keops", "auto"]
    scope = {"n_eigs": 6, "limit": 600.0, "memory": 12.0, "device": "cpu"}
    part(scaling, sizes=sizes, dimension=2, solvers=solvers, backends=backends, **scope)
    measure = parts.add_parser("measure")  # what a fresh process runs
    measure.add_argument("measurement", choices=sorted(MEASUREMENTS))
    measure.add_argument("arguments", type=json.loads)
    return command


def main(words=None):
    arguments = vars(parser().parse_args(words))
    name = arguments.pop("part")
    if name == "measure":
        print(json.dumps(MEASUREMENTS[arguments["measurement"]](**arguments["arguments"])))
        return 0
    function, target = arguments.pop("function"), arguments.pop("json")
    print(f"{name}: {os.cpu_count()} processors, {torch.get_num_threads()} threads, torch {torch.__version__}")
    try:
        rows = function(**arguments)
    except ImportError as error:
        raise CapabilityError(f"a peer is missing: {error}", remedy="pip install kfpbench[peers]") from error
    print(table(rows))
    if target is not None:
        record = {"part": name, "arguments": arguments, "threads": torch.get_num_threads(), "rows": rows}
        target.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
