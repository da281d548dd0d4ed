# ruff: noqa: E501  (whole messages are expected, each on its line)
from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from kfpbench.suite.cell import cell_id
from kfpbench.suite.loaded import Suite

Load = Callable[..., Suite]
Refused = Callable[..., list[str]]


def grid(base: str, text: str) -> str:
    """The base suite with a grid, whose first entry is on line 12."""
    return base + "grid:\n" + textwrap.indent(textwrap.dedent(text), "  ")


def plan(suite: Suite) -> list[tuple[str, tuple[object, ...]]]:
    return [(cell.label, tuple(cell.axes.values())) for cell in suite.cells]


def test_plan_order(load: Load, base: str) -> None:
    suite = load(
        grid(base, "samplers.spectral.rank: [1, 2]\nn_samples: [10, 20]\nsamplers.heun.steps: [3]\n") + "repeats: 2\n"
    )
    assert plan(suite)[::2] == [
        ("spectral", (10, 1)),
        ("spectral", (10, 2)),
        ("heun", (10, 3)),
        ("spectral", (20, 1)),
        ("spectral", (20, 2)),
        ("heun", (20, 3)),
    ]
    assert [cell.repeat for cell in suite.cells] == [0, 1] * 6
    assert [cell.seed for cell in suite.cells] == [0, 1] * 6
    assert [cell.spec["seed"] for cell in suite.cells] == [0, 1] * 6
    assert [cell.index for cell in suite.cells] == list(range(12))
    assert len({cell.id for cell in suite.cells}) == 12
    assert suite.cells[0].axes == {"n_samples": 10, "samplers.spectral.rank": 1}
    assert suite.axes == {
        "samplers.spectral.rank": [1, 2],
        "n_samples": [10, 20],
        "samplers.heun.steps": [3],
    }


def test_an_id_is_the_hash_of_the_spec_alone(load: Load, base: str) -> None:
    first, second = load(base).cells
    assert first.id == cell_id(first.spec)
    assert len(first.id) == 16
    assert int(first.id, 16) >= 0
    # other order of keys, defaults written out, another label, more cells: the same identity
    text = """\
        metrics: [{features: {name: raw_rows}, name: distance}]
        samplers:
          - {steps: 7, name: steps, label: more}
          - {name: spectral, label: renamed, rank: 4, kernel: {bandwidth: median, name: gauss}, operator: {eta: 0.5}}
          - {corrector: false, steps: 5, name: steps}
        process: bridge
        score: {name: exact}
        data: {size: 20, name: toy, reference: test}
        seed: 0
        name: other
        """
    other = load(text).cells
    assert [cell.label for cell in other] == ["more", "renamed", "steps"]
    assert [cell.id for cell in other[1:]] == [first.id, second.id]
    assert load(base.replace("size: 20", "size: 21")).cells[0].id != first.id


def test_equal_numbers_have_equal_ids(load: Load, base: str) -> None:
    ids = {load(base.replace("eta: 0.5", f"eta: {zero}")).cells[0].id for zero in ("0", "0.0", "-0.0", "0e3")}
    assert len(ids) == 1


def test_paths_that_vary_together(load: Load, base: str) -> None:
    suite = load(grid(base, '"data.name, score.name": [[toy, exact], [ring, exact]]\n').replace(", size: 20", ""))
    assert plan(suite) == [
        ("spectral", ("toy", "exact")),
        ("heun", ("toy", "exact")),
        ("spectral", ("ring", "exact")),
        ("heun", ("ring", "exact")),
    ]
    assert suite.cells[2].axes == {"data.name": "ring", "score.name": "exact"}
    assert suite.cells[2].spec["data"]["modes"] == 8


def test_an_axis_that_concerns_an_entry_in_part_counts_its_values_once(load: Load, base: str) -> None:
    suite = load(grid(base, '"data.size, samplers.spectral.rank": [[5, 1], [5, 2], [6, 3]]\n'))
    assert plan(suite) == [
        ("spectral", (5, 1)),
        ("heun", (5,)),
        ("spectral", (5, 2)),
        ("spectral", (6, 3)),
        ("heun", (6,)),
    ]


def test_paths_name_blocks_and_their_parts(load: Load, base: str) -> None:
    text = """\
        data: [{name: toy, size: 1}, ring]
        samplers.spectral.kernel: [gauss, {name: rough, nu: 1}]
        samplers.spectral.operator.eta: [0, 1]
        samplers.heun: [{name: steps, steps: 1}, {name: spectral, rank: 9}]
        """
    suite = load(grid(base, text))
    assert len(suite.cells) == 2 * (2 * 2 + 2)
    specs = [cell.spec for cell in suite.cells if cell.label == "spectral"]
    assert [spec["data"]["name"] for spec in specs] == ["toy"] * 4 + ["ring"] * 4
    assert [spec["sampler"]["kernel"]["name"] for spec in specs[:4]] == ["gauss", "gauss", "rough", "rough"]
    assert [spec["sampler"]["operator"]["eta"] for spec in specs[:4]] == [0.0, 1.0, 0.0, 1.0]
    assert [cell.spec["sampler"]["name"] for cell in suite.cells if cell.label == "heun"][:2] == [
        "steps",
        "spectral",
    ]


