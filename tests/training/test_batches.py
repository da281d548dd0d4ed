"""Batches are functions of the step, show every row once an epoch, and have the laws that the options state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.data.mixtures import RingMixture
from kfpbench.errors import CapabilityError
from kfpbench.training.batches import Batches
from kfpbench.training.options import TrainingOptions

CPU = torch.device("cpu")
Options = Callable[..., TrainingOptions]


def test_an_epoch_is_a_permutation(digits: Dataset, options: Options) -> None:
    batches, total = Batches(digits, options(), CPU), len(digits.train)
    first, second = batches.indices(0, total), batches.indices(total, total)
    assert np.array_equal(np.sort(first), np.arange(total))
    assert np.array_equal(np.sort(second), np.arange(total))
    assert not np.array_equal(first, second)
    across = batches.indices(total - 3, 2 * total)  # longer than an epoch, over two borders
    assert np.array_equal(across[: total + 3], np.concatenate([first[-3:], second]))


def test_a_batch_is_a_function_of_seed_and_step(digits: Dataset, options: Options) -> None:
    one, other = Batches(digits, options(), CPU), Batches(digits, options(), CPU)
    for step in (300, 5, 300, 137):  # in any order
        a, b = one.at(step), other.at(step)
        assert all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("images", "sigma", "noise", "labels"))
        assert not torch.equal(a.noise, Batches(digits, options(seed=1), CPU).at(step).noise)


def test_images_are_training_rows_with_their_labels(digits: Dataset, options: Options) -> None:
    batches = Batches(digits, options(label_dropout=0.0, flips=False, batch_size=50), CPU)
    batch, rows = batches.at(3), batches.indices(150, 50)
    assert np.array_equal(batch.images.flatten(1).numpy(), digits.train[rows])
    assert np.array_equal(batch.labels.numpy(), digits.train_labels[rows])
    assert bool((Batches(digits, options(label_dropout=1.0), CPU).at(3).labels == 10).all())


def test_the_laws_of_levels_mirrors_and_names(digits: Dataset, options: Options) -> None:
    """Five standard errors of n = 4,000: of the mean and variance of normals, and of a share."""
    n = 4000
    batches = Batches(digits, options(batch_size=n, label_dropout=0.3, log_sigma_mean=-1.0, log_sigma_std=0.5), CPU)
    batch = batches.at(0)
    logs = batch.sigma.log()
    assert abs(float(logs.mean()) + 1.0) < 5 * 0.5 / n**0.5
    assert abs(float(logs.var()) - 0.25) < 5 * 0.25 * (2 / n) ** 0.5
    assert abs(float((batch.labels == 10).double().mean()) - 0.3) < 5 * (0.21 / n) ** 0.5
    plain = torch.from_numpy(digits.train[batches.indices(0, n)]).view(n, 1, 8, 8)
    kept = (batch.images == plain).flatten(1).all(dim=1)
    assert bool((kept | (batch.images == plain.flip(3)).flatten(1).all(dim=1)).all())
    assert abs(float(kept.double().mean()) - 0.5) < 5 * (0.25 / n) ** 0.5  # no digit is its own mirror image


def test_points_are_refused(options: Options) -> None:
    with pytest.raises(CapabilityError, match="training needs images"):
        Batches(RingMixture(train=50, validation=10, test=10).load(), options(), CPU)
