"""Deterministic spectral sampling in which kernels move the leading axes alone: the rest is one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kfpbench.noise import NoiseStream
from kfpbench.operators.frames import WhitenedFrame
from kfpbench.operators.marginal import Marginal
from kfpbench.samplers.steps import Step


@dataclass(frozen=True)
class LeadingFlow:
    """x_end = (x - a) R + y_end O + b, y_end the steps' image of y = (x - a) I: c leading coordinates of a frame.

    The other coordinates follow the linear flow, and R (d, d) takes them from noise to data at once: a sample streams
    d^2 + 2 c d numbers for its frame instead of 2 d^2, as many as the closed-form Gaussian sampler and the leading axes
    twice. I (d, c), O (c, d), a and b (d,).
    """

    first: Marginal
    steps: Sequence[Step]
    start_mean: Tensor
    end_mean: Tensor
    into: Tensor
    rest: Tensor
    out: Tensor

    @classmethod
    def of(cls, frame: WhitenedFrame, steps: Sequence[Step], eta: float) -> LeadingFlow:
        """Fold the frame at both ends; the steps draw no noise, whatever ``eta``. Cost O(d^2 (d - c))."""
        first, last = steps[0].segment.start, steps[-1].segment.end
        count = len(steps[0].decay)
        into, out = frame.axes_in(first), frame.axes_out(last)
        gain = frame.decay(first, last, eta)[count:]
        rest = (into[:, count:] * gain) @ out[count:]
        means = first.alpha * frame.mean, last.alpha * frame.mean
        return cls(first, steps, *means, into[:, :count].contiguous(), rest, out[:count].contiguous())

    def sample(self, noise: NoiseStream) -> Tensor:
        """x at t_min (n, d), from x at t_max = sigma_max times draw 0 of the stream."""
        x = self.first.sigma * noise.normal(0) - self.start_mean
        y = x @ self.into
        for step in self.steps:
            y = step.advance(y, None)
        return x @ self.rest + y @ self.out + self.end_mean

    def describe(self) -> dict[str, Any]:
        """Diagnostics of every segment's eigenproblem."""
        return {"segments": [{"sigma": step.segment.middle.sigma, **step.diagnostics} for step in self.steps]}
