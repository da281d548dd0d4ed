"""The patch-local score against its definition by loops over pixels and patches, and its limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from kfpbench.data.dataset import Dataset
from kfpbench.errors import CapabilityError, ParameterError
from kfpbench.protocols import BoundScore, ProblemSize, ScorePlugin
from kfpbench.scores.empirical import EmpiricalScore
from kfpbench.scores.patch_local import PatchLocalScore, growing_half_width

CPU = torch.device("cpu")
LEVELS = [(1.0, 0.1), (1.0, 1.5), (0.4, 0.9)]


def dataset(count: int, shape: tuple[int, int, int] = (2, 5, 6), seed: int = 0) -> Dataset:
    rows = np.random.default_rng(seed).uniform(-1, 1, (count, int(np.prod(shape)))).astype(np.float32)
    return Dataset("noise", rows, rows[:1], rows[:1], image_shape=shape)


def bind(data: Dataset, dtype: torch.dtype = torch.float64, **parameters):
    return PatchLocalScore(**parameters).bind(data, CPU, dtype)


def noised(data: Dataset, count: int, alpha: float, sigma: float, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.as_tensor(data.train[:count], dtype=torch.float64)
    return alpha * rows + sigma * torch.randn(rows.shape, generator=generator, dtype=torch.float64)


def by_definition(data: Dataset, x: torch.Tensor, alpha: float, sigma: float, half: int, shift: int) -> torch.Tensor:
    """Loops over pixels and moves; a patch is the set of offsets that stay inside the image."""
    channels, height, width = data.image_shape
    rows = torch.as_tensor(data.train, dtype=torch.float64).reshape(-1, channels, height, width)
    images = x.reshape(len(x), channels, height, width)
    result = torch.zeros_like(images)

    def offsets(row: int, column: int) -> list[tuple[int, int]]:
        span = range(-half, half + 1)
        return [(a, b) for a, b in itertools.product(span, span) if 0 <= row + a < height and 0 <= column + b < width]

    for row, column in itertools.product(range(height), range(width)):
        patch = offsets(row, column)
        exponents, values = [], []
        for other_row, other_column in itertools.product(range(height), range(width)):
            if (
                max(abs(other_row - row), abs(other_column - column)) > shift
                or offsets(other_row, other_column) != patch
            ):
                continue
            own = torch.stack([images[:, :, row + a, column + b] for a, b in patch], -1)  # (n, C, P)
            theirs = torch.stack([rows[:, :, other_row + a, other_column + b] for a, b in patch], -1)  # (N, C, P)
            exponents.append(-(own[:, None] - alpha * theirs[None]).square().sum((2, 3)) / (2 * sigma**2))
            values.append(rows[:, :, other_row, other_column])
        result[:, :, row, column] = torch.softmax(torch.cat(exponents, 1), 1) @ torch.cat(values)
    return result.flatten(1)


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
@pytest.mark.parametrize("shift", [0, 1, 5])
@pytest.mark.parametrize("patch", [1, 3, 5])
def test_it_is_the_definition(alpha, sigma, patch, shift):
    data = dataset(7)
    x = noised(data, 3, alpha, sigma)
    found = bind(data, patch=patch, shift=shift).denoise(x, alpha, sigma)
    torch.testing.assert_close(found, by_definition(data, x, alpha, sigma, patch // 2, shift), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
@pytest.mark.parametrize("shift", [0, 6])
def test_a_patch_that_holds_the_whole_image_gives_the_empirical_score(alpha, sigma, shift):
    """No move leaves such a patch cut as it was, so ``shift`` changes nothing."""
    data = dataset(20)
    x = noised(data, 6, alpha, sigma)
    expected = EmpiricalScore().bind(data, CPU, torch.float64).denoise(x, alpha, sigma)
    torch.testing.assert_close(
        bind(data, patch=11, shift=shift).denoise(x, alpha, sigma), expected, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_a_patch_of_one_pixel_gives_the_posterior_mean_of_each_pixel(alpha, sigma):
    """For one channel: ``empirical`` on every coordinate by itself."""
    data = dataset(25, (1, 4, 3))
    x = noised(data, 6, alpha, sigma)
    found = bind(data, patch=1).denoise(x, alpha, sigma)
    for pixel in range(12):
        column = data.train[:, [pixel]]
        alone = EmpiricalScore().bind(Dataset("pixel", column, column, column), CPU, torch.float64)
        expected = alone.denoise(x[:, [pixel]], alpha, sigma)
        torch.testing.assert_close(found[:, [pixel]], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("tile", "train_tile"), [(1, 5), (2, 3), (4, 100), (100, 5)])
@pytest.mark.parametrize("shift", [0, 2])
def test_tiles_do_not_change_the_result(tile, train_tile, shift):
    data = dataset(17)
    x = noised(data, 9, 1.0, 0.3)
    whole = bind(data, patch=3, shift=shift, tile=1000, train_tile=1000).denoise(x, 1.0, 0.3)
    found = bind(data, patch=3, shift=shift, tile=tile, train_tile=train_tile).denoise(x, 1.0, 0.3)
    torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-10)


def test_moving_image_and_training_set_moves_the_answer():
    """In full, far from the border: an image moved by a pixel is denoised to the answer moved by a pixel, though the
    training images stay where they are; without ``shift`` it is not."""
    data = dataset(6, (1, 9, 9))
    x = noised(data, 4, 1.0, 0.4).reshape(4, 1, 9, 9)
    moved = x.roll(1, dims=3)
    inside = (slice(None), slice(None), slice(1, 8), slice(2, 8))
    before = (slice(None), slice(None), slice(1, 8), slice(1, 7))
    for shift, equivariant in ((8, True), (0, False)):
        score = bind(data, patch=3, shift=shift)
        found = score.denoise(moved.flatten(1), 1.0, 0.4).reshape(x.shape)[inside]
        still = score.denoise(x.flatten(1), 1.0, 0.4).reshape(x.shape)[before]
        assert torch.allclose(found, still, rtol=1e-9, atol=1e-9) == equivariant


def test_it_composes_images_that_no_training_image_is():
    """Left half of one image, right half of another: ``empirical`` must choose, small patches need not."""
    data = dataset(12, (1, 4, 12))
    rows = torch.as_tensor(data.train, dtype=torch.float64).reshape(-1, 1, 4, 12)
    both = torch.cat([rows[:1, :, :, :6], rows[1:2, :, :, 6:]], dim=3).flatten(1)
    found = bind(data, patch=3).denoise(both, 1.0, 0.05)
    # pixels whose patch lies in one half are exact; those beside the seam have patches that no image holds
    gap = (found - both).reshape(4, 12).abs()
    assert float(gap[:, [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]].max()) < 1e-6
    copied = EmpiricalScore().bind(data, CPU, torch.float64).denoise(both, 1.0, 0.05)
    assert float((copied - both).abs().max()) > 0.1


def test_float32_keeps_its_digits_near_a_training_image():
    """sigma = 0.002: exponents from |x|^2 - 2 x y + |y|^2 would be off by 10^-7 * 30 / sigma^2, about 1."""
    data = dataset(40, (3, 8, 8))
    x = noised(data, 10, 1.0, 0.002)
    score64, score32 = bind(data, patch=3), bind(data, torch.float32, patch=3)
    expected = score64.denoise(x, 1.0, 0.002)
    found = score32.denoise(x.float(), 1.0, 0.002)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_the_patch_grows_with_the_noise():
    widths = [growing_half_width(ratio, 32) for ratio in (0.002, 0.1, 0.5, 0.7, 1.0, 1.5, 3.0, 10.0, 80.0)]
    assert widths == [1, 1, 1, 2, 2, 3, 5, 16, 31]
    data = dataset(15)
    x = noised(data, 4, 1.0, 1.0)
    growing = bind(data)
    assert torch.equal(growing.denoise(x, 0.5, 0.5), bind(data, patch=5).denoise(x, 0.5, 0.5))
    assert torch.equal(growing.denoise(x, 0.5, 0.1), bind(data, patch=3).denoise(x, 0.5, 0.1))
    whole = EmpiricalScore().bind(data, CPU, torch.float64).denoise(x, 1.0, 50.0)
    torch.testing.assert_close(growing.denoise(x, 1.0, 50.0), whole, rtol=1e-9, atol=1e-9)


def test_train_size_takes_the_first_rows():
    data = dataset(15)
    x = noised(data, 4, 1.0, 0.5)
    expected = bind(data.with_train_size(6)).denoise(x, 1.0, 0.5)
    assert torch.equal(bind(data, train_size=6).denoise(x, 1.0, 0.5), expected)
    assert torch.equal(bind(data, train_size=99).denoise(x, 1.0, 0.5), bind(data).denoise(x, 1.0, 0.5))


def test_contract():
    plugin, data = PatchLocalScore(), dataset(8)
    assert isinstance(plugin, ScorePlugin)
    bound = plugin.bind(data, CPU, torch.float32)
    assert isinstance(bound, BoundScore)
    for rows in (5, 0, 33):
        x = torch.zeros((rows, 60))
        assert bound.score(x, 1.0, 0.5).shape == (rows, 60)
        assert not x.any()
    assert bound.evaluations == 38


def test_points_and_even_patches_are_refused():
    rows = np.zeros((5, 2), np.float32)
    with pytest.raises(CapabilityError, match="rows of 'toy' are points"):
        bind(Dataset("toy", rows, rows, rows))
    with pytest.raises(ParameterError, match="odd side"):
        PatchLocalScore(patch=4)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 12, 12)])
@pytest.mark.parametrize("shift", [0, 1])
def test_it_stays_within_its_stated_memory(live_bytes, shape, shift):
    count, dimension, batch = 100, int(np.prod(shape)), 20
    data = dataset(count, shape)
    x = noised(data, batch, 1.0, 0.5).float()
    plugin = PatchLocalScore(shift=shift, tile=16, train_tile=64)
    with live_bytes:
        plugin.bind(data, CPU, torch.float32).denoise(x, 1.0, 0.5)
    stated = plugin.working_memory(ProblemSize(count, dimension, batch, 4))
    assert 0.5 * stated <= live_bytes.peak <= stated


def test_memory_does_not_grow_with_the_training_set_beyond_its_rows():
    plugin = PatchLocalScore()
    small, large = (plugin.working_memory(ProblemSize(count, 3072, 250, 4)) for count in (10_000, 45_000))
    assert large - small == 4 * 2 * 35_000 * 3072
    assert PatchLocalScore(train_size=500).working_memory(ProblemSize(45_000, 3072, 250, 4)) < small
