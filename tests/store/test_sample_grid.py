import io

import numpy as np
import pytest
from PIL import Image

from kfpbench.data.dataset import Dataset
from kfpbench.errors import ShapeError
from kfpbench.store.sample_grid import (
    CANVAS,
    GAP,
    GAP_LEVEL,
    MARGIN_BOTTOM,
    MARGIN_LEFT,
    MARGIN_RIGHT,
    MARGIN_TOP,
    REFERENCE_COLOUR,
    SAMPLE_COLOUR,
    Frame,
    grid_layout,
    image_grid,
    sample_picture,
    scatter,
    ticks,
)


@pytest.mark.parametrize(
    ("n", "channels", "height", "width"),
    [(5, 3, 8, 8), (4, 1, 8, 8), (1, 3, 32, 32), (7, 1, 3, 5), (2, 3, 70, 70)],
)
def test_every_pixel_of_the_grid_is_where_it_belongs(n, channels, height, width):
    levels = np.random.default_rng(0).integers(0, 255, size=(n, channels, height, width))
    picture = np.asarray(image_grid(levels / 127.5 - 1))
    if channels == 1:
        picture = picture[..., None]
    columns, rows, scale = grid_layout(n, height, width)
    assert picture.shape == (
        GAP + rows * (scale * height + GAP),
        GAP + columns * (scale * width + GAP),
        channels,
    )
    expected = np.full_like(picture, GAP_LEVEL)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                top = GAP + (i // columns) * (scale * height + GAP) + scale * y
                left = GAP + (i % columns) * (scale * width + GAP) + scale * x
                expected[top : top + scale, left : left + scale] = levels[i, :, y, x]
    assert np.array_equal(picture, expected)


def test_small_images_are_enlarged_by_a_whole_factor():
    assert [grid_layout(64, side, side) for side in (8, 28, 32, 64, 100)] == [
        (8, 8, 8),
        (8, 8, 2),
        (8, 8, 2),
        (8, 8, 1),
        (8, 8, 1),
    ]


def test_values_outside_the_range_are_clipped_and_nan_is_black():
    row = np.array([-5.0, -1.0, 0.0, 1.0, 5.0, np.nan], np.float32).reshape(1, 1, 1, 6)
    picture = np.asarray(image_grid(row))
    scale = grid_layout(1, 1, 6)[2]
    assert picture[GAP, GAP::scale][:6].tolist() == [0, 0, 128, 255, 255, 0]


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 2, 4, 4), (3, 4, 4)])
def test_what_is_not_a_stack_of_images_is_refused(shape):
    with pytest.raises(ShapeError):
        image_grid(np.zeros(shape))


def test_the_frame_maps_its_corners_to_the_corners_of_the_plot():
    frame = Frame.around(np.array([[-1.0, 0.0], [1.0, 1.0]]))
    assert (frame.low_x, frame.low_y, frame.side) == pytest.approx((-1.2, -0.7, 2.4))
    corners = np.array([[-1.2, -0.7], [1.2, 1.7]])
    assert frame.pixels(corners) == pytest.approx(
        np.array([[MARGIN_LEFT, CANVAS - MARGIN_BOTTOM], [CANVAS - MARGIN_RIGHT, MARGIN_TOP]])
    )


