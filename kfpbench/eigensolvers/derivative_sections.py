"""Functions spanned by sections of the Gaussian kernel and by the derivatives of these sections at their centres."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kfpbench.errors import CapabilityError
from kfpbench.kernels.rbf import RBF
from kfpbench.operators.diffusion import Diffusion
from kfpbench.protocols import Backend


@dataclass(frozen=True)
class DerivativeSections:
    """F(x) = [1, f(x) - offset], f(x) = sum_j A_j k(x, c_j) + sum_js B_js dk(x, c_j)/dc_js, k of length l.

    With delta = x - c the derivative section is delta_s k / l^2, and its image under L is the derivative of L k:

        L (dk/dc_s) = delta_s (L k) / l^2 + k (b_s / l^2 - 2 (a delta)_s / l^4).

    Both are products of k(x, C) and (L k)(x, C) with the coefficients and with centres times coefficients: no array
    (n, M, d) is made. Points and centres are shifted to the centres' mean, which limits cancellation.

    Shapes: centres (M, d), values A (M, r - 1), slopes B (M, d, r - 1), offset (r - 1,). Images take a diffusion that
    is constant, or isotropic and the same everywhere; CapabilityError for another one. Source of such features: Kostic,
    Lounici, Halconruy, Devergne, Pontil, "Learning the infinitesimal generator of stochastic diffusion processes",
    NeurIPS 2024, section 4.
    """

    kernel: RBF
    backend: Backend
    centres: Tensor
    values: Tensor
    slopes: Tensor
    offset: Tensor

    @property
    def size(self) -> int:
        """r."""
        return int(self.values.shape[1]) + 1

    @property
    def coefficient_norm(self) -> float:
        """Largest 2-norm of a column of the coefficients."""
        columns = torch.cat([self.values, self.slopes.flatten(0, 1)])
        return float(columns.norm(dim=0).max()) if columns.numel() else 0.0

    def features(self, x: Tensor) -> Tensor:
        """F at points x (n, d): (n, r). Cost O(n M (d + d r))."""
        functions = self._sum(self.backend.gram(self.kernel, x, self.centres).matmul(self._stacked()), x)
        return torch.cat([x.new_ones((len(x), 1)), functions - self.offset], dim=1)

    def images(self, x: Tensor, drift: Tensor, diffusion: Diffusion) -> Tensor:
        """L F at points: (n, r); L 1 = 0. Cost O(n M (d + d r))."""
        isotropic = diffusion.isotropic
        if isotropic is None and diffusion.pointwise:
            raise CapabilityError(
                "sections with derivatives take a constant diffusion", got=f"a {diffusion.kind} at each point"
            )
        a = Diffusion.constant(x.new_tensor(isotropic)) if isotropic is not None else diffusion.to(x)
        square = self.kernel.length**2
        image = self.backend.generator_gram(self.kernel, x, self.centres, drift, diffusion).matmul(self._stacked())
        total = self._sum(image, x)
        if a.is_zero and not bool(drift.any()):
            return torch.cat([x.new_zeros((len(x), 1)), total], dim=1)
        origin = self.centres.mean(0)
        bent = torch.einsum("ms,msr->mr", a.apply(self.centres - origin), self.slopes)  # (M, r - 1): (a c) . B
        weighted = self.backend.gram(self.kernel, x, self.centres).matmul(
            torch.cat([bent, self.slopes.flatten(1)], dim=1)
        )
        along = weighted[:, bent.shape[1] :].unflatten(1, self.slopes.shape[1:])  # (n, d, r - 1): sum_j k B_j
        direction = drift / square - 2.0 * a.apply(x - origin) / square**2
        total = total + torch.einsum("ns,nsr->nr", direction, along) + weighted[:, : bent.shape[1]] * (2.0 / square**2)
        return torch.cat([x.new_zeros((len(x), 1)), total], dim=1)

    def __call__(self, x: Tensor) -> Tensor:
        """f - offset at x (n, d): (n, r - 1), in the dtype of x."""
        return self.features(x.to(self.values.dtype))[:, 1:].to(x.dtype)

    def to(self, dtype: torch.dtype) -> DerivativeSections:
        """The same in another precision."""
        parts = {name: getattr(self, name).to(dtype) for name in ("centres", "values", "slopes", "offset")}
        return replace(self, **parts)

    def combine(self, coordinates: Tensor) -> DerivativeSections:
        """x -> F(x) coordinates, coordinates (r, p), folded into the coefficients."""
        return replace(
            self,
            values=self.values @ coordinates[1:],
            slopes=self.slopes @ coordinates[1:],
            offset=self.offset @ coordinates[1:] - coordinates[0],
        )

    def restrict(self, coordinates: Tensor) -> DerivativeSections:
        """The basis [1, F coordinates], coordinates (r, s)."""
        return self.combine(coordinates)

    def _stacked(self) -> Tensor:
        """[A - c . B / l^2, B / l^2], (M, (1 + d)(r - 1)): what k(x, C) is multiplied by."""
        square = self.kernel.length**2
        at_centre = torch.einsum("ms,msr->mr", self.centres - self.centres.mean(0), self.slopes)
        return torch.cat([self.values - at_centre / square, self.slopes.flatten(1) / square], dim=1)

    def _sum(self, products: Tensor, x: Tensor) -> Tensor:
        """(n, r - 1): the products' first part plus x . the second."""
        columns = self.values.shape[1]
        along = products[:, columns:].unflatten(1, self.slopes.shape[1:])
        return products[:, :columns] + torch.einsum("ns,nsr->nr", x - self.centres.mean(0), along)
