from __future__ import annotations

from collections.abc import Callable

import pytest

from kfpbench.suite.loaded import Suite

Load = Callable[..., Suite]
Refused = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("n_samples=7", ("n_samples",), 7),
        ("data.size=7", ("data", "size"), 7),
        ("data=ring", ("data",), {"name": "ring", "modes": 8, "reference": "test", "train_size": None}),
        ("data={name: ring, modes: 3}", ("data", "modes"), 3),
        ("data.reference=validation", ("data", "reference"), "validation"),
        ("process.t_max=1e-3", ("process", "t_max"), 1e-3),
        ("samplers.spectral.operator.eta=0", ("sampler", "operator", "eta"), 0.0),
        ("samplers.spectral.operator.frame=whitened", ("sampler", "operator", "frame"), "whitened"),
        ("samplers.spectral.kernel.name=rough", ("sampler", "kernel", "nu"), 0.5),
        ("samplers.spectral.refiner={name: steps, steps: 2}", ("sampler", "refiner", "steps"), 2),
        ("samplers.spectral.name=spectral", ("sampler", "name"), "spectral"),
        ("metrics=[]", ("metrics",), []),
        ("metrics.distance.features=projected", ("metrics", 0, "features", "components"), 2),
        ("budget.seconds=3", ("budget", "seconds"), 3.0),
        ("budget.seconds=null", ("budget", "seconds"), None),
        ("budget.seconds=", ("budget", "seconds"), None),
    ],
)
def test_overrides(load: Load, base: str, override: str, path: tuple[str | int, ...], value: object) -> None:
    found = load(base, overrides=[override]).cells[0].spec
    for part in path:
        found = found[part]
    assert found == value


def test_later_overrides_win_and_see_earlier_ones(load: Load, base: str) -> None:
    suite = load(base, overrides=["data=ring", "data.modes=3", "data.modes=4", "name=again", "repeats=2"])
    assert suite.cells[0].spec["data"]["modes"] == 4
    assert (suite.model.name, len(suite.cells)) == ("again", 4)
    assert suite.overrides == ("data=ring", "data.modes=3", "data.modes=4", "name=again", "repeats=2")
    assert suite.document["data"] == {"name": "ring", "modes": 4}


def test_axes_can_be_added_and_replaced(load: Load, base: str) -> None:
    text = base + "grid: {samplers.heun.steps: [1, 2, 3]}\n"
    overrides = ["grid.samplers.heun.steps=[4, 5]", "grid.data.size=[1, 2]"]
    assert len(load(text, overrides=overrides).cells) == 2 * (1 + 2)
    assert len(load(text, overrides=["grid={}"]).cells) == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "an override is path=value; got 'seed'; allowed: seed=3"),
        ("=3", "an override is path=value; got '=3'; allowed: seed=3"),
        ("sed=3", "unknown path; got 'sed'; allowed: {keys}. Did you mean 'seed'?"),
        ("seed=x", "seed cannot have this value; got 'x'; allowed: an integer"),
        ("seed='3'", "seed cannot have this value; got '3'; allowed: an integer. Remove the quotes."),
        ("seed.x=3", "the path goes on below a single value; got 'seed.x'; allowed: seed"),
        ("seed=[1", "not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>' "
                    "(at value:1:3)"),
        ("seed={a: 1, a: 2}", "duplicate key; the first is at value:1:2 (at value:1:8); got 'a'"),
        ("data.size=0", "size cannot have this value; got 0; allowed: more than 0"),
        ("data={name: toy, sise: 3}", "unknown key; got 'sise'; allowed: name, reference, train_size, size, folder. "
                                      "Did you mean 'size'?"),
        ("data..size=3", "unknown path; got 'data..size'; allowed: data.name, data.reference, data.train_size, "
                         "data.size, data.folder"),
        ("samplers.spectral.rank=101", "rank is larger than anyone needs; got 101; allowed: up to 100"),
        ("samplers.huen.steps=3", "no entry of samplers has that label; got 'samplers.huen.steps'; allowed: "
                                  "samplers.spectral, samplers.heun. Did you mean 'samplers.heun'?"),
        ("spectrum.eig.points=3", "no entry of spectrum has that label; got 'spectrum.eig.points'; allowed: none, "
                                  "the list is empty"),
        ("samplers.spectral.cutoff.x=3", "samplers.spectral.cutoff is a single value, and the path goes on below it; "
                                         "got 'samplers.spectral.cutoff.x'"),
        ("plugins=[x.py]", "cannot be overridden; got 'plugins'. Edit the suite."),
        ("include=[x.yaml]", "cannot be overridden; got 'include'. Edit the suite."),
        ("schema_version=1", "cannot be overridden; got 'schema_version'. Edit the suite."),
        ("n_samples=5", "the grid sets this path in every cell; got 'n_samples'. Override the axis: --set "
                        "'grid.n_samples=[...]'."),
        ("process.t_max=5", "the grid sets this path in every cell; got 'process.t_max'. Override the axis: --set "
                            "'grid.process=[...]'."),
        ("grid.n_sample=[5]", "unknown path; got 'n_sample'; allowed: {axes}, samplers.spectral.*, samplers.heun.*. "
                              "Did you mean 'n_samples'?"),
    ],
)  # fmt: skip
def test_faults_are_located_at_the_override(refused: Refused, base: str, override: str, expected: str) -> None:
    from kfpbench.suite.schema import AXIS_FIELDS, SuiteModel

    text = base + "grid: {n_samples: [5, 6], process: [bridge]}\n"
    expected = expected.replace("{keys}", ", ".join(SuiteModel.model_fields)).replace("{axes}", ", ".join(AXIS_FIELDS))
    assert refused(text, overrides=[override]) == [f"--set {override}: {expected}"]


def test_null_has_nothing_below_it(refused: Refused, base: str) -> None:
    text = base.replace("eta: 0.5", "eta: 0.5\n    refiner: null")
    assert refused(text, overrides=["samplers.spectral.refiner.steps=3"]) == [
        "--set samplers.spectral.refiner.steps=3: samplers.spectral.refiner is null, so nothing below it can be set. "
        "Set the whole block."
    ]


def test_an_override_may_repair_a_suite(load: Load, base: str) -> None:
    suite = load(base.replace("size: 20", "sise: 20").replace("name: toy", "name: toi"), overrides=["data=toy"])
    assert suite.cells[0].spec["data"]["size"] == 10
