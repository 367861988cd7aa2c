"""Any grey values become 0..255, and nothing that is in the image gets lost."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from napari_ptsam.errors import InputError
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import open_planes

RNG = np.random.default_rng(0)
WHOLE = Normalization(0, 100)


def noise(*shape, top=1000):
    return RNG.integers(0, top, shape)


@pytest.mark.parametrize(
    "dtype", ["bool", "u1", "u2", "u4", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2"]
)
@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 2), (8, 9, 3), (8, 9, 4)])
def test_every_type_and_colour_gives_rgb_from_0_to_255(dtype, shape):
    plane = (np.arange(np.prod(shape)) % 120).reshape(shape).astype(dtype)
    result = WHOLE.apply(plane)
    assert result.shape == (8, 9, 3)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert (result.min(), result.max()) == (0, 255)


def test_the_percentiles_become_0_and_255():
    plane = np.arange(1001, dtype=np.uint16)[None].repeat(3, 0)
    result = Normalization(10, 90).apply(plane)[0, :, 0]
    expected = ((np.arange(1001) - 100) / 800 * 255).clip(0, 255)
    np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (37, 41), (30, 20, 3)])
def test_counted_grey_values_have_the_percentiles_of_sorted_ones(dtype, shape):
    for top, percent in itertools.product((2, 200), ((0, 100), (0.5, 99.5), (12.34, 56.7))):
        plane = noise(*shape, top=top).astype(dtype)
        counted = Normalization(*percent).apply(plane)
        sorted_ = Normalization(*percent).apply(plane.astype(np.float64))
        np.testing.assert_allclose(counted, sorted_, rtol=1e-5, atol=1e-3)


def test_grey_values_keep_their_order_and_become_three_equal_channels():
    plane = noise(30, 40).astype(np.int32) - 500
    result = WHOLE.apply(plane)
    assert (result == result[..., :1]).all()
    order = np.argsort(plane.ravel(), kind="stable")
    assert (np.diff(result[..., 0].ravel()[order]) >= 0).all()


def test_small_differences_on_large_numbers_survive():
    plane = 2_000_000_000 + noise(8, 9, top=50).astype(np.int32)
    assert len(np.unique(WHOLE.apply(plane))) == len(np.unique(plane))


def test_channels_are_stretched_alike_so_that_colour_stays():
    plane = noise(20, 20, 3, top=100).astype(np.uint8)
    plane[..., 2] //= 4
    result = WHOLE.apply(plane)
    np.testing.assert_allclose(result, plane * (255 / plane.max()), rtol=1e-5)


def test_alpha_is_dropped():
    plane = noise(8, 9, 4, top=200).astype(np.uint8)
    np.testing.assert_array_equal(WHOLE.apply(plane), WHOLE.apply(plane[..., :3]))
    np.testing.assert_array_equal(WHOLE.apply(plane[..., :2]), WHOLE.apply(plane[..., 0]))


def test_what_is_not_finite_is_ignored_and_replaced():
    plane = np.arange(20, dtype=np.float32).reshape(4, 5)
    plane[0, :3] = np.nan, np.inf, -np.inf
    result = WHOLE.apply(plane)[..., 0]
    assert result[0, :3].tolist() == [0, 255, 0]
    np.testing.assert_allclose(result[0, 3:], [0, 255 / 16], rtol=1e-5)


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf, 1e300])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (6, 7, 3)])
def test_constant_images_are_black(value, shape):
    assert not Normalization().apply(np.full(shape, value)).any()


def test_the_largest_numbers_do_no_harm():
    plane = np.array([[-1.7e308, 0.0, 1.7e308]])
    assert np.isfinite(Normalization().apply(plane)).all()


def test_a_few_bright_spots_on_an_even_ground_do_not_vanish():
    plane = np.zeros((1500, 1500), np.uint16)
    plane[701, 503] = 40
    assert Normalization().apply(plane)[701, 503].tolist() == [255, 255, 255]


def test_large_planes_are_measured_closely_on_a_sample():
    plane = RNG.normal(1000, 100, (2000, 1700)).astype(np.float32)
    low, high = np.percentile(plane, (0.5, 99.5))
    expected = ((plane - low) / (high - low) * 255).clip(0, 255)
    assert np.abs(Normalization().apply(plane)[..., 0] - expected).max() < 2.5


@pytest.mark.parametrize("shape", [(8,), (8, 9, 5), (2, 8, 9, 3), (8, 9, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match=r"HxWxC"):
        Normalization().apply(np.zeros(shape))


# ---- per stack


def test_a_stack_keeps_its_differences_in_brightness():
    data = np.stack([noise(50, 50, top=level) for level in (50, 100, 200)])
    fitted = Normalization(0, 100, per="stack").fitted(open_planes(data), range(3))
    assert fitted.range == (data.min(), data.max())
    tops = [fitted.apply(plane).max() for plane in data]
    np.testing.assert_allclose(tops, data.max((1, 2)) / data.max() * 255, rtol=1e-4)


def test_a_bounded_even_sample_of_a_stack_is_read():
    planes = open_planes(np.arange(1000)[:, None, None] * np.ones((1, 8, 9)))
    seen = []
    read = planes.read
    planes.read = lambda index: (seen.append(index), read(index))[1]
    fitted = Normalization(0, 100, per="stack").fitted(planes, range(0, 1000, 3))
    assert len(seen) == 16
    assert seen[0] == 0
    assert seen[-1] == 999
    assert fitted.range == (0, 999)


def test_fitting_changes_nothing_that_is_known():
    planes = open_planes(np.ones((2, 8, 9)))
    per_image = Normalization()
    assert per_image.fitted(planes, range(2)) is per_image
    known = Normalization(per="stack", range=(1, 2))
    assert known.fitted(planes, range(2)) is known


def test_a_stack_that_was_not_measured_is_refused():
    with pytest.raises(InputError, match="'fitted'"):
        Normalization(per="stack").apply(np.zeros((4, 4)))
    with pytest.raises(InputError, match="No plane"):
        Normalization(per="stack").fitted(open_planes(np.zeros((4, 4))), [])


# ---- spots on an even ground


def test_a_plane_of_spots_measured_in_windows_has_the_range_of_the_whole():
    plane = np.full((1500, 1500), 100, np.uint16)
    plane[3, 3], plane[1, 1] = 2973, 60000  # every third row and column is in the sample
    per_image = Normalization()
    measured = per_image.measured(open_planes(plane), 0, side=512)
    assert measured.range == (100, 60000)
    np.testing.assert_array_equal(measured.apply(plane), per_image.apply(plane))


@pytest.mark.parametrize("count", [3, 40])
def test_a_stack_of_spots_does_not_become_black(count):
    data = np.full((count, 300, 320), 100, np.uint16)
    data[:, 1, 1], data[:, 5, 7] = 2000, 60000  # between the rows and columns of the sample
    fitted = Normalization(per="stack").fitted(open_planes(data), range(count))
    assert fitted.range == (100, 60000)
    assert fitted.apply(data[0])[5, 7].tolist() == [255, 255, 255]


def test_where_percentiles_differ_they_are_the_range():
    data = noise(3, 50, 60).astype(np.float32)
    data[0, :2] = np.nan
    planes = open_planes(data)
    expected = np.percentile(data[np.isfinite(data)], (0.5, 99.5))
    assert Normalization(per="stack").fitted(planes, range(3)).range == tuple(expected)
    expected = np.percentile(data[1], (0.5, 99.5))
    assert Normalization().measured(planes, 1).range == tuple(expected)


def test_a_stack_without_finite_values_is_black():
    data = np.full((2, 8, 9), np.nan)
    fitted = Normalization(per="stack").fitted(open_planes(data), range(2))
    assert fitted.range == (0, 0)
    assert not fitted.apply(data[0]).any()


# ---- settings


@pytest.mark.parametrize(
    "settings", [Normalization(), Normalization(1, 99, "stack", (0.1, 4095.0))]
)
def test_settings_survive_a_text_file(settings):
    assert Normalization.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    "settings",
    [
        {"low": -1},
        {"high": 101},
        {"low": 50, "high": 50},
        {"low": float("nan")},
        {"low": "x"},
        {"low": None},
        {"per": "plane"},
        {"range": [1]},
        {"range": [2, 1]},
        {"range": [0, float("inf")]},
        {"range": 3},
        {"gamma": 1},
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings):
    with pytest.raises(InputError, match=r"alid|cannot be used|not exist"):
        Normalization.from_dict(settings)
