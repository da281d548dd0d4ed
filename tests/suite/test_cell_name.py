"""A cell has one name, wherever it is told: the tables, the progress, the comparisons and the list of what failed."""

from __future__ import annotations

from kfpbench.report.aggregate import group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.naming import with_own_labels
from kfpbench.report.provenance import omissions
from kfpbench.report.speed_section import build_speed
from kfpbench.runner.progress import describe
from kfpbench.runner.timing_record import TimedMember, TimedSet, TimingRecord
from kfpbench.statistics.difference_table import unique_labels
from kfpbench.suite.cell import Cell
from kfpbench.suite.cell_name import cell_name, own_names

AXES = [{"samplers.heun.steps": 9}, {"samplers.heun.steps": 18}]


def record(axes: dict[str, int], status: str = "ok") -> dict:
    return {"cell": f"c{axes}", "label": "heun", "kind": "sample", "status": status, "reason": "no", "axes": axes,
            "spec": {"data": {"name": "digits"}, "sampler": {"name": "heun", **axes}}}  # fmt: skip


def test_the_axes_that_differ_follow_in_brackets() -> None:
    made = own_names(["heun", "heun", "em"], [*AXES, {"samplers.em.steps": 5}])
    assert made == ["heun (steps 9)", "heun (steps 18)", "em"]
    axes = [{"n_samples": 5, "data.name": name} for name in ("x", "y")]
    assert own_names(["a", "a"], axes) == ["a (data x)", "a (data y)"]
    assert cell_name("heun", {}) == "heun"
    assert (
        cell_name("k", {"rank": 8, "kernel": {"name": "rbf", "factor": 0.5}}) == "k (rank 8, kernel rbf (factor 0.5))"
    )


def test_every_place_calls_a_cell_the_same() -> None:
    records = [record(axes) for axes in AXES]
    groups = group_repeats(read_cells(records))
    wanted = ["heun (steps 9)", "heun (steps 18)"]
    assert [group.label for group in with_own_labels(groups)] == wanted
    assert unique_labels([[one] for one in records]) == wanted
    cell = Cell(0, "id", "sample", "heun", AXES[0], 0, 0, {"data": {"name": "digits"}})
    assert describe(cell) == f"digits: {wanted[0]}"
    (failed,) = omissions(read_cells([record(AXES[0], "failed")]))
    assert failed.labels == ("heun on digits (steps 9)",)
    members = {str(i): TimedMember(str(i), "heun", axes) for i, axes in enumerate(AXES)}
    timed = TimedSet("digits", "cpu", "float32", "0", members, left_out={"0": "no", "1": "no"})
    (section,) = build_speed(TimingRecord({}, {}, [timed]))
    assert [label for label, _ in section.left_out] == wanted
