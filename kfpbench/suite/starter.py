"""The suite that `kfpbench init` writes: small, complete, and explained line by line."""

from __future__ import annotations

import re
from pathlib import Path

from kfpbench.errors import ParameterError, StoreError
from kfpbench.suite.yaml_source import parse_value

# What differs between the data sets: the score and process that suit them, the kernel's width, sizes, and a comment.
DATA: dict[str, dict[str, str]] = {
    "digits": {
        "about": "1,797 handwritten digits of 8 x 8 pixels, from scikit-learn: nothing to download",
        "data": "{name: digits}",
        "score": "{name: empirical}",
        "score_about": "exact for the training rows, where solvers end: see\n# nearest_train",
        "process": "{name: ve, sigma_min: 0.05, sigma_max: 20.0}",
        "factor": "1.0",
        "segments": "16",
        "more_segments": "[8, 16]",
        "points": "400",
        "features": "identity",
        "n": "300",
        "batch": "100",
    },
    "gmm_ring": {
        "about": "eight Gaussians on a ring in the plane, drawn anew: nothing to download",
        "data": "{name: gmm_ring}",
        "score": "{name: mixture}",
        "score_about": "exact: the law of this data set is known",
        "process": "{name: ve, sigma_min: 0.05, sigma_max: 20.0}",
        "factor": "0.2",
        "segments": "16",
        "more_segments": "[8, 16]",
        "points": "400",
        "features": "identity",
        "n": "500",
        "batch": "250",
    },
    "cifar10": {
        "about": "60,000 colour images of 32 x 32 pixels; set KFPBENCH_DATA_DIR, or: kfpbench data fetch cifar10",
        "data": "{name: cifar10, train_size: 5000}",
        "score": "{name: empirical}",
        "score_about": "exact for the training rows, where solvers end.\n# {name: unet} is a trained network",
        "process": "{name: ve, sigma_min: 0.02, sigma_max: 80.0}",
        "factor": "1.0",
        "segments": "4",
        "more_segments": "[2, 4]",
        "points": "1000",
        "features": "cifar_cnn",
        "n": "250",
        "batch": "50",
    },
}

_TEXT = """\
# A suite of kfpbench: which samplers are compared, on which data, by which numbers. Change it, then
#   kfpbench validate {file}
# checks every line and says where something is wrong, and
#   kfpbench run {file}
# runs it; the same command again goes on where it stopped. `kfpbench ls` lists everything that can be named here, and
# `kfpbench schema` describes it to your editor.
schema_version: 1
name: {name}
description: Does a spectral sampler keep up with an ordinary solver on {data_name}, and at what cost?
seed: 0          # everything random follows from it: sample i depends on (seed, i) alone
repeats: 1       # repeat r uses seed + r; 3 or more show how much luck there is

# {about}
# While you choose parameters, compare with `reference: validation`: the test split is for the final numbers.
data: {data}

# The score, grad log p_t, that every sampler is given: {score_about}
score: {score}

# Forward noising: data + sigma * noise ("ve"); also vp and ou.
process: {process}

samplers:
  # The spectral sampler: the generator of the reverse process in a reproducing kernel Hilbert space, its
  # eigenfunctions, and samples as their linear combinations. It evaluates the score while it is set up, and never while
  # it samples.
  - name: koopman
    label: spectral               # the name in tables, figures and in `grid:` below
    kernel: {{name: rbf, bandwidth: median, factor: {factor}}}    # or matern52, sum, ...: kfpbench ls kernels
    operator:
      eta: 0.0                    # 0: probability flow; 1: reverse SDE
      time: piecewise             # the operator is frozen within each of `segments` parts of the time axis
      segments: {segments}
      frame: whitened             # coordinates in which the Gaussian part is exact, so that the kernel learns the rest
      points: {points}    # at which the operator is fitted: cost grows with their square and cube
    eigensolver: {{name: dense, truncation: 1.0e-6, max_rank: 300}}
    backend: dense                # how kernel matrices are kept: dense, tiled, keops or auto

  # What it must beat: the sampler that takes the data for Gaussian, without a kernel and without steps,
  - name: gaussian
  # and an ordinary solver, here Heun's method on the probability flow, with two evaluations of the score a step.
  - name: pf_ode_heun
    label: heun
    steps: 9

# The ablation: every value of every path, samplers by their label. Add a line, and all combinations are run.
grid:
  samplers.spectral.operator.segments: {more_segments}

metrics:
  - {{name: frechet, features: {features}}}    # distance of means and covariances
  - energy_distance
  - precision_recall              # fidelity and diversity apart
  - nearest_train                 # are these copies of training rows?

n_samples: {n}    # drawn by each sampler, and compared with as many reference rows
batch_size: {batch}   # at which throughput is timed; latency is timed at batch 1
budget: {{seconds: 600}}    # a cell that takes longer is recorded as timed out, and the others go on

# Your own component is one Python file beside this one; naming it runs its code, so that `run` then asks for
# --allow-plugins.
# plugins: [my_kernel.py]
"""


def starter_text(data: str, file: Path) -> str:
    """The text of a first suite for a data set, to be written to ``file``. Raises ParameterError for another name."""
    if data not in DATA:
        raise ParameterError("no first suite for such data", got=data, allowed=", ".join(DATA))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).lstrip("._-") or "suite"
    if not isinstance(parse_value(name, "name"), str):  # 2026.yaml, null.yaml
        name = f'"{name}"'
    shown = file.name if file.name.isprintable() else "SUITE"  # in a comment, which a line end would close
    return _TEXT.format(file=shown, name=name, data_name=data, **DATA[data])


def write_starter(file: Path, data: str, *, overwrite: bool = False) -> None:
    """Write the suite. Raises StoreError where there is a file already, unless ``overwrite``, and where none can be."""
    from kfpbench.store.atomic import write_bytes

    text = starter_text(data, file)
    if file.is_dir() or (file.exists() and not overwrite):
        raise StoreError(
            "there is a folder of that name" if file.is_dir() else "the file exists; nothing was changed",
            got=str(file),
            remedy="Name another file." if file.is_dir() else "Name another file, or overwrite this one with --force.",
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, text.encode())
    except OSError as error:
        raise StoreError(f"the suite cannot be written: {error.strerror}", got=str(file)) from error
