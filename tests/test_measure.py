"""Masks to numbered objects and tables: shapes whose measures are known."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import disc

from napari_ptsam.errors import InputError
from napari_ptsam.measure import ObjectSums, ObjectTable, join_tables, measure_objects
from napari_ptsam.objects import Splitting, split_objects, without_small

APART = Splitting(separate=True)


def discs(*circles: tuple[float, float, float], shape: tuple[int, int] = (80, 120)) -> NDArray:
    mask = np.zeros(shape, bool)
    for row, column, radius in circles:
        mask |= disc(shape, (row, column), radius)
    return mask


def test_objects_are_numbered_in_the_order_of_their_first_pixels() -> None:
    mask = discs((60, 20, 6), (20, 90, 9), (20, 30, 4))
    labels = split_objects(mask)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels > 0, mask)
    assert [labels[20, 90], labels[20, 30], labels[60, 20]] == [1, 2, 3]


def test_a_line_of_one_pixel_that_runs_askew_is_one_object() -> None:
    assert split_objects(np.eye(12, dtype=bool)).max() == 1


@pytest.mark.parametrize("radius", [4, 8, 16, 30])
def test_two_discs_that_touch_are_cut_at_any_size(radius: int) -> None:
    shape = (2 * radius + 10, 5 * radius + 10)
    row, first = radius + 4, radius + 4
    second = first + round(1.7 * radius)
    mask = discs((row, first, radius), (row, second, radius), shape=shape)
    assert split_objects(mask).max() == 1
    labels = split_objects(mask, APART)
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, mask)
    assert labels[row, first] != labels[row, second]
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.min() > 0.95 * sizes.max()


def test_a_small_object_beside_a_large_one_is_cut_off() -> None:
    labels = split_objects(discs((40, 40, 28), (40, 73, 7)), APART)
    assert labels.max() == 2
    assert labels[40, 40] != labels[40, 75]


@pytest.mark.parametrize("seed", range(5))
def test_rough_outlines_and_long_shapes_stay_whole(seed: int) -> None:
    rows, columns = np.mgrid[:80, :120]
    rng = np.random.default_rng(seed)
    angle = np.arctan2(rows - 40, columns - 60)
    bumps = sum(rng.uniform(-1, 1) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(3, 12))
    ellipse = np.hypot((rows - 40) / 18, (columns - 60) / 40) < 1 + 0.01 * bumps
    rod = (abs(rows - 40 + rng.uniform(-0.2, 0.2) * (columns - 60)) < 5) & (abs(columns - 60) < 50)
    assert split_objects(ellipse, APART).max() == 1
    assert split_objects(rod, APART).max() == 1


def test_the_pixel_size_decides_where_a_neck_is() -> None:
    """Two boxes joined by a bar of half their height, which is no neck if rows are short."""
    mask = np.zeros((40, 90), bool)
    mask[5:35, 5:25] = mask[5:35, 65:85] = True
    mask[13:27, 5:85] = True
    assert split_objects(mask, APART).max() == 2
    assert split_objects(mask, APART, spacing=(10, 1)).max() == 1


def test_no_fragment_below_the_minimum_size_is_cut_off() -> None:
    mask = discs((40, 40, 20), (40, 64, 6))
    alone = split_objects(mask, Splitting(minimum_size=300, separate=True))
    assert alone.max() == 1
    np.testing.assert_array_equal(alone > 0, mask)


def test_small_objects_are_left_out_and_numbers_have_no_gaps() -> None:
    mask = discs((20, 20, 3), (20, 60, 9), (60, 60, 9))
    small = int(discs((20, 20, 3)).sum())
    kept = split_objects(mask, Splitting(minimum_size=small + 1))
    assert sorted(np.unique(kept)) == [0, 1, 2]
    assert split_objects(mask, Splitting(minimum_size=small)).max() == 3
    np.testing.assert_array_equal(without_small(mask, small + 1), kept > 0)
    np.testing.assert_array_equal(without_small(mask, 0), mask)


def test_objects_are_linked_through_planes_where_they_overlap() -> None:
    stack = np.zeros((4, 30, 30), bool)
    stack[0, 5:12, 5:12] = stack[1, 6:13, 6:13] = True
    stack[2, 13:20, 13:20] = True  # only a corner of it meets the object above
    stack[3, 5:12, 5:12] = True
    labels = split_objects(stack)
    assert labels.max() == 3
    assert labels[0, 5, 5] == labels[1, 12, 12] == 1


def test_touching_objects_are_cut_in_3d_with_tall_voxels() -> None:
    z, y, x = np.mgrid[:13, :40, :60]
    spheres = [((z - 6) * 3) ** 2 + (y - 20) ** 2 + (x - c) ** 2 <= 15**2 for c in (17, 42)]
    mask = spheres[0] | spheres[1]
    assert split_objects(mask).max() == 1
    labels = split_objects(mask, APART, spacing=(3, 1, 1))
    assert labels.max() == 2
    assert labels[6, 20, 17] != labels[6, 20, 42]


def test_an_empty_mask_has_no_objects() -> None:
    for shape in ((8, 9), (3, 8, 9)):
        assert not split_objects(np.zeros(shape, bool), Splitting(5, separate=True)).any()


def test_a_rectangle_is_measured_in_physical_units() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[10:14, 20:32] = 1
    table = measure_objects(
        labels, spacing=(0.5, 0.25), origin=(100, 0), unit="µm", where={"plane": 7}
    )
    row = {name: values[0] for name, values in table.columns.items()}
    assert len(table) == 1
    assert (row["label"], row["plane"], row["pixels"]) == (1, 7, 48)
    assert row["area"] == pytest.approx(48 * 0.125)
    assert (row["centroid_y"], row["centroid_x"]) == pytest.approx((100 + 11.5 * 0.5, 25.5 * 0.25))
    assert [row[f"{e}_{a}"] for a in "yx" for e in ("first", "last")] == [10, 13, 20, 31]
    assert row["equivalent_diameter"] == pytest.approx(2 * math.sqrt(6 / math.pi))
    assert row["solidity"] == 1
    assert list(table.columns)[:2] == ["label", "plane"]
    assert {"area (µm²)", "centroid_y (µm)", "first_x (pixel)"} <= set(table.headings())


def test_an_ellipse_has_its_axes_and_eccentricity_in_spite_of_oblong_pixels() -> None:
    rows, columns = np.mgrid[:200, :200]
    labels = (np.hypot((rows - 100) * 0.5 / 20, (columns - 100) / 40) <= 1).astype(np.int32)
    table = measure_objects(labels, spacing=(0.5, 1.0))
    assert table.columns["major_axis"][0] == pytest.approx(80, rel=0.01)
    assert table.columns["minor_axis"][0] == pytest.approx(40, rel=0.01)
    assert table.columns["eccentricity"][0] == pytest.approx(math.sqrt(0.75), rel=0.01)
    assert table.columns["solidity"][0] > 0.97


def test_boxes_in_3d_have_volume_and_bounds() -> None:
    labels = np.zeros((6, 20, 20), np.int32)
    labels[1:4, 5:15, 2:6] = 3
    labels[5, 0, 0] = 4
    table = measure_objects(labels, labels * 10.0, spacing=(2, 0.5, 0.5), unit="µm")
    assert table.columns["label"].tolist() == [3, 4]
    assert table.columns["voxels"].tolist() == [120, 1]
    assert table.columns["volume"].tolist() == [60, 0.5]
    assert table.columns["centroid_z"].tolist() == [4, 10]
    assert (table.columns["first_z"][0], table.columns["last_z"][0]) == (1, 3)
    assert table.columns["intensity_mean"].tolist() == [30, 40]
    assert "volume (µm³)" in table.headings()


def test_intensity_is_measured_for_each_colour() -> None:
    labels = np.ones((4, 4), np.int32)
    image = np.stack([np.full((4, 4), value) for value in (1.0, 2.0, 3.0)], -1)
    table = measure_objects(labels, image)
    assert [table.columns[f"intensity_mean_{c}"][0] for c in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("colours", [1, 3])
def test_alpha_is_no_colour(colours: int) -> None:
    labels = np.ones((4, 4), np.int32)
    image = np.full((4, 4, colours + 1), 10, np.uint8)
    image[..., -1] = 255
    sums = ObjectSums("yx")
    sums.add(labels, (0, 0), image)
    found = sums.table().columns
    assert [found[f"intensity_{kind}"][0] for kind in ("mean", "min", "max")] == [10, 10, 10]
    table, plain = measure_objects(labels, image), measure_objects(labels, image[..., :-1])
    assert list(table.columns) == list(plain.columns)


def test_an_image_without_objects_has_the_same_columns() -> None:
    empty = measure_objects(np.zeros((8, 8), int), np.zeros((8, 8)), where={"plane": 1})
    full = measure_objects(np.ones((8, 8), int), np.zeros((8, 8)), where={"plane": 0})
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)
    joined = join_tables([full, empty, full])
    assert joined.columns["plane"].tolist() == [0, 0]
    assert joined.units == full.units
    assert len(join_tables([])) == 0


def test_what_does_not_fit_is_refused_in_words() -> None:
    mask = np.ones((4, 5), bool)
    with pytest.raises(InputError, match="plane \\(HxW\\)"):
        split_objects(np.ones(3, bool))
    with pytest.raises(InputError, match="one number above 0 for each axis"):
        split_objects(mask, APART, spacing=(1, 1, 1))
    with pytest.raises(InputError, match="one number above 0"):
        measure_objects(mask.astype(int), spacing=(0, 1))
    with pytest.raises(InputError, match="same pixels"):
        measure_objects(mask.astype(int), np.zeros((4, 4)))
    with pytest.raises(InputError, match="from 0 on"):
        without_small(mask, -1)


def test_a_table_is_written_for_spreadsheets_and_programs(tmp_path: Path) -> None:
    table = ObjectTable(
        {"label": np.array([1, 2]), "area": np.array([0.1234567891, np.nan])}, {"area": "µm²"}
    )
    path = table.write_csv(tmp_path / "cells.v2")
    assert path == tmp_path / "cells.v2.csv"
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    assert rows == [["label", "area (µm²)"], ["1", "0.1234568"], ["2", ""]]
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ObjectTable({"label": np.array([1])}).write_csv(tmp_path / "a.csv")
    before = path.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        ObjectTable({"label": np.array([2])}).write_csv(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot be written"):
        ObjectTable({"label": np.array([2])}).write_csv(tmp_path / "no" / "a.csv")
