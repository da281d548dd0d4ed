"""What a finding is, which cases there are, and which components are refused."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from torch import Tensor

from kfpbench import testing
from kfpbench.errors import CapabilityError, PluginError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.dense import DenseGram
from kfpbench.protocols import KINDS
from kfpbench.registry import available
from kfpbench.testing import missing_members, report


class NeedsParameters(RBF):
    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width


class NamesExamples(NeedsParameters):
    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"width": 1.0}, {"width": 2.0})


def test_required_parameters_without_examples_are_one_finding_with_its_remedy():
    (finding,) = report("kernels", NeedsParameters)
    assert (finding.check, finding.outcome) == ("constructs", "failed")
    assert "names no contract_examples" in finding.what
    assert finding.got == "required parameters: width"
    assert "contract_examples: ClassVar" in finding.remedy
    assert '{"width": ...}' in finding.remedy


def test_examples_are_cases():
    labels = [case.label for case in testing.cases("kernels", NamesExamples)]
    assert labels == ["NamesExamples(width=1.0)", "NamesExamples(width=2.0)"]
    assert len(report("kernels", NamesExamples)) == 2 * len(testing.checks("kernels"))


def test_missing_members_are_named():
    class NoKernel:
        def fit(self, points: Tensor, labels: Tensor) -> NoKernel:
            return self

    missing = missing_members("kernels", NoKernel)
    assert missing[0] == "the attribute smoothness"
    assert "the arguments of fit(points)" in missing[1]
    assert missing[2] == "the method describe()"
    assert missing[3].startswith("a formula: profile, or arguments and jet")
    (finding,) = report("kernels", NoKernel())
    assert finding.check == "has_the_members_of_its_protocol"
    assert finding.outcome == "failed"
    assert "lacks the attribute smoothness" in finding.what


def test_a_component_of_another_kind_lacks_members():
    assert "the method evaluate(data)" in missing_members("metrics", RBF)
    assert "the method fit(points)" in missing_members("kernels", DenseGram)


@pytest.mark.parametrize("kind", KINDS)
def test_registered_classes_have_the_shape_of_their_kind(kind):
    for entry in available(kind).values():
        assert missing_members(kind, entry.load()) == []


def test_a_kind_without_a_contract_is_refused():
    with pytest.raises(PluginError, match="no contract for this kind"):
        testing.checks("spells")


def test_a_capability_error_is_a_skip_with_its_reason():
    class Unavailable(DenseGram):
        def gram(self, kernel, x, centres):
            raise CapabilityError("no compiler")

    skipped = {f.check: f for f in report("backends", Unavailable) if f.outcome == "skipped"}
    assert "no compiler" in skipped["gram_matches_the_formula"].what
    assert not skipped["gram_matches_the_formula"].passed


def test_every_check_states_its_law():
    for kind in testing.KINDS:
        checks = testing.checks(kind)
        assert len({check.name for check in checks}) == len(checks)
        assert all(len(check.law) > 10 for check in checks)
