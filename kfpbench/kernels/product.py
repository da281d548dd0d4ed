"""The product of kernels."""

from __future__ import annotations

from typing import Any, ClassVar

from kfpbench.kernels.composite import CompositeBase
from kfpbench.kernels.jet import Jet, multiply


class Product(CompositeBase):
    """k = prod_i k_i, positive definite by Schur's theorem. The generator L = b . grad + tr(a Hess) has a cross term:

        L (k_1 k_2) = k_2 L k_1 + k_1 L k_2 + 2 grad k_1 . a grad k_2

    which the second derivatives of the product with respect to one argument of either factor carry. Parameters,
    smoothness and errors: ``CompositeBase``. Cost: that of the parts, and for operators with diffusion O(n M d) for
    each pair of distinct arguments. Source: Aronszajn, "Theory of reproducing kernels", Trans. AMS 68 (1950), part I,
    sec. 8; the cross term is the carre du champ of ``kfpbench.kernels.jet``.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"kernels": ["rbf", "polynomial"]},
        {"kernels": ["matern52", "ard"]},
    )

    @staticmethod
    def combine(one: Jet, other: Jet) -> Jet:
        """The product rule."""
        return multiply(one, other)
