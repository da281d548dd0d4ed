"""The cells of a suite: time, memory, and every lower-is-better measure that they report.

``KFPBENCH_ASV_SUITE`` names the suite's YAML file; without it there is nothing here. Its `plugins:` are loaded where
``KFPBENCH_ASV_ALLOW_PLUGINS`` is 1, since they run code. A cell of its first repeat is one class, named after its label
and the values of its grid, so that a commit which expands the suite in another order is asked for the same cell.
"""

import math
import os
import re

from asv_runner.benchmarks.mark import SkipNotImplemented

from kfpbench.errors import CapabilityError
from kfpbench.runner.budget import time_budget
from kfpbench.runner.materials import Materials
from kfpbench.runner.sample_cell import Outcome, run_sample_cell
from kfpbench.runner.spectrum_cell import run_spectrum_cell
from kfpbench.suite.components import component_entry
from kfpbench.suite.load import load_suite

from .components import benchmark, load_plugin_files, once

SUITE, ALLOW = "KFPBENCH_ASV_SUITE", "KFPBENCH_ASV_ALLOW_PLUGINS"


def cell_name(cell):
    """``cell_<label>``, and the last key and the value of each axis: ``cell_spectral__segments_8__eta_0_0``."""
    axes = [f"{path.rpartition('.')[2]} {_short(value)}" for path, value in cell.axes.items()]
    words = [re.sub(r"\W+", "_", text).strip("_") for text in (cell.label, *axes)]
    return "cell_" + "__".join(word for word in words if word)


def _short(value):
    if isinstance(value, dict):
        return " ".join(f"{'' if key == 'name' else key} {_short(child)}" for key, child in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_short, value))
    return str(value)


def read_cells():
    """The cells of the first repeat by the names of their classes, in the order of the suite; {} without a suite.

    Raises SuiteError.
    """
    file = os.environ.get(SUITE)
    if not file:
        return {}
    load_plugin_files()
    found = {}
    for cell in load_suite(file, allow_plugins=os.environ.get(ALLOW) == "1").cells:
        if cell.repeat == 0:
            name = cell_name(cell)
            found[name if name not in found else f"{name}__{cell.id}"] = cell
    return found


class _Cell:
    """One cell, all its phases: fit, draws, metrics. It is run once before the timing, which loads data and score."""

    timeout = 3600
    repeat = (1, 3, 60.0)
    warmup_time = 0

    @once
    def setup(self):
        self.materials = Materials()
        self.outcome = self.run()

    def run(self):
        outcome = Outcome()
        try:
            with time_budget(self.cell.spec["budget"]["seconds"], f"cell {self.cell.label}") as deadline:
                if self.cell.kind == "sample":
                    run_sample_cell(self.cell, self.materials, deadline, outcome)
                else:
                    run_spectrum_cell(self.cell, self.materials, outcome)
        except CapabilityError as error:
            raise SkipNotImplemented(str(error)) from error
        return outcome

    def measured(self, name):
        values = [entry["value"] for entry in self.outcome.measurements if entry["metric"] == name]
        if not values or not math.isfinite(values[0]):
            raise SkipNotImplemented(f"{self.cell.label} reports no {name}")
        return values[0]

    def time_cell(self):
        self.run()

    @benchmark(unit="seconds")
    def track_setup_seconds(self):
        """The time of the fit, what is shared included."""
        return self.measured("setup_seconds")

    @benchmark(unit="bytes", type="memory")
    def track_memory(self):
        return self.measured("peak_memory_mib") * 2**20


class _SampleCell(_Cell):
    __doc__ = _Cell.__doc__

    @benchmark(unit="seconds")
    def track_seconds_per_image(self):
        """The median over the timed batches."""
        return self.measured("seconds_per_image")


def measures(cell):
    """The measures of a cell's metrics of which less is better: asv takes every rise for a worse result."""
    if cell.kind == "spectrum":
        return ["max_eigenvalue_error"] if cell.spec["score"] is None else []
    directions = {}
    for block in cell.spec["metrics"]:
        directions |= getattr(component_entry("metrics", block["name"]).load(), "outputs", {})
    return [name for name, direction in directions.items() if direction == "lower"]


def _track(output):
    def track(self):
        return self.measured(output)

    track.__name__ = track.__qualname__ = f"track_{output}"
    track.__doc__ = f"The measure {output} of the cell."
    return benchmark(unit=output)(track)


for _name, _found in read_cells().items():
    _base = _SampleCell if _found.kind == "sample" else _Cell
    _tracks = {f"track_{output}": _track(output) for output in measures(_found)}
    globals()[_name] = type(
        _name, (_base,), {"cell": _found, "__module__": __name__, "__doc__": _Cell.__doc__, **_tracks}
    )
