"""What a contract is made of: named checks, each a law that every component of a kind keeps, and their findings."""

from __future__ import annotations

import inspect
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from kfpbench.errors import CapabilityError, KfpbenchError, PluginError

Outcome = Literal["passed", "failed", "skipped"]
T = TypeVar("T")

_REMEMBERED = 64
_memory: OrderedDict[tuple[int, str], tuple[object, Any]] = OrderedDict()


class ContractError(PluginError):
    """A component breaks a law of its kind; says what, what was got, what the law allows, and the remedy."""


class NotApplicableError(KfpbenchError):
    """A law says nothing about this component; the check is skipped with this reason."""


@dataclass(frozen=True)
class Finding:
    """What one check found out about one component. A skipped check has not passed either: ``what`` says why."""

    component: str
    check: str
    outcome: Outcome
    what: str = ""
    got: object = None
    allowed: object = None
    remedy: str | None = None

    @property
    def passed(self) -> bool:
        """The law was checked, and holds."""
        return self.outcome == "passed"

    def __str__(self) -> str:
        head = f"{self.component}: {self.check} {self.outcome}"
        if not self.what:
            return head
        return f"{head}: {ContractError(self.what, got=self.got, allowed=self.allowed, remedy=self.remedy)}"


@dataclass(frozen=True)
class Check:
    """A law with a name. Calling it with a component raises ContractError when the law is broken, CapabilityError or
    NotApplicableError when it cannot be checked; ``run`` returns a Finding instead.
    """

    kind: str
    name: str
    law: str
    function: Callable[[Any], None]

    def __call__(self, component: Any) -> None:
        """Raise unless the law holds for a constructed component."""
        self.function(component)

    def run(self, component: Any, label: str | None = None) -> Finding:
        """Check a constructed component; whatever it raises becomes part of the finding."""
        label = type(component).__name__ if label is None else label
        try:
            self.function(component)
        except ContractError as error:
            return Finding(label, self.name, "failed", error.what, error.got, error.allowed, error.remedy)
        except (CapabilityError, NotApplicableError) as error:
            return Finding(label, self.name, "skipped", str(error))
        except Exception as error:  # a stranger's component may fail in any way
            frame = _frame_of(component, error)
            return Finding(
                label,
                self.name,
                "failed",
                f"{type(error).__name__}: {error}",
                got=f"raised at {frame.filename}:{frame.lineno} in {frame.name}",
                allowed=self.law.partition(". ")[0].rstrip("."),
                remedy="Repair that line, or what was handed to it.",
            )
        return Finding(label, self.name, "passed")


class Contract:
    """The checks of one kind, in order; as a decorator it adds a function, whose docstring is the law."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.checks: list[Check] = []

    def __call__(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        """Add a function as the check of its own name."""
        self.add(function.__name__, function.__doc__ or "", function)
        return function

    def add(self, name: str, law: str, function: Callable[[Any], None]) -> None:
        """Add a check."""
        self.checks.append(Check(self.kind, name, " ".join(law.split()), function))


def _frame_of(component: object, error: Exception) -> traceback.FrameSummary:
    """The innermost call in the file of the component's class, else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    try:
        file = inspect.getfile(type(component))
    except (TypeError, OSError):
        return frames[-1]
    return next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])


def require(holds: bool, what: str, *, got: object = None, allowed: object = None, remedy: str | None = None) -> None:
    """Raise ContractError unless the law holds."""
    if not holds:
        raise ContractError(what, got=got, allowed=allowed, remedy=remedy)


def remembered(component: object, key: str, make: Callable[[], T]) -> T:
    """What ``make`` returned for this very component when it was last asked: several laws look at one costly result.

    The last 64 results are kept, with their components, so that no identity is reused.
    """
    place = (id(component), key)
    if place not in _memory:
        _memory[place] = (component, make())
        while len(_memory) > _REMEMBERED:
            _memory.popitem(last=False)
    found: T = _memory[place][1]
    return found
