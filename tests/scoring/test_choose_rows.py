"""Which rows are compared: equal n, no row on both sides, and a floor from rows that were held out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kfpbench.data.dataset import Dataset
from kfpbench.errors import ParameterError
from kfpbench.runner.materials import reference_rows
from kfpbench.scoring.choose_rows import choose_rows, split_for
from kfpbench.scoring.read_samples import Samples
from kfpbench.scoring.value_range import ValueRange
from kfpbench.store.samples import to_levels


def given(rows: NDArray[np.float32]) -> Samples:
    return Samples("rows", rows, ValueRange(-1.0, 1.0, ""), (), "")


def rows_of(array: NDArray[np.float32]) -> set[bytes]:
    return {row.tobytes() for row in array}


def blurred(digits: Dataset, count: int) -> NDArray[np.float32]:
    """Images that are no digits of the data set."""
    return (0.5 * (digits.train[:count] + digits.train[1 : count + 1])).astype(np.float32)


@pytest.mark.parametrize("n", [None, 100])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_foreign_samples_meet_the_rows_of_a_run(digits, split, n):
    samples = blurred(digits, 400)
    whole = split_for(digits, split)
    chosen = choose_rows(given(samples), whole, split, n=n, seed=3)
    assert chosen.n == (n or {"test": 400, "validation": 200}[split])
    np.testing.assert_array_equal(chosen.reference, reference_rows(whole, split, chosen.n, 3))
    assert len(chosen.train) == {"test": 1297, "validation": 1097}[split]
    assert chosen.train is whole.train
    assert (chosen.overlap.reference, chosen.overlap.train, chosen.overlap.repeated, chosen.left_out) == (0, 0, 0, 0)
    position = {row.tobytes(): index for index, row in enumerate(samples)}
    order = [position[row.tobytes()] for row in chosen.samples]
    assert order == sorted(set(order))


def test_reference_rows_as_samples_are_left_out_of_the_reference(digits):
    whole = split_for(digits, "test")
    chosen = choose_rows(given(digits.test), whole, "test")
    assert (chosen.n, chosen.overlap.reference) == (250, 500)
    assert rows_of(chosen.samples) | rows_of(chosen.reference) == rows_of(digits.test)
    assert not rows_of(chosen.samples) & rows_of(chosen.reference)
    chosen = choose_rows(given(digits.test[:100]), whole, "test")
    assert (chosen.n, chosen.left_out) == (100, 100)
    mixed = np.concatenate([digits.test[:200], blurred(digits, 300)])
    chosen = choose_rows(given(mixed), whole, "test")
    # n samples and n reference rows, less those of 200 that were chosen: about n (1 + 2 / 5) = 500
    assert 330 <= chosen.n <= 385
    known = len(rows_of(chosen.samples) & rows_of(digits.test))
    assert chosen.left_out == known
    assert chosen.n + known in (500, 499)
    with pytest.raises(ParameterError, match=f"allowed: n from 8 to {chosen.n}"):
        choose_rows(given(mixed), whole, "test", n=chosen.n + 1)


def test_levels_decide_what_is_equal(digits):
    levels = to_levels(digits.train[:50])
    rows = levels.astype(np.float32) / 127.5 - 1  # as an 8-bit file gives them back
    assert not (rows == digits.train[:50]).all()
    chosen = choose_rows(given(np.concatenate([rows, rows[:7]])), split_for(digits, "test"), "test")
    assert (chosen.overlap.train, chosen.overlap.repeated) == (57, 7)
    levels[:, 0] += 1
    chosen = choose_rows(given(levels.astype(np.float32) / 127.5 - 1), split_for(digits, "test"), "test")
    assert chosen.overlap.train == 0


def test_the_floor_is_held_out(digits):
    whole = split_for(digits, "test")
    for count, held_out in ((150, rows_of(digits.test)), (300, rows_of(whole.train))):
        chosen = choose_rows(given(blurred(digits, count)), whole, "test")
        floor = chosen.floor
        assert floor is not None
        assert floor.rows.shape == (count, 64)
        assert rows_of(floor.rows) <= held_out
        assert not rows_of(floor.rows) & (rows_of(chosen.reference) | rows_of(chosen.samples) | rows_of(floor.train))
        assert ("taken out of the training rows" in floor.what) == (count == 300)
        assert len(floor.train) == 1297 - (count if count == 300 else 0)
    small = whole.with_train_size(500)
    assert choose_rows(given(blurred(digits, 300)), small, "test").floor is None


def test_training_rows_as_the_reference(digits):
    whole = split_for(digits, "train")
    chosen = choose_rows(given(digits.train[:300]), whole, "train")
    assert chosen.n == 300
    assert chosen.floor is not None
    parts = [rows_of(rows) for rows in (chosen.reference, chosen.floor.rows, chosen.floor.train)]
    assert [len(part) for part in parts] == [300, 300, 697]
    assert len(set.union(*parts)) == 1297
    assert rows_of(chosen.samples) <= rows_of(chosen.train)  # copies stay among the training rows, and are found
    assert not rows_of(chosen.train) & rows_of(chosen.reference)


def test_points_are_equal_when_their_numbers_are():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((90, 2)).astype(np.float32)
    rows[0, 0] = 0.0
    dataset = Dataset("points", rows[:40], rows[40:50], rows[50:])
    mirrored = rows.copy()
    mirrored[0, 0] = -0.0
    samples = Samples("rows", mirrored[:20], None, (), "")
    chosen = choose_rows(samples, dataset, "test")
    assert (chosen.n, chosen.overlap.train, chosen.overlap.reference) == (20, 20, 0)
    assert choose_rows(Samples("rows", rows + 1e-6, None, (), ""), dataset, "test").overlap.train == 0


def test_the_choice_is_a_function_of_the_seed(digits):
    whole = split_for(digits, "test")
    first, again, other = (choose_rows(given(blurred(digits, 400)), whole, "test", n=90, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.samples, again.samples)
    np.testing.assert_array_equal(first.reference, again.reference)
    assert len(rows_of(first.samples) & rows_of(other.samples)) < 60
    assert len(rows_of(first.reference) & rows_of(other.reference)) < 60


@pytest.mark.parametrize("n", [0, 7, 201])
def test_an_impossible_n_is_refused(digits, n):
    with pytest.raises(ParameterError, match=f"got {n}; allowed: n from 8 to 200"):
        choose_rows(given(blurred(digits, 200)), split_for(digits, "test"), "test", n=n)
