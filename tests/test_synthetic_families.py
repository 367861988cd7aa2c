"""Families of procedural scenes: reproducible, consistent, and of every size."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from napari_ptsam.synthetic import FAMILIES, KINDS, Family, SceneType, draw_type, render

_BY_NAME = [pytest.param(family, id=family.name) for family in FAMILIES]


def _type(family: Family, seed: int) -> SceneType:
    return SceneType(family, family.style(np.random.default_rng(seed)))


def test_names_of_families_are_unique() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("family", _BY_NAME)
def test_same_type_and_seed_give_the_same_scene(family: Family) -> None:
    first = render(_type(family, 3), 5, (96, 120))
    again = render(_type(family, 3), 5, (96, 120))
    other = render(_type(family, 3), 6, (96, 120))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.kinds, again.kinds)
    np.testing.assert_array_equal(first.instances, again.instances)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("family", _BY_NAME)
@pytest.mark.parametrize("size", [(64, 64), (64, 211), (190, 64)])
def test_scenes_of_any_size_are_consistent(family: Family, size: tuple[int, int]) -> None:
    for seed in range(3):
        scene = render(_type(family, seed), seed, size)
        assert scene.image.shape == (*size, 3)
        assert scene.image.dtype == np.uint8
        assert scene.kinds.shape == scene.instances.shape == size
        assert scene.kinds.dtype == np.uint8
        assert scene.instances.dtype == np.uint16
        assert scene.kinds.max() < len(KINDS)
        np.testing.assert_array_equal(scene.kinds > 0, scene.instances > 0)
        for number in np.unique(scene.instances)[1:]:
            assert len(np.unique(scene.kinds[scene.instances == number])) == 1


@pytest.mark.parametrize("family", _BY_NAME)
def test_scenes_show_something_and_nearly_always_have_objects(family: Family) -> None:
    scenes = [render(_type(family, seed), 1, (128, 128)) for seed in range(20)]
    assert all(scene.image.std() > 0.5 for scene in scenes)
    assert sum(bool((scene.kinds > 0).any()) for scene in scenes) >= 15


@pytest.mark.parametrize("family", _BY_NAME)
def test_styles_hold_finite_numbers(family: Family) -> None:
    for seed in range(20):
        values = list(family.style(np.random.default_rng(seed)).values())
        assert np.isfinite(np.asarray(values, dtype=np.float64)).all()


def test_drawn_types_are_reproducible_and_reach_every_family() -> None:
    drawn = [draw_type(seed) for seed in range(400)]
    assert {scene_type.family.name for scene_type in drawn} == {f.name for f in FAMILIES}
    assert dict(drawn[7].style) == dict(draw_type(7).style)
    assert dict(drawn[7].style) != dict(drawn[8].style)


def test_types_can_be_sent_to_worker_processes() -> None:
    scene_type = draw_type(11)
    received = pickle.loads(pickle.dumps(scene_type))
    np.testing.assert_array_equal(
        render(received, 2, (64, 64)).image, render(scene_type, 2, (64, 64)).image
    )
