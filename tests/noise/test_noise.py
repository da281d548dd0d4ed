"""The counter-based generator: known answers, independence of the batch, and the law of its numbers.

Statistical assertions use fixed seeds and a two-sided level of about 1e-6 each (|z| < 5, or p > 1e-6): what a correct
generator with another seed would fail once in a million times.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kfpbench.errors import ParameterError
from kfpbench.noise import NoiseStream, philox4x32

CPU = torch.device("cpu")
LEVEL = 1e-6
Z = 5.0


def stream(seed=0, start=0, stop=1, dimension=4, dtype=torch.float64, number=0):
    return NoiseStream.of_range(seed, start, stop, dimension, CPU, dtype, stream=number)


def words(counter, key):
    parts = tuple(torch.tensor([word], dtype=torch.int64) for word in counter)
    return [int(word) for word in philox4x32(parts, key)]


def z_of_correlation(a, b):
    """Correlation of two samples of n independent pairs, times sqrt(n): standard normal under independence."""
    a, b = a.flatten().double(), b.flatten().double()
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1]) * math.sqrt(len(a))


# ---- Philox4x32-10: kat_vectors of Random123 (Salmon et al.) ----


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_known_answers(counter, key, expected):
    assert words(counter, key) == list(expected)


@pytest.mark.parametrize("size", [20, 5000], ids=["by NumPy", "by torch"])
def test_the_noise_is_philox_of_the_counter(size):
    """Whoever computes the rounds, for few words and for many."""
    drawn = stream(seed=2**40 + 3, start=7, stop=7 + size, number=1).uniform_integers(5, 2**31)
    expected = [words((0, 5, 7 + i, 1), (3, 2**8))[0] >> 1 for i in range(size)]
    assert drawn.tolist() == expected


def test_philox_of_arrays_is_that_of_tensors():
    counter = [torch.tensor([word, 2**32 - 1, 0], dtype=torch.int64) for word in range(4)]
    of_arrays = philox4x32(tuple(part.numpy() for part in counter), (1, 2))
    of_tensors = philox4x32(tuple(counter), (1, 2))
    assert all(torch.equal(torch.from_numpy(a), b) for a, b in zip(of_arrays, of_tensors, strict=True))


def test_philox_is_elementwise():
    generator = torch.Generator().manual_seed(0)
    counter = tuple(torch.randint(0, 2**32, (7, 3), generator=generator) for _ in range(4))
    key = (0xDEADBEEF, 0x01234567)
    together = philox4x32(counter, key)
    for i in range(7):
        for j in range(3):
            assert words([int(c[i, j]) for c in counter], key) == [int(word[i, j]) for word in together]


def test_normal_is_box_muller_of_the_documented_counter():
    """Entry k of row i comes from counter (k // 4, draw, i, stream) under the seed's two words."""
    seed, draw, index, number = (7 << 32) | 5, 3, 11, 2
    values = stream(seed, index, index + 1, 8, number=number).normal(draw)[0]
    expected = []
    for block in range(2):
        w = words((block, draw, index, number), (5, 7))
        for radial, angular in ((w[0], w[1]), (w[2], w[3])):
            radius = math.sqrt(-2.0 * math.log((radial + 0.5) / 2**32))
            angle = 2.0 * math.pi * angular / 2**32
            expected += [radius * math.cos(angle), radius * math.sin(angle)]
    assert values.tolist() == pytest.approx(expected, rel=1e-13, abs=1e-13)


# ---- the same numbers whatever else is in the batch ----


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    start=st.integers(0, 10**6),
    size=st.integers(1, 70),
    dimension=st.integers(1, 19),
    draw=st.integers(0, 1000),
    number=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    data=st.data(),
)
def test_rows_depend_on_their_index_alone(seed, start, size, dimension, draw, number, dtype, data):
    whole = stream(seed, start, start + size, dimension, dtype, number)
    normal, integers = whole.normal(draw), whole.uniform_integers(draw, 1000)
    assert normal.shape == (size, dimension)
    assert normal.dtype == dtype

    cut = data.draw(st.integers(0, size))
    parts = [stream(seed, start, start + cut, dimension, dtype, number)]
    parts += [stream(seed, start + cut, start + size, dimension, dtype, number)]
    assert torch.equal(torch.cat([part.normal(draw) for part in parts]), normal)
    assert torch.equal(torch.cat([part.uniform_integers(draw, 1000) for part in parts]), integers)

    order = torch.tensor(data.draw(st.permutations(range(size))))
    shuffled = NoiseStream(seed, start + order, dimension, dtype, number)
    assert torch.equal(shuffled.normal(draw), normal[order])
    assert torch.equal(shuffled.uniform_integers(draw, 1000), integers[order])


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 64, 257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_by_one_equals_one_large_batch(dimension, dtype):
    """Vectorised loops treat the last few entries apart: every remainder modulo 17 is met here."""
    rows = 1037
    whole = stream(3, 0, rows, dimension, dtype).normal(1)
    for size in range(1, 18):
        for start in (0, 1, 500, rows - size):
            assert torch.equal(stream(3, start, start + size, dimension, dtype).normal(1), whole[start : start + size])


def test_threads_do_not_change_the_numbers():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = stream(1, 0, 20_001, 13).normal(0)
        torch.set_num_threads(3)
        assert torch.equal(stream(1, 0, 20_001, 13).normal(0), alone)
    finally:
        torch.set_num_threads(threads)


def test_a_higher_dimension_extends_the_row():
    assert torch.equal(stream(0, 0, 50, 3).normal(0), stream(0, 0, 50, 11).normal(0)[:, :3])


