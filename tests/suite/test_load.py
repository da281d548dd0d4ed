# ruff: noqa: E501  (whole messages are expected, each on its line)
from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from kfpbench import registry
from kfpbench.errors import SuiteError
from kfpbench.suite.load import expand, load_suite, suite_from_mapping
from kfpbench.suite.loaded import Suite

Load = Callable[..., Suite]
Refused = Callable[..., list[str]]


def test_a_suite_with_all_its_defaults(load: Load, base: str) -> None:
    suite = load(base)
    assert suite.text == base
    assert suite.path is not None
    assert suite.path.name == "suite.yaml"
    assert suite.document["score"] == {"name": "exact"}
    assert (suite.model.name, suite.model.repeats, suite.model.n_samples) == ("demo", 1, 1000)
    assert [(cell.index, cell.kind, cell.label) for cell in suite.cells] == [
        (0, "sample", "spectral"),
        (1, "sample", "heun"),
    ]
    assert suite.cells[1].spec == {
        "data": {"name": "toy", "size": 20, "folder": None, "reference": "test", "train_size": None},
        "score": {"name": "exact"},
        "process": {"name": "bridge", "t_max": 1.0},
        "sampler": {"name": "steps", "steps": 5, "corrector": False},
        "metrics": [{"name": "distance", "features": {"name": "raw_rows"}, "weights": [1.0, 2.0]}],
        "n_samples": 1000,
        "batch_size": 250,
        "latency_repeats": 10,
        "seed": 0,
        "device": "auto",
        "dtype": "float32",
        "budget": {"seconds": None, "memory_gib": None},
    }
    assert expand(suite) == list(suite.cells)


def test_a_spectrum_needs_no_sampler(load: Load) -> None:
    suite = load(
        """\
        name: eigenpairs
        data: toy
        score: exact
        process: bridge
        spectrum:
          - {points: 50, operator: {eta: 0}}
          - {label: fine, points: 500, at: 1}
        """
    )
    first, second = suite.cells
    assert (first.kind, first.label, second.label) == ("spectrum", "spectrum", "fine")
    assert "sampler" not in first.spec
    assert first.spec["spectrum"] == {
        "kernel": {"name": "gauss", "bandwidth": "median"},
        "operator": {"eta": 0.0, "frame": "raw"},
        "points": 50,
        "n_eigs": 6,
        "at": None,
    }
    assert second.spec["spectrum"]["at"] == 1.0