def test_a_name_is_set_before_the_parameters_that_depend_on_it(load: Load, base: str) -> None:
    suite = load(grid(base, "samplers.spectral.kernel.nu: [1, 2]\nsamplers.spectral.kernel.name: [rough]\n"))
    assert [cell.spec["sampler"]["kernel"]["nu"] for cell in suite.cells[:2]] == [1.0, 2.0]


def test_defaults_are_written_out_as_far_as_a_path_goes(load: Load, base: str) -> None:
    suite = load(grid(base, "samplers.spectral.kernel.bandwidth: [1, median]\nmetrics.distance.features: [raw_rows]"))
    assert [cell.spec["sampler"]["kernel"] for cell in suite.cells[:2]] == [
        {"name": "gauss", "bandwidth": 1.0},
        {"name": "gauss", "bandwidth": "median"},
    ]


def test_positions_in_lists_of_components(load: Load, base: str) -> None:
    text = base.replace("eta: 0.5", "eta: 0.5\n    kernel: {name: summed, kernels: [gauss, rough]}")
    suite = load(text + "grid: {samplers.spectral.kernel.kernels.1.nu: [1, 2]}\n")
    assert [cell.spec["sampler"]["kernel"]["kernels"][1]["nu"] for cell in suite.cells[:2]] == [1.0, 2.0]


def test_an_axis_may_supply_what_a_component_requires(load: Load, base: str) -> None:
    suite = load(grid(base.replace(", steps: 5", ""), "samplers.heun.steps: [1, 2]\n"))
    assert [cell.spec["sampler"]["steps"] for cell in suite.cells[1:]] == [1, 2]


def test_axes_of_a_spectrum(load: Load, base: str) -> None:
    text = "spectrum: [{label: eig}]\n"
    suite = load(base + text + "grid: {spectrum.eig.points: [10, 20], spectrum.eig.kernel.bandwidth: [1]}\n")
    assert [(cell.kind, cell.spec["spectrum"]["points"]) for cell in suite.cells[2:]] == [
        ("spectrum", 10),
        ("spectrum", 20),
    ]


def test_two_labels_for_the_same_cell_keep_the_first(load: Load, base: str) -> None:
    suite = load(base.replace("metrics:", "  - {name: steps, label: twin, steps: 5}\nmetrics:"))
    assert [cell.label for cell in suite.cells] == ["spectral", "heun"]
    assert suite.shared == {"twin": "heun"}


def test_settings_may_vary(load: Load, base: str) -> None:
    suite = load(grid(base, "dtype: [float32, float64]\nseed: [0, 10]\nbudget.seconds: [1]\nmetrics: [[distance]]\n"))
    assert {(cell.spec["dtype"], cell.seed) for cell in suite.cells} == {
        ("float32", 0),
        ("float32", 10),
        ("float64", 0),
        ("float64", 10),
    }