def colour_near(picture, centre, colour, reach=0):
    x, y = np.rint(centre).astype(int)
    patch = np.asarray(picture)[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(int)
    return np.abs(patch - colour).max(axis=-1).min() < 60


def test_each_point_is_drawn_at_its_place_in_its_colour():
    reference = np.array([[-1.0, -1.0], [1.0, 1.0], [-0.5, 0.5]])
    samples = np.array([[0.25, -0.6], [0.5, 0.75], [-0.75, 0.1], [1.0, 1.0]])
    picture = scatter(samples, reference)
    assert picture.size == (CANVAS, CANVAS)
    frame = Frame.around(reference)
    for centre in frame.pixels(samples):  # over the reference where both are
        assert colour_near(picture, centre, SAMPLE_COLOUR)
    for centre in frame.pixels(reference[[0, 2]]):
        assert colour_near(picture, centre, REFERENCE_COLOUR)
    # and nowhere else: sample-coloured pixels inside the plot lie within a dot of a sample
    inside = np.asarray(picture).astype(int)
    ys, xs = np.nonzero(np.abs(inside - SAMPLE_COLOUR).max(axis=-1) < 60)
    plot = (xs > MARGIN_LEFT) & (xs < CANVAS - MARGIN_RIGHT) & (ys > MARGIN_TOP) & (ys < CANVAS - MARGIN_BOTTOM)
    spots = np.stack([xs[plot], ys[plot]], axis=1)
    distances = np.linalg.norm(spots[:, None] - frame.pixels(samples)[None], axis=-1).min(axis=1)
    assert distances.max() < 3.5


def test_samples_outside_the_frame_and_nan_are_counted_not_drawn():
    reference = np.array([[-1.0, -1.0], [1.0, 1.0]])
    inside = np.array([[0.0, 0.0]])
    lost = np.array([[50.0, 0.0], [np.nan, 0.0], [0.0, -np.inf]])
    with_lost = np.asarray(scatter(np.concatenate([inside, lost]), reference))
    without = np.asarray(scatter(inside, reference))
    plot, note = slice(MARGIN_TOP, CANVAS - MARGIN_BOTTOM), slice(CANVAS - 24, CANVAS)
    assert np.array_equal(with_lost[plot], without[plot])
    assert (without[note] == 255).all()
    assert (with_lost[note] < 200).any()


def test_a_long_title_stays_within_the_plot():
    points = np.array([[-1.0, -1.0], [1.0, 1.0]])
    top = np.asarray(scatter(points, points, title="a very long label " * 20))[:24]
    assert (top[:, CANVAS - MARGIN_RIGHT + 2 :] == 255).all()
    assert (top < 200).any()


def test_the_frame_is_the_same_for_every_cell_of_a_data_set():
    reference = np.array([[-1.0, -1.0], [1.0, 1.0]])
    blank = np.full((1, 2), np.nan)
    left = slice(None), slice(0, MARGIN_LEFT - 4)  # the numbers of the axis
    wide = np.asarray(scatter(np.array([[90.0, 90.0]]), reference))
    assert np.array_equal(np.asarray(scatter(blank, reference))[left], wide[left])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1.2, 1.2, [-1, -0.5, 0, 0.5, 1]),
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-6e-3, 6e-3, [-6e-3, -4e-3, -2e-3, 0, 2e-3, 4e-3, 6e-3]),
        (99.5, 100.5, [99.6, 99.8, 100.0, 100.2, 100.4]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def dataset(dimension, shape=None):
    rows = np.random.default_rng(0).uniform(-1, 1, size=(9, dimension)).astype(np.float32)
    return Dataset("any", rows[:3], rows[3:6], rows[6:], image_shape=shape)


@pytest.mark.parametrize(
    ("dimension", "shape", "size"),
    [(2, None, (640, 640)), (5, None, (640, 640)), (64, (1, 8, 8), (200, 200)), (1, None, None)],
)
def test_the_picture_fits_the_kind_of_data(dimension, shape, size):
    data = dataset(dimension, shape)
    content = sample_picture(np.zeros((9, dimension), np.float32), data)
    if size is None:
        assert content is None
    else:
        assert Image.open(io.BytesIO(content)).size == size


def test_no_samples_give_no_picture():
    assert sample_picture(np.zeros((0, 2), np.float32), dataset(2)) is None


def test_only_so_many_images_are_shown():
    content = sample_picture(np.zeros((50, 64), np.float32), dataset(64, (1, 8, 8)), max_images=4)
    assert Image.open(io.BytesIO(content)).size == (2 * 66 + 2, 2 * 66 + 2)
