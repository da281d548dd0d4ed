"""The contract of metrics: declared outputs, ordered intervals, validated input, nothing that depends on row order.

Inputs are 60 normal rows in 5 coordinates against 60 reference rows and 200 training rows of the same law.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, KfpbenchError, NumericalError, ShapeError
from kfpbench.protocols import Measurement, MetricInput, MetricPlugin
from kfpbench.testing.contract import Contract, ContractError, NotApplicableError, require
from kfpbench.testing.snapshots import changed, snapshot

CONTRACT = Contract("metrics")
_ROWS, _TRAIN, _DIMENSION = 60, 200, 5
_CLEARLY = 0.05  # of the largest change: sampling noise between two good sets is less
_DIRECTIONS = ("lower", "higher", "neither")
Rows = NDArray[np.float32]


def make_input(samples: Rows, reference: Rows, train: Rows, seed: int = 0) -> MetricInput:
    """The input of an evaluation against test rows; training rows have two classes, by their first column."""
    labels = (train[:, 0] > np.median(train[:, 0])).astype(np.int64)
    dataset = Dataset("contract", train, reference, reference, train_labels=labels, fingerprint="contract")
    return MetricInput(samples, reference, train, dataset, "test", seed)


def clouds(rows: int = _ROWS) -> tuple[Rows, Rows, Rows]:
    """Samples, reference and training rows, three independent draws of one law."""
    random = np.random.default_rng(0)
    sizes = (rows, rows, _TRAIN)
    samples, reference, train = (random.standard_normal((n, _DIMENSION)).astype(np.float32) for n in sizes)
    return samples, reference, train


@CONTRACT
def measures_what_it_declares(metric: MetricPlugin) -> None:
    """``evaluate`` returns one Measurement for each name in ``outputs``, in that order, whose directions are legal."""
    outputs: Any = metric.outputs
    legal = isinstance(outputs, dict) and bool(outputs) and all(value in _DIRECTIONS for value in outputs.values())
    allowed = "{name: 'lower' | 'higher' | 'neither'}, what is better"
    require(legal, "outputs is not a dictionary from names to directions", got=outputs, allowed=allowed)
    found = metric.evaluate(make_input(*clouds()))
    require(
        isinstance(found, list) and all(isinstance(each, Measurement) for each in found),
        "evaluate returns no list of Measurement",
        got=type(found).__name__,
    )
    names = [each.metric for each in found]
    remedy = "Name every measurement in `outputs`, in the order in which they are returned."
    require(
        names == list(outputs),
        "what is measured is not what is declared",
        got=names,
        allowed=list(outputs),
        remedy=remedy,
    )


@CONTRACT
def values_and_intervals_are_finite(metric: MetricPlugin) -> None:
    """Values are finite, ci_low <= value <= ci_high or both are None, and n is the number of rows or None."""
    for each in metric.evaluate(make_input(*clouds())):
        require(math.isfinite(each.value), f"{each.metric} is not finite", got=each.value)
        ends = (each.ci_low, each.ci_high)
        given = [end for end in ends if end is not None]
        require(len(given) != 1, f"{each.metric} has half an interval", got=ends, allowed="two numbers, or None twice")
        if given:
            require(all(math.isfinite(end) for end in given), f"{each.metric}: an interval is not finite", got=ends)
            ordered = given[0] <= each.value <= given[1]
            require(
                ordered,
                f"{each.metric} is not within its interval",
                got=(given[0], each.value, given[1]),
                allowed="ci_low <= value <= ci_high",
            )
        require(each.n in (None, _ROWS), f"{each.metric} reports another n", got=each.n, allowed=_ROWS)


@CONTRACT
def records_details_in_json(metric: MetricPlugin) -> None:
    """``details`` of a measurement can be held by JSON."""
    for each in metric.evaluate(make_input(*clouds())):
        try:
            json.dumps(each.details)
        except (TypeError, ValueError) as error:
            raise ContractError(
                f"details of {each.metric} cannot be held by JSON: {error}",
                got=each.details,
                allowed="numbers, text, lists, dictionaries, None",
                remedy="Write arrays as float(...) or .tolist().",
            ) from error


@CONTRACT
def leaves_its_input_alone(metric: MetricPlugin) -> None:
    """``evaluate`` changes neither the rows nor the metric's parameters."""
    rows = clouds()
    copies = [part.copy() for part in rows]
    before = snapshot(metric)
    metric.evaluate(make_input(*rows))
    for name, part, copied in zip(("samples", "reference", "training rows"), rows, copies, strict=True):
        same = bool(np.array_equal(part, copied))
        remedy = "Work on a copy: the other metrics of the cell see the same arrays."
        require(same, f"evaluate changes the {name}", remedy=remedy)
    altered = changed(before, metric)
    require(not altered, "evaluate changes the metric", got=", ".join(altered))


