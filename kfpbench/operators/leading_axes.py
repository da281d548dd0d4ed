"""The leading coordinates of a frame: what a kernel sees when it is to see the strongest axes alone."""

from __future__ import annotations

from torch import Tensor

from kfpbench.errors import CapabilityError
from kfpbench.operators.frames import Frame
from kfpbench.operators.marginal import Marginal


class LeadingAxes(Frame):
    """The first ``count`` coordinates of ``inner``, in a frame whose axes are sorted by variance.

    A regression on them finds the mean of the excess drift given those coordinates; what the others would tell is
    averaged out. ``decode`` does not exist: the rest of the state is not here.
    """

    def __init__(self, inner: Frame, count: int) -> None:
        self.inner, self.count = inner, count

    def encode(self, x: Tensor, at: Marginal) -> Tensor:
        """The leading part of that of ``inner``, (n, count), as are all that follow."""
        return self.inner.encode(x, at)[:, : self.count].contiguous()

    def decode(self, y: Tensor, at: Marginal) -> Tensor:
        """Raises CapabilityError."""
        raise CapabilityError(
            "leading coordinates alone are no state", got=self.count, remedy="Decode the whole state."
        )

    def excess_drift(self, x: Tensor, denoised: Tensor, at: Marginal, eta: float) -> Tensor:
        """B at the points x, (n, count)."""
        return self.inner.excess_drift(x, denoised, at, eta)[:, : self.count].contiguous()

    def decay_rate(self, at: Marginal, eta: float) -> Tensor:
        """kappa (count,)."""
        return self.inner.decay_rate(at, eta)[: self.count]

    def decay(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """exp(-integral of kappa), (count,)."""
        return self.inner.decay(start, end, eta)[: self.count]

    def diffusion(self, at: Marginal, eta: float) -> Tensor:
        """a (count,)."""
        return self.inner.diffusion(at, eta)[: self.count]

    def noise_scale(self, start: Marginal, end: Marginal, eta: float) -> Tensor:
        """Standard deviation (count,) of y_end given y_start for Gaussian data."""
        return self.inner.noise_scale(start, end, eta)[: self.count]

    def scale(self, at: Marginal) -> Tensor:
        """Standard deviation (count,) of y for Gaussian data."""
        return self.inner.scale(at)[: self.count]

    def span_diffusion(self, start: Marginal, middle: Marginal, end: Marginal, eta: float) -> Tensor:
        """a (count,) that stands for a whole span."""
        return self.inner.span_diffusion(start, middle, end, eta)[: self.count]