# One change to the base suite each: what replaces what, and the whole of the error.
CHANGES = [
    ("score: exact", "scor: exact", [
        "suite.yaml:3:1: unknown key; got 'scor'; allowed: seed, device, dtype, n_samples, batch_size, "
        "latency_repeats, budget, schema_version, name, description, repeats, data, score, process, samplers, "
        "spectrum, grid, metrics, timing, cache, isolate, plugins, include, claim, study. Did you mean 'score'?",
        "suite.yaml:1:1: the required key 'score' is missing. A sampler needs a score and a process.",
    ]),
    ("name: demo", "name: demo\nname: again", [
        "suite.yaml:2:1: duplicate key; the first is at suite.yaml:1:1; got 'name'. Keep one of them."
    ]),
    ("name: demo", "name: my demo", [
        "suite.yaml:1:7: name cannot have this value; got 'my demo'; allowed: text that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$"
    ]),
    ("name: demo", "name: ../demo", [
        "suite.yaml:1:7: name cannot have this value; got '../demo'; allowed: text that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$"
    ]),
    ("name: demo", "name: 3", ["suite.yaml:1:7: name cannot have this value; got 3; allowed: text"]),
    ("name: demo\n", "", ["suite.yaml:1:1: the required key 'name' is missing"]),
    ("name: demo", "name: demo\nseed: -1", ["suite.yaml:2:7: seed cannot have this value; got -1; allowed: at least 0"]),
    ("name: demo", "name: demo\nseed: 1.0", ["suite.yaml:2:7: seed cannot have this value; got 1.0; allowed: an integer"]),
    ("name: demo", "name: demo\nseed: '1'", [
        "suite.yaml:2:7: seed cannot have this value; got '1'; allowed: an integer. Remove the quotes."
    ]),
    ("name: demo", "name: demo\nrepeats: 0", ["suite.yaml:2:10: repeats cannot have this value; got 0; allowed: at least 1"]),
    ("name: demo", "name: demo\nrepeats: true", [
        "suite.yaml:2:10: repeats cannot have this value; got True; allowed: an integer"
    ]),
    ("name: demo", "name: demo\nrepeats: 1000000", [
        "suite.yaml:2:1: too many cells; got 2000000; allowed: at most 20000"
    ]),
    ("name: demo", "name: demo\ndevice: gpu", [
        "suite.yaml:2:9: device cannot have this value; got 'gpu'; allowed: text that matches ^(auto|cpu|cuda(:[0-9]+)?)$"
    ]),
    ("name: demo", "name: demo\ndtype: float23", [
        "suite.yaml:2:8: dtype cannot have this value; got 'float23'; allowed: 'float32' or 'float64'. "
        "Did you mean 'float32'?"
    ]),
    ("name: demo", "name: demo\nn_samples: 1e3", [
        "suite.yaml:2:12: n_samples cannot have this value; got 1000.0; allowed: an integer"
    ]),
    ("name: demo", "name: demo\nbudget: {seconds: .inf}", [
        "suite.yaml:2:19: budget.seconds cannot have this value; got inf; allowed: a finite number"
    ]),
    ("name: demo", "name: demo\nbudget: {second: 1}", [
        "suite.yaml:2:10: unknown key in budget; got 'second'; allowed: seconds, memory_gib. Did you mean 'seconds'?"
    ]),
    ("name: demo", "name: demo\nschema_version: 2", [
        "suite.yaml:2:17: the suite was written for a newer schema than this version of kfpbench knows; got 2; "
        "allowed: 1. Upgrade kfpbench."
    ]),
    ("name: demo", "name: demo\nschema_version: 0", [
        "suite.yaml:2:17: schema_version cannot have this value; got 0; allowed: 1"
    ]),
    ("name: toy", "name: toi", [
        "suite.yaml:2:14: no component of datasets has that name; got 'toi'; allowed: {datasets}. "
        "Did you mean 'toy'?"
    ]),
    ("size: 20", "sise: 20", [
        "suite.yaml:2:19: unknown key; got 'sise'; allowed: name, reference, train_size, size, folder. "
        "Did you mean 'size'?"
    ]),
    ("size: 20", "size: .nan", ["suite.yaml:2:25: size cannot have this value; got nan; allowed: an integer"]),
    ("size: 20", "reference: train", [
        "suite.yaml:2:30: reference cannot have this value; got 'train'; allowed: 'test' or 'validation'"
    ]),
    ("size: 20", "train_size: 0", ["suite.yaml:2:31: train_size cannot have this value; got 0; allowed: at least 1"]),
    ("data: {name: toy, size: 20}", "data: [toy]", ["suite.yaml:2:7: data cannot have this value; got ['toy']; allowed: a mapping"]),
    ("data: {name: toy, size: 20}", "data: {size: 20}", [
        "suite.yaml:2:7: a component of datasets needs the key 'name'; got {'size': 20}"
    ]),
    ("{name: bridge}", "{name: bridge, t_max: .inf}", [
        "suite.yaml:4:32: t_max cannot have this value; got inf; allowed: a finite number"
    ]),
    ("eta: 0.5", "eta: -1", ["suite.yaml:8:12: eta cannot have this value; got -1; allowed: at least 0"]),
    ("eta: 0.5", "eta: 11", ["suite.yaml:8:12: eta is too large; got 11.0; allowed: up to 10. Lower it."]),
    ("eta: 0.5", "etc: 1", [
        "suite.yaml:8:7: unknown key; got 'etc'; allowed: eta, frame. Did you mean 'eta'?"
    ]),
    ("eta: 0.5", "eta: 0.5\n    rank: 101", [
        "suite.yaml:9:11: rank is larger than anyone needs; got 101; allowed: up to 100"
    ]),
    ("eta: 0.5", "eta: 0.5\n    rank: 13", ["suite.yaml:6:5: the constructor failed: RuntimeError: thirteen"]),
    ("eta: 0.5", "eta: 0.5\n    refiner: {name: spectral, rank: 101}", [
        "suite.yaml:9:37: rank is larger than anyone needs; got 101; allowed: up to 100"
    ]),
    (", steps: 5", "", ["suite.yaml:9:5: the required key 'steps' is missing"]),
    ("label: heun", "label: spectral", [
        "suite.yaml:9:26: the label is taken already; got 'spectral'. Give each entry of samplers and spectrum its "
        "own `label`."
    ]),
    ("label: heun", "label: a.b", [
        "suite.yaml:9:26: not allowed as a label; got 'a.b'; allowed: letters, digits, - and _"
    ]),
    ("label: heun", "label: 3", [
        "suite.yaml:9:26: needs a label that is text; got {'label': 3, 'name': 'steps', 'steps': 5}"
    ]),
    ("[distance]", "[distanse]", [
        "suite.yaml:10:11: no component of metrics has that name; got 'distanse'; allowed: {metrics}. "
        "Did you mean 'distance'?"
    ]),
    ("[distance]", "[distance, {name: distance}]", [
        "suite.yaml:10:21: the same metric twice; got {'name': 'distance'}. Remove one."
    ]),
    ("[distance]", "[{name: distance, features: {name: projected, components: 2.5}}]", [
        "suite.yaml:10:68: components cannot have this value; got 2.5; allowed: an integer"
    ]),
    ("[distance]", "distance", ["suite.yaml:10:10: metrics cannot have this value; got 'distance'; allowed: a list"]),
    ("[distance]", "[3]", ["suite.yaml:10:11: metrics.0 cannot have this value; got 3; allowed: a mapping"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES, ids=[new for _, new, _ in CHANGES])
def test_every_problem_has_its_place(refused: Refused, base: str, old: str, new: str, expected: list[str]) -> None:
    assert base.count(old) >= 1
    names = {kind: ", ".join(registry.available(kind)) for kind in ("metrics", "datasets")}
    problems = refused(base.replace(old, new, 1))
    for kind, known in names.items():
        expected = [text.replace(f"{{{kind}}}", known) for text in expected]
    assert problems == expected


def test_all_problems_are_reported_at_once(refused: Refused, base: str) -> None:
    text = base.replace("eta: 0.5", "eta: x").replace("name: toy", "name: toi").replace("demo", "demo\nseed: -1")
    text = text.replace("steps: 5", "steps: 0") + "extra: 1\n"
    places = [problem.split(": ")[0] for problem in refused(text)]
    assert sorted(places) == [
        "suite.yaml:10:39",
        "suite.yaml:12:1",
        "suite.yaml:2:7",
        "suite.yaml:3:14",
        "suite.yaml:9:12",
    ]


def test_the_message_has_a_line_for_each_problem(load: Load, base: str) -> None:
    with pytest.raises(SuiteError) as caught:
        load(base.replace("size: 20", "size: 0").replace("steps: 5", "steps: 0"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 problems:"
    assert "suite.yaml:2:25: size" in lines[1]
    assert "suite.yaml:9:39: steps" in lines[2]
    copied = pickle.loads(pickle.dumps(caught.value))
    assert str(copied) == str(caught.value)
    assert len(copied.problems) == 2


def test_an_impossible_combination_is_left_to_the_runner(load: Load, base: str) -> None:
    suite = load(base.replace("eta: 0.5", "eta: 0.5\n    rank: 99"))  # its constructor raises CapabilityError
    assert suite.cells[0].spec["sampler"]["rank"] == 99


def test_nothing_to_run(refused: Refused, base: str) -> None:
    head = base[: base.index("samplers:")]
    says = "nothing to run: both samplers and spectrum are empty. Add an entry to one of them."
    assert refused(head) == [f"suite.yaml:1:1: {says}"]
    assert refused(head + "samplers: []\n") == [f"suite.yaml:5:11: {says}"]


def test_the_class_behind_spectrum_may_be_missing(refused: Refused, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfpbench.suite.components.SPECTRUM_TARGET", "kfpbench.no_such_module:Task")
    [problem] = refused(base + "spectrum:\n  - {points: 10}\n")
    assert problem.startswith("suite.yaml:12:5: the spectrum component 'spectrum' from kfpbench cannot be loaded")


def test_a_top_level_that_is_no_mapping(refused: Refused) -> None:
    assert refused("# comment\n- a\n- b\n") == [
        "suite.yaml:2:1: a suite is a mapping; got 'list'; allowed: keys such as `name:`, `data:`, `samplers:`"
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"the suite file does not exist; got '.*none\.yaml'"):
        load_suite(tmp_path / "none.yaml")
    with pytest.raises(SuiteError, match=r"a suite is a file, and this is a folder; .*`kfpbench report` shows it"):
        load_suite(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: demo\ndescription: é".encode("latin-1"))
    with pytest.raises(SuiteError) as caught:
        load_suite(latin)
    assert caught.value.where == f"{latin}:2:14"
    assert "not valid UTF-8" in str(caught.value)


def test_a_byte_order_mark_is_no_character(tmp_path: Path, base: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + base.encode())
    assert load_suite(path).model.name == "demo"


PLUGIN = """
import kfpbench

@kfpbench.register("kernels", "local_only")
class LocalOnly:
    def __init__(self, width: float = 1.0):
        self.width = width

    def __getattr__(self, name):  # no kernel is run here: it is said to have what the protocol asks for
        raise AttributeError(name)
"""


def test_plugins_run_only_when_they_are_allowed(load: Load, refused: Refused, base: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN + "\nopen(__file__ + '.ran', 'w').close()\n")
    text = base.replace("eta: 0.5", "eta: 0.5\n    kernel: local_only") + "plugins: [mine.py]\n"
    assert refused(text) == [
        "suite.yaml:12:1: the suite wants to run Python files of its own; got ['mine.py']. If you trust them, pass "
        "--allow-plugins (allow_plugins=True from Python)."
    ]
    assert not (tmp_path / "mine.py.ran").exists()
    suite = load(text, allow_plugins=True)
    assert suite.cells[0].spec["sampler"]["kernel"] == {"name": "local_only", "width": 1.0}


def test_broken_plugins_are_located(refused: Refused, base: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    [problem] = refused(base + "plugins:\n  - broken.py\n", allow_plugins=True)
    assert problem.startswith("suite.yaml:12:5: ")
    assert "ZeroDivisionError" in problem
    [problem] = refused(base + "plugins: [none.py]\n", allow_plugins=True)
    assert problem.startswith("suite.yaml:11:11: plugin file not found")


def mapping(**changes: object) -> dict[str, object]:
    return {
        "name": "demo",
        "data": {"name": "toy"},
        "score": "exact",
        "process": "bridge",
        "samplers": [{"name": "steps", "steps": 5}],
        **changes,
    }


def test_a_mapping_gives_the_same_cells_as_a_file(load: Load, tmp_path: Path) -> None:
    from_file = load("process: bridge\nscore: exact\ndata: toy\nname: demo\nsamplers: [{steps: 5, name: steps}]\n")
    from_python = suite_from_mapping(mapping(samplers=({"name": "steps", "steps": 5},)))
    assert from_python.path is None
    assert [cell.id for cell in from_python.cells] == [cell.id for cell in from_file.cells]
    (tmp_path / "again.yaml").write_text(from_python.text)  # its text is a suite, too
    assert [cell.id for cell in load_suite(tmp_path / "again.yaml").cells] == [cell.id for cell in from_file.cells]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed: seed cannot have this value; got -1; allowed: at least 0"),
        (
            {"samplers": [{"name": "steps", "steps": 0}]},
            "samplers.0.steps: steps cannot have this value; got 0; allowed: at least 1",
        ),
        ({"data": {"name": "toi"}}, "data.name: no component of datasets has that name; got 'toi'"),
        ({"data": {3: 4}}, "data: a key must be text; got 3"),
        ({"seed": 10**500}, "seed: the integer is too long"),
        ({"description": object}, "description: not a value that a suite may hold; got 'type'"),
        ({"description": "\ud800"}, "description: not valid text"),
        ({"plugins": ["x.py"]}, "plugins: plugins needs a folder to start from. Pass base_dir."),
        ({"include": ["x.yaml"]}, "include: include needs a folder to start from. Pass base_dir."),
    ],
)
def test_places_in_a_mapping_are_dotted_paths(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        suite_from_mapping(mapping(**changes))
    assert str(caught.value).startswith(message)


def test_a_mapping_that_contains_itself() -> None:
    loop: dict[str, object] = {}
    loop["loop"] = loop
    with pytest.raises(SuiteError, match="nested too deeply"):
        suite_from_mapping(mapping(data=loop))
    with pytest.raises(SuiteError, match="a suite is a mapping"):
        suite_from_mapping([])  # type: ignore[arg-type]


def test_a_mapping_with_a_folder(tmp_path: Path) -> None:
    (tmp_path / "shared.yaml").write_text("n_samples: 7\n")
    (tmp_path / "mine.py").write_text(PLUGIN)
    changes = mapping(include=["shared.yaml"], plugins=["mine.py"])
    suite = suite_from_mapping(changes, base_dir=tmp_path, allow_plugins=True, overrides=["seed=5"])
    with pytest.raises(SuiteError) as caught:
        suite_from_mapping({**changes, "n_samples": 0}, base_dir=tmp_path, allow_plugins=True)
    assert caught.value.where == "n_samples"  # not in the included file, whose value is replaced
    assert (suite.cells[0].spec["n_samples"], suite.cells[0].seed) == (7, 5)
    assert "local_only" in registry.available("kernels")
