"""What scores that work on pixels ask of a data set and of its size."""

from __future__ import annotations

import math

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError


def require_images(dataset: Dataset, score: str) -> tuple[int, int, int]:
    """(C, H, W) of the data set's images. Raises CapabilityError, naming the score, for points."""
    if dataset.image_shape is None:
        raise CapabilityError(
            f"score {score!r} works on images; the rows of {dataset.name!r} are points",
            remedy="Use score 'empirical', 'smoothed' or 'gaussian'.",
        )
    return dataset.image_shape


def pixels_of(dimension: int) -> int:
    """H W of an image of ``dimension`` numbers, for predictions of memory, which know no more: a square of three
    channels where that fits, else one channel, the larger answer.
    """
    third, rest = divmod(dimension, 3)
    return third if rest == 0 and math.isqrt(third) ** 2 == third else dimension
