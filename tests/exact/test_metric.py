"""The metric exact_w2 in a suite: what it records, and what becomes of a cell in which it cannot be taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.exact.exact_errors import exact_errors
from kfpbench.metrics.exact_w2 import OUTPUTS, ExactWasserstein
from kfpbench.protocols import MetricInput
from kfpbench.runner.execute import run
from kfpbench_baselines.pf_ode_heun import ProbabilityFlowHeun


@pytest.fixture
def given(gaussian, make_problem):
    problem = make_problem(gaussian)
    rows = problem.dataset.train
    fitted = ProbabilityFlowHeun(6).fit(problem)
    return MetricInput(rows, rows, rows, problem.dataset, "known/test", 0, fitted, problem)


def test_it_measures_the_sampler_and_not_the_samples(given):
    expected = exact_errors(given.sampler, given.problem)
    for data in (given, replace(given, samples=given.samples + np.float32(3.0))):
        found = ExactWasserstein().evaluate(data)
        assert [each.metric for each in found] == list(OUTPUTS)
        values = [expected.total, expected.data, expected.discretisation, expected.initialisation]
        assert [each.value for each in found] == values
        assert all(each.ci_low is None and each.n is None for each in found)
        assert found[0].details["dtype"] == "float64"
        assert found[0].details["accuracy"] < 1e-10


def test_samples_alone_are_refused(given):
    with pytest.raises(CapabilityError, match="was given samples alone"):
        ExactWasserstein().evaluate(replace(given, sampler=None))
    with pytest.raises(CapabilityError, match="at most 10"):
        ExactWasserstein(max_rows=10).evaluate(given)
    with pytest.raises(ParameterError, match="max_rows"):
        ExactWasserstein(max_rows=0)


def test_in_a_suite_a_cell_without_a_law_stays_ok_and_says_why(tmp_path):
    suite = {
        "name": "exact",
        "data": {"name": "mixture1d", "train": 100, "validation": 20, "test": 60},
        "score": "mixture",
        "process": {"name": "ve", "sigma_min": 0.1, "sigma_max": 10.0},
        "samplers": [{"name": "pf_ode_heun", "steps": 5}, {"name": "euler_maruyama", "steps": 5}],
        "metrics": ["exact_w2", "energy_distance"],
        "n_samples": 40,
        "latency_repeats": 1,
        "dtype": "float64",
        "device": "cpu",
    }
    result = run(suite, out=tmp_path / "run")
    assert result.exit_code == 0
    heun, maruyama = result.records
    assert (heun.status, maruyama.status) == ("ok", "ok")
    measured = [{entry["metric"] for entry in record.measurements} for record in (heun, maruyama)]
    assert measured[0] >= {*OUTPUTS, "energy_distance", "nfe"}
    assert "skipped_metrics" not in heun.details
    assert not measured[1] & {*OUTPUTS}
    assert measured[1] >= {"energy_distance", "nfe"}
    reason = maruyama.details["skipped_metrics"]["exact_w2"]
    assert "adds noise on its way" in reason
    (value,) = [entry["value"] for entry in heun.measurements if entry["metric"] == "exact_w2"]
    table = result.frame
    assert table[table["metric"] == "exact_w2"]["value"].tolist() == [value]