def test_float32_is_float64_rounded():
    assert torch.equal(stream(0, 0, 500, 5, torch.float32).normal(2), stream(0, 0, 500, 5).normal(2).float())


def test_indices_up_to_the_last_of_32_bits_are_distinct():
    low = stream(0, 0, 3, 4).normal(0)
    high = stream(0, 2**32 - 3, 2**32, 4).normal(0)
    assert not bool((low == high).any())


# ---- the law ----


@pytest.mark.parametrize("seed", [0, 2**63 + 1])
def test_normal_by_kolmogorov_smirnov(seed):
    values = stream(seed, 0, 10_000, 5).normal(0).flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > LEVEL


def test_every_coordinate_has_unit_variance_and_no_mean():
    n = 40_000
    values = stream(4, 0, n, 6).normal(0)
    assert float(values.mean(0).abs().max()) * math.sqrt(n) < Z
    assert float((values.var(0, unbiased=False) - 1.0).abs().max()) * math.sqrt(n / 2) < Z  # Var of x^2 is 2
    assert float(((values**4).mean(0) - 3.0).abs().max()) * math.sqrt(n / 96) < Z  # Var of x^4 is 105 - 9


def test_extreme_words_give_finite_numbers():
    """The radius is finite for the word 0, and 6.66 for it: the largest that 32 bits allow."""
    largest = math.sqrt(-2.0 * math.log(0.5 * 2.0**-32))
    values = stream(9, 0, 100_000, 8).normal(0)
    assert bool(torch.isfinite(values).all())
    assert float(values.abs().max()) < largest


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5])
def test_neighbouring_coordinates_are_uncorrelated(lag):
    values = stream(0, 0, 8000, 16).normal(0)
    assert abs(z_of_correlation(values[:, :-lag], values[:, lag:])) < Z
    assert abs(z_of_correlation(values[:, :-lag].square(), values[:, lag:].square())) < Z


def test_neighbouring_indices_draws_streams_and_seeds_are_uncorrelated():
    n, d = 10_000, 6
    base = stream(5, 0, n + 1, d).normal(0)
    others = {
        "index": (base[:-1], base[1:]),
        "draw": (base, stream(5, 0, n + 1, d).normal(1)),
        "stream": (base, stream(5, 0, n + 1, d, number=1).normal(0)),
        "seed": (base, stream(6, 0, n + 1, d).normal(0)),
        "high word of the seed": (base, stream(5 + 2**32, 0, n + 1, d).normal(0)),
    }
    for what, (a, b) in others.items():
        assert not bool((a == b).any(dim=1).all()), what
        assert abs(z_of_correlation(a, b)) < Z, what
        assert abs(z_of_correlation(a.square(), b.square())) < Z, what


@settings(max_examples=40, deadline=None)
@given(
    a=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 5), st.integers(0, 5)),
    b=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 5), st.integers(0, 5)),
)
def test_another_seed_stream_or_draw_gives_other_numbers(a, b):
    first, second = (stream(seed, 0, 8, 4, number=number).normal(draw) for seed, number, draw in (a, b))
    assert torch.equal(first, second) == (a == b)


@pytest.mark.parametrize("high", [1, 2, 7, 50])
def test_uniform_integers_by_chi_square(high):
    n = 50_000
    values = stream(11, 0, n).uniform_integers(0, high)
    counts = torch.bincount(values, minlength=high).double()
    assert len(counts) == high  # none beyond high
    if high > 1:
        statistic = float(((counts - n / high) ** 2).sum() / (n / high))
        assert stats.chi2.sf(statistic, high - 1) > LEVEL


def test_uniform_integers_take_the_high_bits_of_the_first_word():
    """Pinned, because a reordered data set or another formula would silently change every fit."""
    values = stream(5, 40, 60, number=1).uniform_integers(6, 1000)
    expected = [words((0, 6, index, 1), (5, 0))[0] * 1000 // 2**32 for index in range(40, 60)]
    assert values.tolist() == expected


@pytest.mark.parametrize("high", [10**6, 2**31 - 1, 2**31])
def test_uniform_integers_up_to_2_31(high):
    n = 20_000
    values = stream(12, 0, n).uniform_integers(3, high)
    assert int(values.min()) >= 0
    assert int(values.max()) < high
    counts = torch.bincount(values * 64 // high, minlength=64).double()
    assert stats.chi2.sf(float(((counts - n / 64) ** 2).sum() / (n / 64)), 63) > LEVEL


def test_uniform_integers_of_other_draws_are_independent():
    values = stream(13, 0, 20_000)
    table = torch.zeros(5, 5)
    table.index_put_((values.uniform_integers(0, 5), values.uniform_integers(2, 5)), torch.ones(()), accumulate=True)
    assert stats.chi2_contingency(table.numpy()).pvalue > LEVEL


# ---- what is refused ----


@pytest.mark.parametrize("seed", [-1, 2**64, -(2**70)])
def test_seed_out_of_range(seed):
    with pytest.raises(ParameterError, match="seed out of range"):
        stream(seed)


@pytest.mark.parametrize("high", [0, -3, 2**31 + 1, 2**33])
def test_bound_of_the_integers_out_of_range(high):
    with pytest.raises(ParameterError, match="bound of the random integers"):
        stream(0).uniform_integers(0, high)


def test_the_largest_seed_is_accepted():
    assert bool(torch.isfinite(stream(2**64 - 1).normal(0)).all())
    assert not torch.equal(stream(2**64 - 1).normal(0), stream(2**32 - 1).normal(0))
