"""One segment of a spectral sampler: linear flow, displacement, conditional noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kfpbench.operators.generator import Segment
from kfpbench.samplers.conditional_noise import ConditionalNoise, NoiseScale
from kfpbench.samplers.displacement import AugmentedDisplacement, Displacement


@dataclass(frozen=True)
class Step:
    """One segment of a fitted sampler: linear flow (d,), noise scale, displacement or None at rank 0."""

    segment: Segment
    decay: Tensor
    noise_scale: NoiseScale
    displacement: Displacement | AugmentedDisplacement | None
    diagnostics: dict[str, Any]

    @property
    def noisy(self) -> bool:
        """Whether ``advance`` needs a normal number for every coordinate."""
        return self.noise_scale is not None

    def scale_at(self, y: Tensor) -> Tensor | None:
        """The conditional standard deviation at y (n, d): (n, d), or (d,) for every state alike, or none."""
        return self.noise_scale(y) if isinstance(self.noise_scale, ConditionalNoise) else self.noise_scale

    def advance(self, y: Tensor, normal: Tensor | None) -> Tensor:
        """The state (n, d) at the segment's end from that at its start. Cost O(n M d) for M centres."""
        moved, scale = self.decay * y, self.scale_at(y)
        if self.displacement is not None:
            moved = moved + self.displacement(y)
        return moved if scale is None or normal is None else moved + scale * normal


@dataclass(frozen=True)
class LeadingStep:
    """A segment whose kernel part moves the leading coordinates; ``rest_*`` (d - c,) do the others."""

    leading: Step
    rest_decay: Tensor
    rest_scale: Tensor | None

    @property
    def segment(self) -> Segment:
        """The span of time."""
        return self.leading.segment

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Those of the kernel part."""
        return self.leading.diagnostics

    @property
    def noisy(self) -> bool:
        """Whether ``advance`` needs a normal number for every coordinate."""
        return self.leading.noisy

    def advance(self, y: Tensor, normal: Tensor | None) -> Tensor:
        """The state (n, d) at the segment's end. Cost O(n M c + n d) for M centres."""
        count = len(self.leading.decay)
        head = self.leading.advance(y[:, :count], None if normal is None else normal[:, :count])
        tail = self.rest_decay * y[:, count:]
        if normal is not None and self.rest_scale is not None:
            tail = tail + self.rest_scale * normal[:, count:]
        return torch.cat([head, tail], dim=1)
