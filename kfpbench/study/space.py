"""The search space: which parameters are active, their values in a trial, and all points of a grid."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfpbench.suite.study_schema import ParameterBlock, is_integer, matches

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Values = dict[str, Any]  # of a configuration, by dotted path


@dataclass(frozen=True)
class Space:
    """The parameters by dotted path, those that others depend on first."""

    parameters: dict[str, ParameterBlock]

    @classmethod
    def of(cls, blocks: Mapping[str, ParameterBlock]) -> Space:
        """In an order in which conditions are known before what depends on them; there is no circle."""
        ordered: dict[str, ParameterBlock] = {}

        def add(path: str) -> None:
            if path not in ordered:
                for parent in blocks[path].when or ():
                    add(parent)
                ordered[path] = blocks[path]

        for path in blocks:
            add(path)
        return cls(ordered)

    def is_active(self, path: str, values: Mapping[str, Any]) -> bool:
        """Whether the conditions of a parameter hold, given the values of those before it."""
        return all(
            parent in values and any(matches(one, values[parent]) for one in _listed(wanted))
            for parent, wanted in (self.parameters[path].when or {}).items()
        )

    def suggest(self, trial: Trial) -> Values:
        """Ask the sampler for every active parameter. Optuna keeps a block that is chosen as its JSON text."""
        values: Values = {}
        for path, parameter in self.parameters.items():
            if not self.is_active(path, values):
                continue
            distribution = distribution_of(parameter)
            values[path] = _from_optuna(parameter, _suggest(trial, path, distribution))
        return values

    def values_of(self, params: Mapping[str, Any]) -> Values:
        """What the parameters of a stored trial stand for, in the order of the space."""
        return {path: _from_optuna(one, params[path]) for path, one in self.parameters.items() if path in params}

    def shown(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as people read them: of a block its name, and what tells it from the other choices; four digits."""
        return {path: shown_choice(self.parameters[path], value) for path, value in values.items()}

    def stored(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values_of`` backwards: values of the space's parameters as Optuna keeps them."""
        return {path: _to_optuna(values[path]) for path in self.parameters if path in values}

    def grid(self) -> Iterator[dict[str, Any]]:
        """All combinations of active parameters, as Optuna keeps them, each once."""
        seen = set()
        axes = [_grid_values(parameter) for parameter in self.parameters.values()]
        for point in itertools.product(*axes):
            values: Values = {}
            params: dict[str, Any] = {}
            for (path, parameter), stored in zip(self.parameters.items(), point, strict=True):
                if self.is_active(path, values):
                    values[path] = _from_optuna(parameter, stored)
                    params[path] = stored
            key = json.dumps(params)
            if key not in seen:
                seen.add(key)
                yield params

    def grid_bound(self) -> int:
        """At least as many as the grid has points, found without building them."""
        return math.prod(len(_grid_values(parameter)) for parameter in self.parameters.values())

    def extremes(self) -> Iterator[tuple[str, Values]]:
        """Every choice and both ends of every range once, each in the first configuration that allows it."""
        for path, parameter in self.parameters.items():
            ends = parameter.choices if parameter.choices is not None else [parameter.low, parameter.high]
            for value in ends:
                yield path, self._around(path, value)

    def _around(self, path: str, value: Any) -> Values:
        forced = {path: value}
        frontier = [path]
        while frontier:
            for parent, wanted in (self.parameters[frontier.pop()].when or {}).items():
                if parent not in forced:
                    choices = self.parameters[parent].choices or []
                    forced[parent] = next(
                        choice for choice in choices if any(matches(one, choice) for one in _listed(wanted))
                    )
                    frontier.append(parent)
        values: Values = {}
        for name, parameter in self.parameters.items():
            if name in forced:
                values[name] = forced[name]
            elif self.is_active(name, values):
                values[name] = parameter.choices[0] if parameter.choices is not None else parameter.low
        return values


def shown_choice(parameter: ParameterBlock, value: Any) -> Any:
    """A choice less the keys that all choices have with equal values; of a range's number four digits."""
    if parameter.choices is None and isinstance(value, float):
        return float(f"{value:.4g}")
    choices = parameter.choices or []
    if not isinstance(value, dict) or len(choices) < 2 or not all(isinstance(one, dict) for one in choices):
        return value
    return {key: part for key, part in value.items() if key == "name" or any(one.get(key) != part for one in choices)}


def distribution_of(parameter: ParameterBlock) -> BaseDistribution:
    """The Optuna distribution of a parameter."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.choices is not None:
        return CategoricalDistribution([_to_optuna(choice) for choice in parameter.choices])
    assert parameter.low is not None  # a range, which has both ends
    assert parameter.high is not None
    if is_integer(parameter):
        step = 1 if parameter.step is None else int(parameter.step)
        return IntDistribution(int(parameter.low), _last(parameter, step), log=parameter.log, step=step)
    low, high = float(parameter.low), float(parameter.high)
    if parameter.step is None:
        return FloatDistribution(low, high, log=parameter.log)
    return FloatDistribution(low, max(_steps(parameter)), step=float(parameter.step))


def _suggest(trial: Trial, path: str, distribution: BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(path, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)  # distribution_of makes no other
    return trial.suggest_float(path, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _grid_values(parameter: ParameterBlock) -> list[Any]:
    if parameter.choices is not None:
        return [_to_optuna(choice) for choice in parameter.choices]
    if is_integer(parameter):
        step = 1 if parameter.step is None else int(parameter.step)
        assert parameter.low is not None  # a range
        return list(range(int(parameter.low), _last(parameter, step) + 1, step))
    return _steps(parameter)


def _last(parameter: ParameterBlock, step: int) -> int:
    """The largest integer that steps from ``low`` reach."""
    assert parameter.low is not None  # a range, which has both ends
    assert parameter.high is not None
    low = int(parameter.low)
    return low + (int(parameter.high) - low) // step * step


def _steps(parameter: ParameterBlock) -> list[float]:
    assert parameter.low is not None  # a range with a step
    assert parameter.high is not None
    assert parameter.step is not None
    count = int((parameter.high - parameter.low) / parameter.step * (1 + 1e-12) + 1e-9)
    return [float(f"{parameter.low + k * parameter.step:.12g}") for k in range(count + 1)]


def _to_optuna(choice: Any) -> Any:
    """Optuna stores text, numbers, booleans and null; a block or a list as its JSON text."""
    return json.dumps(choice) if isinstance(choice, dict | list) else choice


def _from_optuna(parameter: ParameterBlock, stored: Any) -> Any:
    if parameter.choices is None or not isinstance(stored, str):
        return stored
    return next((choice for choice in parameter.choices if _to_optuna(choice) == stored), stored)


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]
