"""The sum of kernels."""

from __future__ import annotations

from typing import Any, ClassVar

from kfpbench.kernels.composite import CompositeBase
from kfpbench.kernels.jet import Jet, add


class Sum(CompositeBase):
    """k = sum_i k_i; the generator is linear: L k = sum_i L k_i.

    Its RKHS is the sum of the parts' (Aronszajn, "Theory of reproducing kernels", Trans. AMS 68, 1950, part I, sec. 6).
    Parameters, smoothness and errors: ``CompositeBase``. Give parts a variance by ``Scaled``. Cost: that of the parts,
    but an argument that several parts share, such as the squared distance, is evaluated once.
    """

    contract_examples: ClassVar[tuple[dict[str, Any], ...]] = ({"kernels": ["rbf", "polynomial"]},)

    @staticmethod
    def combine(one: Jet, other: Jet) -> Jet:
        """Jets add entry by entry."""
        return add(one, other)
