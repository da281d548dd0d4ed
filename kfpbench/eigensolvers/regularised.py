"""How many principal functions of a kernel a solver keeps, how it damps them, and whether they are more than linear."""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from kfpbench.errors import NumericalError, ParameterError
from kfpbench.operators.pencil import GalerkinPencil

_POINTS_PER_FUNCTION = 4
_DIRICHLET_POWER = 0.4  # of N: functions in the Dirichlet form of draws
_KERNEL_ROUNDING = 8.0  # in eps: strengths below this share of the largest are made of rounding
_LINEAR = 0.999  # share of the variance in d directions from which the model counts as linear


class Regularised:
    """What solvers on principal functions share: how many of these are kept, and how they are damped.

    Functions with Lam below ``truncation`` x max Lam are left out. At most ``max_rank`` are kept; ``auto`` is a quarter
    of the points where these are draws (equal weights): with more, functions that follow the accidents of a sample
    take part; N^0.4 in the Dirichlet form, whose entries carry the sample's noise; a quadrature rule has no such limit,
    nor has null. ``ridge`` (gamma, relative to the mean of k(x, x))
    damps the rest. The default is truncation alone: a ridge invents slow modes (Ornstein-Uhlenbeck with gamma = 1e-9
    shows -0.04 and -0.3 ahead of -1), which solve the ridged problem exactly.
    """

    def __init__(
        self,
        ridge: Annotated[float, Field(ge=0)] = 0.0,
        truncation: Annotated[float, Field(gt=0, lt=1)] = 1e-10,
        max_rank: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto",
    ) -> None:
        name = type(self).__name__
        if not (ridge >= 0 and 0 < truncation < 1):
            raise ParameterError(f"{name}: ridge must be at least 0, truncation in (0, 1)", got=(ridge, truncation))
        if max_rank is not None and max_rank != "auto" and max_rank < 1:
            raise ParameterError(f"{name}: max_rank must be positive", got=max_rank, allowed="auto, null, 1 and more")
        self.ridge, self.truncation, self.max_rank = float(ridge), float(truncation), max_rank

    def resolved(self, pencil: GalerkinPencil) -> Self:
        """A copy whose ``max_rank`` is a number or None, for the points of a pencil."""
        if self.max_rank != "auto":
            return self
        count = len(pencil.points)
        limit = count**_DIRICHLET_POWER if pencil.reversible else count / _POINTS_PER_FUNCTION
        changed = copy.copy(self)
        changed.max_rank = max(int(limit), 1) if pencil.has_draws else None
        return changed

    def kept(self, strengths: Tensor, rounding: float) -> int:
        """How many of the descending strengths are kept; ``rounding`` is their absolute error.

        None that is at the rounding of the kernel's own values: in float32 that is far above the truncation.

        Raises NumericalError when nothing besides the constant function is left.
        """
        leading = float(strengths[0]) if len(strengths) else 0.0
        truncation = max(self.truncation, _KERNEL_ROUNDING * torch.finfo(strengths.dtype).eps)
        rank = int((strengths > max(truncation * leading, rounding)).sum()) if leading > rounding else 0
        if isinstance(self.max_rank, int):
            rank = min(rank, self.max_rank)
        if rank == 0:
            raise NumericalError(
                "the kernel is constant on the points: no function besides the constant is left",
                remedy="Take a smaller bandwidth, or check the points: they may all be equal.",
            )
        return rank


def linear_share(strengths: Tensor, dimension: int) -> dict[str, Any]:
    """The share of the kernel's variance in its d leading functions, and a warning where the model is all but linear.

    A bandwidth much larger than the data leaves d linear functions and little else: Ornstein-Uhlenbeck looks perfect,
    and nothing else does.
    """
    total = float(strengths.clamp_min(0.0).sum())
    share = float(strengths[:dimension].sum()) / total if total > 0 else 1.0
    warning = "the bandwidth is so large that the model is linear" if share > _LINEAR else ""
    return {"linear_share": share, **({"warning": warning} if warning else {})}
