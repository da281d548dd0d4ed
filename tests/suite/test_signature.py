from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from kfpbench.errors import PluginError
from kfpbench.protocols import FeatureExtractor, Kernel, SamplerPlugin
from kfpbench.suite.signature import Nested, parameters, read_signature


@dataclass(frozen=True)
class Options:
    eta: float = 1
    times: tuple[int, ...] = (1, 2)


class Everything:
    def __init__(
        self,
        count: int,
        rate: Annotated[float, Field(gt=0)] = 1,
        mode: Literal["a", "b"] = "a",
        flag: bool = False,
        limit: float | None = None,
        sizes: list[int] | None = None,
        bound: Annotated[float, Field(allow_inf_nan=True)] = math.inf,
        copy: int = 3,
    ) -> None:
        pass


def accepts(model: type[BaseModel], text: str) -> bool:
    try:
        model.model_validate_json(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("values", "accepted"),
    [
        ('{"count": 1}', True),
        ("{}", False),
        ('{"count": "10"}', False),
        ('{"count": 1.0}', False),
        ('{"count": true}', False),
        ('{"count": 1, "rate": 2}', True),
        ('{"count": 1, "rate": 2.5}', True),
        ('{"count": 1, "rate": true}', False),
        ('{"count": 1, "rate": "2"}', False),
        ('{"count": 1, "rate": 0}', False),
        ('{"count": 1, "rate": NaN}', False),
        ('{"count": 1, "rate": Infinity}', False),
        ('{"count": 1, "bound": Infinity}', True),
        ('{"count": 1, "mode": "b"}', True),
        ('{"count": 1, "mode": "c"}', False),
        ('{"count": 1, "flag": 1}', False),
        ('{"count": 1, "flag": "true"}', False),
        ('{"count": 1, "limit": null}', True),
        ('{"count": 1, "rate": null}', False),
        ('{"count": 1, "sizes": [1, 2]}', True),
        ('{"count": 1, "sizes": [1.5]}', False),
        ('{"count": 1, "copy": 4}', True),
        ('{"count": 1, "copy_": 4}', False),
        ('{"count": 1, "unknown": 4}', False),
    ],
)
def test_types_are_checked_strictly(values: str, accepted: bool) -> None:
    assert accepts(parameters(Everything), values) is accepted


def test_an_integer_for_a_float_becomes_one() -> None:
    value = parameters(Everything).model_validate_json('{"count": 1, "rate": 2}').rate  # type: ignore[attr-defined]
    assert isinstance(value, float)


def test_what_is_nested() -> None:
    class Component:
        def __init__(
            self,
            kernel: Kernel | str = "rbf",
            kernels: list[Kernel] | None = None,
            shape: Kernel | None = None,
            features: FeatureExtractor | str = "pca",
            refiner: SamplerPlugin | None = None,
            backend: Any = "dense",
            eigensolver="dense",  # type: ignore[no-untyped-def]
            operator: Options = Options(),
            metric: Literal["cosine"] = "cosine",
            score: str = "text",
            rank: int = 3,
        ) -> None:
            pass

    nested = read_signature(Component).nested
    assert nested == {
        "kernel": Nested("kernels", required=False, default={"name": "rbf"}),
        "kernels": Nested("kernels", many=True, optional=True, required=False),
        "shape": Nested("kernels", optional=True, required=False),
        "features": Nested("features", required=False, default={"name": "pca"}),
        "refiner": Nested("samplers", optional=True, required=False),
        "backend": Nested("backends", required=False, default={"name": "dense"}),
        "eigensolver": Nested("eigensolvers", required=False, default={"name": "dense"}),
        "operator": Nested(None, Options, required=False, default={"eta": 1, "times": [1, 2]}),
    }


def test_dataclass_components_and_their_default_factories() -> None:
    @dataclass
    class Component:
        sizes: list[int] = field(default_factory=lambda: [1, 2])
        hidden: int = field(default=0, init=False)

    signature = read_signature(Component)
    assert signature.names == ("sizes",)
    assert signature.model.model_validate_json("{}").sizes == [1, 2]  # type: ignore[attr-defined]


def test_inherited_constructors() -> None:
    class Parent:
        def __init__(self, size: int = 1) -> None:
            pass

    class Child(Parent):
        pass

    class OfProtocol(Kernel):
        pass

    class Bare:
        pass

    assert read_signature(Child).names == ("size",)
    assert read_signature(OfProtocol).names == ()  # not the (*args, **kwargs) of typing.Protocol
    assert read_signature(Bare).names == ()


class TakesAnything:
    def __init__(self, **options: int) -> None:
        pass


class Unannotated:
    def __init__(self, size=3) -> None:  # type: ignore[no-untyped-def]
        pass


class Unresolvable:
    def __init__(self, size: Missing = 3) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass


class NotPlain:
    def __init__(self, lock: BaseException) -> None:
        pass


class Reserved:
    def __init__(self, name: str = "x") -> None:
        pass


class InstanceDefault:
    def __init__(self, kernel: Kernel = object()) -> None:  # type: ignore[assignment]  # noqa: B008
        pass


class PositionalOnly:
    def __init__(self, size: int, /) -> None:
        pass


@pytest.mark.parametrize(
    ("component", "says"),
    [
        (TakesAnything, "'options'"),
        (Unannotated, "'size'"),
        (Unresolvable, "'size'"),
        (NotPlain, "cannot be written in a suite"),
        (Reserved, "'name'"),
        (InstanceDefault, "neither a name nor None"),
        (PositionalOnly, "cannot be given by keyword"),
    ],
)
def test_signatures_that_no_suite_can_write_are_named(component: type, says: str) -> None:
    with pytest.raises(PluginError) as caught:
        read_signature(component)
    assert component.__name__ in str(caught.value)
    assert says in str(caught.value)
