"""Procedural light-microscopy scenes: reproducible, consistent and never degenerate."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from napari_ptsam.synthetic import camera, fluorescence, stained, transmitted
from napari_ptsam.synthetic.fields import blur, fractal_noise, mosaic, scatter
from napari_ptsam.synthetic.layers import Layer
from napari_ptsam.synthetic.scene import KINDS, Family, Scene

FAMILIES = (*fluorescence.FAMILIES, *transmitted.FAMILIES, *stained.FAMILIES)
TYPES = 20

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@cache
def scene(family: Family, number: int, shape: tuple[int, int] = (160, 160)) -> Scene:
    style = family.style(np.random.default_rng([1, number]))
    return family.render(style, np.random.default_rng([2, number]), shape)


def test_names_are_unique() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@each_family
def test_same_seed_gives_the_same_scene_and_another_seed_another(family: Family) -> None:
    first, again, other = scene(family, 3), scene.__wrapped__(family, 3), scene(family, 4)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.kinds, again.kinds)
    np.testing.assert_array_equal(first.instances, again.instances)
    assert (first.image != other.image).any()


@each_family
@pytest.mark.parametrize("shape", [(64, 64), (64, 150), (201, 97)])
def test_any_size_gives_arrays_of_that_size(family: Family, shape: tuple[int, int]) -> None:
    for number in range(4):
        made = scene(family, number, shape)
        assert made.image.shape == (*shape, 3)
        assert made.kinds.shape == made.instances.shape == shape
        assert made.image.dtype == np.uint8
        assert made.kinds.dtype == np.uint8
        assert made.instances.dtype == np.uint16


@each_family
def test_instances_agree_with_kinds(family: Family) -> None:
    for number in range(TYPES):
        made = scene(family, number)
        assert made.kinds.max() < len(KINDS)
        np.testing.assert_array_equal(made.kinds > 0, made.instances > 0)
        pairs = np.unique(np.stack([made.instances.ravel(), made.kinds.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1], "an instance has two kinds"


@each_family
def test_scenes_show_something_and_are_labelled(family: Family) -> None:
    scenes = [scene(family, number) for number in range(TYPES)]
    assert all(made.image.std() > 0 for made in scenes)
    labelled = sum(bool((made.kinds > 0).any()) for made in scenes)
    assert labelled >= 0.8 * TYPES


@each_family
def test_most_scenes_have_more_than_one_kind_of_thing(family: Family) -> None:
    kinds = [np.unique(scene(family, n).kinds) for n in range(TYPES)]
    assert sum(len(found) >= 3 for found in kinds) >= 0.4 * TYPES


@each_family
def test_styles_hold_only_numbers(family: Family) -> None:
    style = family.style(np.random.default_rng(0))
    assert all(isinstance(value, float) and np.isfinite(value) for value in style.values())


def test_noise_is_standardised_at_all_scales() -> None:
    for scale in (2.0, 15.0, 100.0):
        field = fractal_noise(np.random.default_rng(0), (120, 90), scale)
        assert field.shape == (120, 90)
        assert abs(float(field.mean())) < 0.3
        assert 0.7 < float(field.std()) < 1.3


def test_wide_blur_matches_its_width() -> None:
    impulse = np.zeros((161, 161), np.float32)
    impulse[80, 80] = 1.0
    spread = blur(impulse, 12.0)
    x = np.arange(161) - 80.0
    assert spread.sum() == pytest.approx(1.0, abs=0.03)
    assert np.sqrt((spread.sum(0) * x**2).sum() / spread.sum()) == pytest.approx(12.0, rel=0.1)


def test_scattered_points_keep_their_distance() -> None:
    points = np.asarray(scatter(np.random.default_rng(0), (200, 100), 13.0))
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert len(points) > 20
    assert gaps[~np.eye(len(points), dtype=bool)].min() >= 13.0


def test_mosaic_covers_the_canvas_with_cells_of_the_wanted_size() -> None:
    labels, edge = mosaic(np.random.default_rng(0), (200, 200), 20.0)
    assert labels.shape == edge.shape == (200, 200)
    assert 60 < len(np.unique(labels)) < 180
    assert edge.min() >= 0
    borders = labels[:, 1:] != labels[:, :-1]
    assert edge[:, 1:][borders].mean() < 3 < edge.mean()


def test_touching_objects_share_a_border_and_small_ones_a_shape() -> None:
    rng = np.random.default_rng(0)
    layer = Layer((60, 60))
    layer.add(rng, (30, 20), 12, roughness=0.0)
    layer.add(rng, (30, 40), 12, roughness=0.0)
    assert layer.ids[30, 25] == 1
    assert layer.ids[30, 35] == 2
    for centre in ((6.0, 6.0), (6.0, 50.0)):
        layer.add(rng, centre, 4, roughness=0.3, stamp="same")
    first, second = (layer.ids == 3)[2:11, 2:11], (layer.ids == 4)[2:11, 46:55]
    assert first.any()
    np.testing.assert_array_equal(first, second)


def test_small_objects_outside_the_canvas_are_dropped() -> None:
    layer = Layer((40, 40))
    for centre in ((-50.0, 10.0), (10.0, 90.0), (38.0, 1.0)):
        layer.add(np.random.default_rng(0), centre, 5, stamp=0)
    assert set(np.unique(layer.ids)) == {0, 3}


def test_dim_camera_leaves_few_grey_levels_and_inversion_flips() -> None:
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    rng = np.random.default_rng(0)
    dim = camera.expose(ramp, {"span": 0.04}, rng)
    assert len(np.unique(dim)) <= 12
    flipped = camera.expose(ramp, {"invert": 1.0}, rng)
    assert flipped[0, 0, 0] > flipped[-1, -1, 0]


def test_camera_effects_keep_shape_and_type() -> None:
    rng = np.random.default_rng(0)
    style = {"jpeg": 50.0, "lowres": 2.0, "text": 1.0, "light": 0.5, "blur": 1.0, "photons": 50.0}
    for image in (np.full((70, 90), 0.5, np.float32), np.full((70, 90, 3), 0.5, np.float32)):
        picture = camera.expose(image, style, rng)
        assert picture.shape == (70, 90, 3)
        assert picture.dtype == np.uint8
        assert camera.defocus(image, 3.0).shape == image.shape
        np.testing.assert_allclose(camera.defocus(image, 3.0), image, atol=1e-5)
