"""Every installed component can be written in a suite."""

from __future__ import annotations

import pytest

from kfpbench.errors import SuiteError
from kfpbench.protocols import KINDS
from kfpbench.registry import available
from kfpbench.suite.components import check_block, create
from kfpbench.suite.load import suite_from_mapping
from kfpbench.suite.signature import read_signature

INSTALLED = [(kind, name) for kind in KINDS for name in available(kind)]


@pytest.mark.parametrize(("kind", "name"), INSTALLED, ids=["-".join(pair) for pair in INSTALLED])
def test_its_parameters_can_be_read_and_its_defaults_built(kind: str, name: str) -> None:
    component = available(kind)[name].load()
    assert read_signature(component).component is component
    checked = check_block(kind, name)
    # parameters without a default are the only thing that a bare name may lack
    assert all("is missing" in problem.what for problem in checked.problems), checked.problems
    if checked.block is not None:
        assert isinstance(create(kind, checked.block), component)


def test_a_suite_of_built_in_components() -> None:
    suite = suite_from_mapping(
        {
            "name": "built_in",
            "data": {"name": "gmm_ring", "train": 500},
            "score": "mixture",
            "process": "vp",
            "samplers": [{"name": "koopman", "kernel": {"name": "rbf"}}, {"name": "pf_ode_heun", "steps": 5}],
            "metrics": ["energy_distance", {"name": "frechet", "features": {"name": "pca", "components": 2}}],
            "grid": {
                "samplers.koopman.operator.eta": [0, 1],
                "samplers.koopman.backend": ["dense", "tiled"],
                "samplers.pf_ode_heun.steps": [5, 10, 20],
            },
        }
    )
    assert [cell.label for cell in suite.cells] == ["koopman"] * 4 + ["pf_ode_heun"] * 3
    for cell in suite.cells:
        create("samplers", cell.spec["sampler"])


def test_two_metrics_that_report_one_name_are_refused_where_they_stand() -> None:
    document = {
        "name": "clash",
        "data": "digits",
        "score": "empirical",
        "process": "ve",
        "samplers": ["gaussian"],
        "metrics": ["energy_distance", "frechet", {"name": "frechet", "features": "identity"}],
    }
    with pytest.raises(SuiteError, match=r"metrics\[?\.?2\]?.*frechet is reported by metrics.1 too"):
        suite_from_mapping(document)