@CONTRACT
def is_a_function_of_its_input(metric: MetricPlugin) -> None:
    """The same rows and the same seed give the same measurements, bit by bit."""
    one, other = (metric.evaluate(make_input(*clouds(), seed=3)) for _ in range(2))
    got = [[each.value for each in found] for found in (one, other)]
    require(
        one == other, "two evaluations of one input differ", got=got, remedy="Draw from a generator with data.seed."
    )


@CONTRACT
def does_not_depend_on_the_order_of_rows(metric: MetricPlugin) -> None:
    """Permuting samples or reference changes no value beyond rounding, 1e-6. Intervals resample rows, and may."""
    samples, reference, train = clouds()
    order = np.random.default_rng(1).permutation(_ROWS)
    straight = metric.evaluate(make_input(samples, reference, train))
    for name, first, second in (
        ("samples", samples[order], reference),
        ("reference rows", samples, reference[order]),
    ):
        for one, other in zip(straight, metric.evaluate(make_input(first, second, train)), strict=True):
            require(
                abs(one.value - other.value) <= 1e-6 * max(1.0, abs(one.value)),
                f"{one.metric} depends on the order of the {name}",
                got=[one.value, other.value],
                remedy="Rows are not paired: compare the two sets.",
            )


@CONTRACT
def directions_are_right(metric: MetricPlugin) -> None:
    """Each output with a direction prefers draws of the law itself to one of three bad sets of samples, at least.

    Those are draws displaced by 10 standard deviations, copies of training rows, and near copies of one reference row;
    the preference must be clear, above 5 % of the largest change that a bad set makes.
    """
    samples, reference, train = clouds()
    jitter = 1e-3 * np.random.default_rng(2).standard_normal(samples.shape).astype(np.float32)
    bad = {"displaced": samples + np.float32(10.0), "copied": train[:_ROWS].copy(), "collapsed": reference[:1] + jitter}
    directed = [name for name, direction in metric.outputs.items() if direction != "neither"]
    if not directed:
        raise NotApplicableError("no output has a direction")
    good = _values(metric, make_input(samples, reference, train))
    found = {name: _values(metric, make_input(rows, reference, train)) for name, rows in bad.items()}
    for output in directed:
        sign = 1.0 if metric.outputs[output] == "lower" else -1.0
        losses = [sign * (values[output] - good[output]) for values in found.values()]
        require(
            max(losses) > _CLEARLY * max(abs(loss) for loss in losses),
            f"{output} prefers every bad set of samples to good ones, or does not tell them apart",
            got={"good": good[output], **{name: values[output] for name, values in found.items()}},
            allowed=f"{metric.outputs[output]} is better, as declared",
            remedy="Check the sign of the metric, and the direction in `outputs`.",
        )


@CONTRACT
def takes_few_rows(metric: MetricPlugin) -> None:
    """With 2, 3 or 8 rows values are finite, or the metric refuses them by an error of kfpbench."""
    for rows in (2, 3, 8):
        try:
            found = metric.evaluate(make_input(*clouds(rows)))
        except KfpbenchError:
            continue
        for each in found:
            require(math.isfinite(each.value), f"{each.metric} of {rows} rows is not finite", got=each.value)


@CONTRACT
def refuses_bad_rows(metric: MetricPlugin) -> None:
    """Unequal numbers of rows or columns raise ShapeError, NaN and infinity in the samples NumericalError."""
    samples, reference, train = clouds()
    broken = samples.copy()
    broken[7, 1] = np.nan
    infinite = samples.copy()
    infinite[7, 1] = np.inf
    attempts: dict[str, tuple[MetricInput, type[KfpbenchError]]] = {
        "fewer samples than reference rows": (make_input(samples[:-1], reference, train), ShapeError),
        "fewer columns in the samples": (make_input(samples[:, :-1], reference, train), ShapeError),
        "NaN in the samples": (make_input(broken, reference, train), NumericalError),
        "infinity in the samples": (make_input(infinite, reference, train), NumericalError),
    }
    for what, (data, wanted) in attempts.items():
        try:
            found: Any = [each.value for each in metric.evaluate(data)]
        except wanted:
            continue
        except CapabilityError:
            raise
        except Exception as error:  # a stranger's metric may fail in any way
            found = f"{type(error).__name__}: {error}"
        raise ContractError(
            f"{what}: not refused by {wanted.__name__}",
            got=found,
            allowed=wanted.__name__,
            remedy="Call kfpbench.metrics.inputs.check_input(data) first.",
        )


def _values(metric: MetricPlugin, data: MetricInput) -> dict[str, float]:
    return {each.metric: each.value for each in metric.evaluate(data)}
