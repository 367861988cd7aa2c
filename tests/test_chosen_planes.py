"""Planes chosen of a stack remember where they lay in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stacks import any_specialist, drained, spots, stored, write_source

from napari_ptsam.errors import InputError
from napari_ptsam.objects import split_objects
from napari_ptsam.planes import Part, open_planes
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Settings, segment_volume
from napari_ptsam.volumes.depth import logit, series_of, stretch_of
from napari_ptsam.volumes.finishing import Order, spacing_of

SCALE = {"T": (3.0, "s"), "Z": (0.5, "µm"), "Y": (0.1, "µm"), "X": (0.1, "µm")}
MOVIE = Part("movie", 12, "TZ", (3, 4), SCALE)
STACK = Part("stack", 30, "Z", (30,), SCALE)


@pytest.fixture(scope="module")
def specialist(tiny_backbone: Path) -> Specialist:
    return any_specialist(tiny_backbone)


@pytest.mark.parametrize(
    ("numbers", "axes", "shape"),
    [
        (range(8), "TZ", (2, 4)),
        ([0, 2, 8, 10], "TZ", (2, 2)),
        (range(4, 8), "Z", (4,)),
        ([1, 5, 9], "T", (3,)),
        ([7], "Z", (1,)),
        (range(6), "Z", (6,)),
        ([4, 0], "Z", (2,)),
        ([0, 0], "Z", (2,)),
    ],
)
def test_a_choice_that_is_a_grid_keeps_its_axes(numbers, axes, shape):
    part = MOVIE.choose(numbers)
    assert (part.axes, part.shape, part.count) == (axes, shape, len(numbers))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (STACK.choose(range(10, 20)), {"Z": 0.5}),
        (STACK.choose([0, 10, 20]), {"Z": 5.0}),
        (STACK.choose([7]), {"Z": 0.5}),
        (STACK.choose([0, 1, 10]), {}),
        (STACK.choose([4, 1]), {}),
        (MOVIE.choose([0, 2, 8, 10]), {"T": 6.0, "Z": 1.0}),
        (MOVIE.choose(range(6)), {}),
    ],
)
def test_planes_left_out_change_the_distance_of_the_others(part, expected):
    assert {axis: part.scale[axis][0] for axis in part.axes if axis in part.scale} == expected
    assert part.scale["X"] == (0.1, "µm")
    # Where the distance is unknown, objects are measured in pixels.
    if part.axes == "Z":
        assert spacing_of(part, "ZYX")[1] == ("µm" if expected else "pixel")


def test_a_choice_of_a_choice_is_one_of_the_whole():
    part = STACK.choose(range(10, 20)).choose([0, 2, 4])
    assert part == STACK.choose([10, 12, 14])
    assert STACK.choose(range(5)).origin is STACK
    assert STACK.choose(range(30)) is STACK
    data = spots(2, 3, 8, 9)
    (part,) = open_planes(data, axes="TZYX").subset(range(1, 6)).subset(range(2, 5)).parts
    assert (part.axes, part.shape, part.places()) == ("Z", (3,), {"T": [1, 1, 1], "Z": [0, 1, 2]})


@pytest.mark.parametrize(
    ("part", "runs"),
    [
        (MOVIE.choose(range(8)), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (MOVIE.choose(range(2, 6)), [[0, 1], [2, 3]]),
        (MOVIE.choose([0, 4, 8]), [[0], [1], [2]]),
        (STACK.choose([0, 10, 20]), [[0], [1], [2]]),
        (STACK.choose([0, 1, 2, 10, 11]), [[0, 1, 2], [3, 4]]),
        (STACK.choose([5, 3, 4, 4]), [[1, 2], [3, 0]]),
        (Part("a", 6, "ZT", (3, 2)).choose(range(5)), [[0, 2, 4], [1, 3]]),
        (Part("a", 6, "AZ", (2, 3)), [[0, 1, 2], [3, 4, 5]]),
        (Part("a", 6, "TQ", (2, 3)), [[0, 1, 2], [3, 4, 5]]),
        (Part("a", 3, "Q", (3,)), [[0, 1, 2]]),
        (Part("a"), [[0]]),
    ],
)
def test_only_planes_right_upon_each_other_are_linked(part, runs):
    assert part.runs() == runs
    order = Order.of(part)
    assert order.planes == [number for run in runs for number in run]
    assert order.linked == [step > 0 for run in runs for step in range(len(run))]


def test_time_and_depth_of_a_choice_are_those_of_its_output():
    order = Order.of(MOVIE.choose([5, 6, 9, 10]))
    assert (order.frames, order.depths) == ([0, 0, 1, 1], [0, 1, 0, 1])
    order = Order.of(STACK.choose([10, 12, 13]))
    assert (order.frames, order.depths) == ([0, 0, 0], [0, 1, 2])
    order = Order.of(MOVIE.choose(range(6)))
    assert (order.frames, order.depths) == ([0] * 6, list(range(6)))


def test_planes_that_have_no_neighbours_cannot_agree():
    assert series_of(STACK.choose([3, 4, 9, 10])) == [[0, 1], [2, 3]]
    assert stretch_of(STACK.choose([3, 4, 10]), 0) == 5
    with pytest.raises(InputError, match=r"Of the 3 planes chosen of stack.*--planes"):
        series_of(STACK.choose([0, 10, 20]))
    with pytest.raises(InputError, match=r"no axis Z.*its axes are AT"):
        series_of(Part("a", 6, "AT", (2, 3)).choose([0, 1, 5]))


def test_objects_of_chosen_planes_join_neither_time_points_nor_gaps(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(3, 4, 64, 60), "TZYX", SCALE)
    planes = open_planes(source)
    for name, numbers, groups in (
        ("grid", range(8), [range(4), range(4, 8)]),
        ("odd", [0, 1, 3, 4], [[0, 1], [2], [3]]),
    ):
        out = tmp_path / f"{name}.zarr"
        drained(segment_volume(specialist, planes.subset(numbers), out, Settings(objects=True)))
        mask = stored(out).reshape(-1, 64, 60) > 0
        labels = stored(tmp_path / f"{name}_objects.zarr")
        assert labels.shape[:-2] == ((2, 4) if name == "grid" else (4,))
        expected, count = np.zeros(mask.shape, int), 0
        for group in groups:
            found = split_objects(mask[list(group)])
            expected[list(group)] = np.where(found > 0, found + count, 0)
            count += found.max()
        np.testing.assert_array_equal(labels.reshape(mask.shape), expected)


def test_chosen_planes_are_smoothed_within_their_runs(specialist, tmp_path):
    data, numbers = spots(12, 40, 50), [0, 1, 5, 6, 11]
    planes = open_planes(data).subset(numbers)
    settings = Settings(probability=True, z_smooth=0.7)
    drained(segment_volume(specialist, planes, tmp_path / "out.zarr", settings))
    plain = np.array([specialist.predict(data[n]).probability for n in numbers])
    logits, weight = logit(plain).astype(np.float32), np.exp(-0.5 / 0.7**2)
    other = logits[[1, 0, 3, 2, 4]]
    expected = 1 / (1 + np.exp(-(logits + weight * other) / (1 + weight)))
    found = stored(tmp_path / "out_probability.zarr")
    np.testing.assert_allclose(found, expected, atol=1e-5)