AXES = "data, score, process, metrics, seed, device, dtype, n_samples, batch_size, latency_repeats, budget"
FAULTS = [
    ("data.size: []", ["suite.yaml:12:14: grid.data.size cannot have this value; got []; allowed: a length of at least 1"]),
    ("data.size: 3", ["suite.yaml:12:14: grid.data.size cannot have this value; got 3; allowed: a list"]),
    ("name: [a]", [f"suite.yaml:12:3: 'name' cannot be an axis; got 'name'; allowed: {AXES}"]),
    ("repeats: [1]", [f"suite.yaml:12:3: 'repeats' cannot be an axis; got 'repeats'; allowed: {AXES}"]),
    ("plugins: [[a]]", [f"suite.yaml:12:3: 'plugins' cannot be an axis; got 'plugins'; allowed: {AXES}"]),
    ("dat.size: [1]", [
        f"suite.yaml:12:3: unknown path; got 'dat.size'; allowed: {AXES}, samplers.spectral.*, samplers.heun.*. "
        "Did you mean 'data'?"
    ]),
    ("data.sise: [1]", [
        "suite.yaml:12:3: unknown path; got 'data.sise'; allowed: data.name, data.reference, data.train_size, "
        "data.size, data.folder. Did you mean 'data.size'?"
    ]),
    ("data.size.x: [1]", ["suite.yaml:12:3: data.size is a single value, and the path goes on below it; got 'data.size.x'"]),
    ("seed.x: [1]", ["suite.yaml:12:3: the path goes on below a single value; got 'seed.x'; allowed: seed"]),
    ("budget.second: [1]", [
        "suite.yaml:12:3: unknown path; got 'budget.second'; allowed: budget.seconds, budget.memory_gib. "
        "Did you mean 'budget.seconds'?"
    ]),
    ("budget.seconds: [0]", ["suite.yaml:12:20: budget.seconds cannot have this value; got 0; allowed: more than 0"]),
    ("samplers.spectrl.rank: [1]", [
        "suite.yaml:12:3: no such entry; got 'samplers.spectrl.rank'; allowed: samplers.spectral.*, samplers.heun.*. "
        "Did you mean 'samplers.spectral'?"
    ]),
    ("samplers: [[]]", [
        "suite.yaml:12:3: no such entry; got 'samplers'; allowed: samplers.spectral.*, samplers.heun.*"
    ]),
    ("samplers.heun.label: [x]", ["suite.yaml:12:3: a label cannot be an axis; got 'samplers.heun.label'"]),
    ("samplers.spectral.operator.etta: [1]", [
        "suite.yaml:12:3: unknown path; got 'samplers.spectral.operator.etta'; allowed: "
        "samplers.spectral.operator.eta, samplers.spectral.operator.frame. Did you mean "
        "'samplers.spectral.operator.eta'?"
    ]),
    ("samplers.spectral.operator.eta: [0, -1]", [
        "suite.yaml:12:39: eta cannot have this value; got -1; allowed: at least 0"
    ]),
    ("samplers.spectral.operator.eta: [0, 11]", [
        "suite.yaml:12:39: eta is too large; got 11.0; allowed: up to 10. Lower it."
    ]),
    ("samplers.spectral.kernel: [gauss, gaus]", [
        "suite.yaml:12:37: no component of kernels has that name; got 'gaus'; allowed: {kernels}. Did you mean 'gauss'?"
    ]),
    ("samplers.spectral.kernel: [{name: gauss, bandwidth: 0}]", [
        "suite.yaml:12:55: bandwidth cannot have this value; got 0; allowed: more than 0 or 'median'"
    ]),
    ("metrics.distanc.weights: [[1]]", [
        "suite.yaml:12:3: no entry of metrics has that label; got 'metrics.distanc.weights'; allowed: metrics.distance. "
        "Did you mean 'metrics.distance'?"
    ]),
    ("metrics: [distance]", ["suite.yaml:12:13: metrics is not a list; got 'distance'; allowed: a list of metrics"]),
    ("samplers.spectral.kernel.kernels.0.nu: [1]", [
        "suite.yaml:12:3: unknown path; got 'samplers.spectral.kernel.kernels.0.nu'; allowed: "
        "samplers.spectral.kernel.name, samplers.spectral.kernel.bandwidth"
    ]),
    ("n_samples: [10, 1.5]", ["suite.yaml:12:19: n_samples cannot have this value; got 1.5; allowed: an integer"]),
    ("n_samples: [10, 10]", [
        "suite.yaml:12:19: the grid gives the same cell twice: this value makes no difference to an earlier one; "
        "got 10. Remove it."
    ]),
    ("samplers.spectral.operator.eta: [0, 1, 0.0]", [
        "suite.yaml:12:42: the grid gives the same cell twice: this value makes no difference to an earlier one; "
        "got 0.0. Remove it."
    ]),
    ("n_samples: [1]\n'n_samples, data.size': [[2, 3]]", [
        "suite.yaml:13:3: the path is an axis already; got 'n_samples'. See 'n_samples'."
    ]),
    ("'data.size, n_samples': [[1, 2], [1]]", [
        "suite.yaml:12:36: values of paths that vary together are lists, one item for each path; got [1]; "
        "allowed: a list of 2 items"
    ]),
    ("'data.size, n_samples': [[1, 2], [1, 0]]", [
        "suite.yaml:12:40: n_samples cannot have this value; got 0; allowed: at least 1"
    ]),
    ("'data.size,': [[1, 2]]", [
        f"suite.yaml:12:3: unknown path; got ''; allowed: {AXES}, samplers.spectral.*, samplers.heun.*"
    ]),
    ("data.name: [toy, ring]", [
        "suite.yaml:2:19: unknown key (in 2 of 4 cells, first where data.name=ring); got 'size'; allowed: name, "
        "reference, train_size, modes. Did you mean 'train_size'?"
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FAULTS, ids=[text for text, _ in FAULTS])
def test_faults_of_the_grid(refused: Refused, base: str, text: str, expected: list[str]) -> None:
    from kfpbench.registry import available

    kernels = ", ".join(available("kernels"))
    assert refused(grid(base, text)) == [line.replace("{kernels}", kernels) for line in expected]


def test_seeds_that_repeats_reach_too(refused: Refused, base: str) -> None:
    [problem] = refused(grid(base, "seed: [0, 1]\n") + "repeats: 2\n")
    assert problem.startswith("suite.yaml:12:13: the grid gives the same cell twice")


def test_a_grid_that_is_too_large_is_refused_at_once(refused: Refused, base: str) -> None:
    values = list(range(1, 101))
    text = f"n_samples: {values}\nbatch_size: {values}\nlatency_repeats: {values}\n"
    assert refused(grid(base, text)) == ["suite.yaml:11:1: too many cells; got 2000000; allowed: at most 20000"]


def test_a_problem_of_every_cell_is_reported_once(refused: Refused, base: str) -> None:
    problems = refused(grid(base.replace("eta: 0.5", "eta: -1"), "n_samples: [1, 2, 3]\n"))
    assert problems == ["suite.yaml:8:12: eta cannot have this value; got -1; allowed: at least 0"]
