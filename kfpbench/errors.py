"""Typed errors; each says what went wrong, what was given, what is allowed, the remedy and where."""

from __future__ import annotations


class KfpbenchError(Exception):
    """Base of all errors that kfpbench raises on purpose.

    The message reads ``where: what; got ...; allowed: .... remedy``; parts that are not given are left out.
    """

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        allowed: object = None,
        remedy: str | None = None,
        where: str | None = None,
    ) -> None:
        self.what = what
        self.got = got
        self.allowed = allowed
        self.remedy = remedy
        self.where = where
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.got is not None:
            text += f"; got {self.got!r}"
        if self.allowed is not None:
            text += f"; allowed: {self.allowed}"
        if self.remedy:
            text += f". {self.remedy}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling between processes with every field."""
        return (_rebuild, (type(self), self.what, self.got, self.allowed, self.remedy, self.where))


def _rebuild(
    cls: type[KfpbenchError], what: str, got: object, allowed: object, remedy: str | None, where: str | None
) -> KfpbenchError:
    return cls(what, got=got, allowed=allowed, remedy=remedy, where=where)


class SuiteError(KfpbenchError):
    """A suite file, or an override of one, is not valid; nothing has run."""


class UnknownComponentError(KfpbenchError):
    """No component of that kind has that name."""


class PluginError(KfpbenchError):
    """A plugin could not be imported, or breaks its contract."""


class ParameterError(KfpbenchError, ValueError):
    """A component was given an impossible parameter."""


class ShapeError(KfpbenchError, ValueError):
    """Arrays do not have the shapes that the formula needs."""


class DataError(KfpbenchError):
    """A data set is missing, truncated, corrupt or not what its layout promises."""


class CapabilityError(KfpbenchError):
    """These components cannot work together; the cell is skipped with this reason."""


class NumericalError(KfpbenchError):
    """A computation produced NaN or infinity, or a factorisation failed."""


class BudgetError(KfpbenchError):
    """A cell would need, or has taken, more memory than its budget."""


class CellTimeout(KfpbenchError):
    """A cell ran longer than its time budget."""


class StoreError(KfpbenchError):
    """A run folder is unreadable, inconsistent or of a newer schema."""


class DiskFullError(StoreError):
    """The disk, or the user's share of it, is full; what was finished before is kept."""


class BusyError(StoreError):
    """Another process is writing into that run folder."""
