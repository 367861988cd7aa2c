"""Depth and time: agreement along Z, objects through planes and blocks, tables in real units."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from stacks import any_specialist, drained, spots, stored, write_source

from napari_ptsam.errors import InputError
from napari_ptsam.measure import ObjectSums, measure_objects
from napari_ptsam.objects import Splitting, split_objects
from napari_ptsam.planes import Part, open_planes
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Settings, segment_volume
from napari_ptsam.volumes.blocks import Block
from napari_ptsam.volumes.depth import logit
from napari_ptsam.volumes.finishing import Order
from napari_ptsam.volumes.linking import Linker, Sets, pieces

SCALE = {"T": (3.0, "s"), "Z": (0.5, "µm"), "Y": (0.1, "µm"), "X": (0.1, "µm")}


@pytest.fixture(scope="module")
def specialist(tiny_backbone: Path) -> Specialist:
    return any_specialist(tiny_backbone)


def probabilities(specialist, source, out, **settings):
    settings = Settings(probability=True, **settings)
    drained(segment_volume(specialist, source, out, settings))
    return stored(out.with_name(f"{out.stem}_probability.zarr"))


# ---- agreement along Z


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "ZTYX"])
def test_smoothing_averages_the_logits_of_neighbours_of_the_same_time(specialist, tmp_path, axes):
    shape = {"ZYX": (5, 40, 50), "TZYX": (2, 4, 40, 50), "ZTYX": (4, 2, 40, 50)}[axes]
    data = spots(*shape)
    found = probabilities(
        specialist, open_planes(data, axes=axes), tmp_path / "out.zarr", z_smooth=0.7
    )
    plain = np.array([specialist.predict(p).probability for p in data.reshape(-1, 40, 50)])
    logits = logit(plain).astype(np.float32).reshape(shape)
    if axes == "ZTYX":
        logits = logits.swapaxes(0, 1)  # stored as the format demands
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 0.7) ** 2)
    depth = logits.ndim - 3
    total = ndimage.correlate1d(logits, weights, axis=depth, mode="constant")
    count = ndimage.correlate1d(np.ones_like(logits), weights, axis=depth, mode="constant")
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-total / count)), atol=1e-5)


def test_smoothing_of_blocks_is_that_of_planes(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(3, 100, 90))
    planes = probabilities(specialist, source, tmp_path / "planes.zarr", z_smooth=1.0)
    blocks = probabilities(specialist, source, tmp_path / "blocks.zarr", z_smooth=1.0, block=64)
    np.testing.assert_allclose(blocks, planes, atol=0.003)  # half precision in between


def test_three_axes_are_averaged_and_turn_with_the_volume(specialist, tmp_path):
    data = spots(24, 40, 36)
    found = probabilities(
        specialist,
        write_source(tmp_path / "a.zarr", data),
        tmp_path / "a-out.zarr",
        three_axes=True,
    )
    flat = np.array([specialist.predict(plane).probability for plane in data])
    assert found.shape == flat.shape
    assert np.abs(found - flat).max() > 0.001
    # One brightness for the whole volume, so that cuts along all axes are normalised alike.
    fixed = Specialist(specialist.method, specialist.backbone, specialist.metadata)
    fixed.normalization = specialist.normalization.fitted(open_planes(data), [3])
    object.__setattr__(fixed.normalization, "per", "stack")
    object.__setattr__(fixed.normalization, "range", (200.0, 2000.0))
    one = probabilities(fixed, open_planes(data), tmp_path / "one.zarr", three_axes=True)
    turned = np.ascontiguousarray(data.transpose(1, 0, 2))
    other = probabilities(fixed, open_planes(turned), tmp_path / "two.zarr", three_axes=True)
    for volume, result in ((data, one), (turned, other)):
        logits = []
        for axis in range(3):
            cuts = [np.take(volume, i, axis) for i in range(volume.shape[axis])]
            shown = [fixed.predict(np.ascontiguousarray(cut)).probability for cut in cuts]
            logits.append(np.stack([logit(p) for p in shown], axis).astype(np.float32))
        np.testing.assert_allclose(result, 1 / (1 + np.exp(-np.mean(logits, 0))), atol=0.003)


def test_tall_voxels_are_stretched_before_they_are_shown(specialist, tmp_path, monkeypatch):
    from napari_ptsam.volumes import depth

    seen = []
    monkeypatch.setattr(
        depth, "prepare_plane",
        lambda image, *rest, original=depth.prepare_plane: (
            seen.append(image.shape[:2]), original(image, *rest)
        )[1],
    )  # fmt: skip
    source = write_source(tmp_path / "in.zarr", spots(4, 20, 30), scale=SCALE)
    probabilities(specialist, source, tmp_path / "out.zarr", three_axes=True)
    assert set(seen) == {(20, 30), (20, 20)}  # Z is five times as far


@pytest.mark.parametrize("setting", [{"z_smooth": 1.0}, {"three_axes": True}])
def test_what_has_no_depth_is_refused(specialist, tmp_path, setting):
    movie = open_planes(spots(3, 40, 50), axes="TYX")
    with pytest.raises(InputError, match="no axis Z"):
        drained(segment_volume(specialist, movie, tmp_path / "out.zarr", Settings(**setting)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"z_smooth": -1}, {"version": "0.1"}, {"block": 100}])
def test_settings_that_cannot_be_used_are_refused(wrong):
    with pytest.raises(InputError):
        Settings(**wrong)


# ---- objects


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("side", [None, 32])
@pytest.mark.parametrize("share", [0.2, 0.45, 0.6])
def test_linking_pieces_gives_the_numbers_of_the_whole(share, side, through):
    mask = np.random.default_rng(1).random((4, 70, 90)) < share
    blocks = Block.all_of(mask.shape[1:], side)
    linker = Linker(mask.shape[1:], blocks)
    for _, plane, block in pieces(4, blocks):
        above = mask[plane - 1][block.slices] if through and plane else None
        linker.add(mask[plane][block.slices], above)
    numbers, found = linker.finish(3), np.zeros(mask.shape, np.uint32)
    for number, plane, block in pieces(4, blocks):
        found[plane][block.slices] = numbers.apply(number, mask[plane][block.slices])
    if through:
        expected = split_objects(mask, Splitting(3))
    else:
        expected, count = np.zeros(mask.shape, int), 0
        for plane, one in enumerate(mask):
            labels = split_objects(one, Splitting(3))
            expected[plane] = np.where(labels > 0, labels + count, 0)
            count += labels.max()
    np.testing.assert_array_equal(found, expected)
    assert numbers.count == expected.max()


def test_sets_are_named_after_their_smallest_number():
    sets = Sets()
    sets.extend(6)
    sets.join(np.array([5, 3, 0]), np.array([4, 6, 2]))
    sets.join(np.array([6]), np.array([5]))
    assert sets.roots().tolist() == [0, 1, 2, 3, 3, 3, 3]


def test_objects_are_linked_over_planes_and_blocks_and_measured(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(2, 3, 100, 90), "TZYX", SCALE)
    for name, block in (("planes", None), ("blocks", 64)):
        settings = Settings(objects=True, block=block)
        drained(segment_volume(specialist, source, tmp_path / f"{name}.zarr", settings))
        labels = stored(tmp_path / f"{name}_objects.zarr")
        mask = stored(tmp_path / f"{name}.zarr") > 0
        first = split_objects(mask[0])
        second = split_objects(mask[1])
        np.testing.assert_array_equal(labels[0], first)
        np.testing.assert_array_equal(labels[1], np.where(second > 0, second + first.max(), 0))
        with (tmp_path / f"{name}_objects.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == labels.max()
        assert {row["t"] for row in rows} == {"0", "1"}
        volume = float(rows[0]["volume (µm³)"])
        assert volume == pytest.approx((labels == 1).sum() * 0.5 * 0.1 * 0.1)


def test_pieces_add_up_to_what_the_whole_measures():
    rng = np.random.default_rng(3)
    labels = split_objects(rng.random((4, 30, 40)) < 0.3)
    grey = rng.random(labels.shape)
    sums = ObjectSums("zyx")
    for z in range(4):
        for y in (0, 16):
            piece = (z, slice(y, y + 16))
            sums.add(labels[piece], (z, y, 0), grey[piece])
    found = sums.table(spacing=(2, 0.5, 0.5), unit="µm")
    whole = measure_objects(labels, grey, spacing=(2, 0.5, 0.5), unit="µm")
    for name, values in found.columns.items():
        np.testing.assert_allclose(values, whole.columns[name], rtol=1e-6, err_msg=name)
        assert found.units.get(name) == whole.units.get(name)
    assert set(whole.columns) - set(found.columns) == {"major_axis"}


def test_planes_are_linked_in_the_order_of_depth_within_a_time_point():
    order = Order.of(Part("a", 6, "ZT", (3, 2)))
    assert order.planes == [0, 2, 4, 1, 3, 5]
    assert order.linked == [False, True, True, False, True, True]
    assert Order.of(Part("a", 3, "T", (3,))).linked == [False, False, False]
    assert Order.of(Part("a")).planes == [0]
