"""Dense tissue, cultures and the lumen: what makes these families hard is there."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from napari_ptsam.synthetic import Family, Scene, kind, lumen, neuropil, phase
from napari_ptsam.synthetic.profiles import draw_profiles, profiles

SIZE = (160, 160)
TYPES = range(12)
(POLYPS,) = lumen.FAMILIES
CULTURE, _ = phase.FAMILIES


@cache
def scenes(family: Family) -> list[Scene]:
    draws = (family.style(np.random.default_rng([seed, 1])) for seed in TYPES)
    return [family.render(style, np.random.default_rng(2), SIZE) for style in draws]


def test_profiles_fill_the_plane_and_are_of_very_different_size() -> None:
    style = {**draw_profiles(np.random.default_rng(0), 16.0), "large": 0.3, "large_radius": 30.0}
    ids, edge, large = profiles(style, np.random.default_rng(1), (200, 150))
    assert ids.shape == edge.shape == (200, 150)
    areas = np.bincount(ids.ravel(), minlength=len(large))
    assert areas[0] == 0
    assert (areas[1:] > 0).all()
    assert large.any()
    assert areas[large].max() > 10 * np.median(areas[1:][~large[1:]])


def test_distance_from_borders_is_zero_on_them_and_grows_inwards() -> None:
    style = draw_profiles(np.random.default_rng(4), 30.0)
    ids, edge, _ = profiles(style, np.random.default_rng(1), SIZE)
    border = np.zeros(SIZE, bool)
    border[1:] |= ids[1:] != ids[:-1]
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    exact = ndimage.distance_transform_edt(~border)
    assert edge[border].mean() < 1.5
    assert np.abs(edge - exact).mean() < 1.5


@pytest.mark.parametrize("family", neuropil.FAMILIES, ids=lambda family: family.name)
def test_membranes_are_thin_and_stand_out_against_cytoplasm(family: Family) -> None:
    shares, steps = [], []
    for scene in scenes(family):
        membrane, cell = (scene.kinds == kind(name) for name in ("membrane", "cell"))
        grey = scene.image[..., 0].astype(float)
        shares.append(membrane.mean())
        steps.append(abs(grey[membrane].mean() - grey[cell].mean()) / grey.std())
    assert 0.1 < np.median(shares) < 0.45
    assert np.mean(np.asarray(steps) > 0.5) > 0.8


def test_organelles_in_neuropil_leave_the_membranes_of_cells_free() -> None:
    found = {int(k) for scene in scenes(neuropil.FAMILIES[0]) for k in np.unique(scene.kinds)}
    assert {kind(name) for name in ("cell", "membrane", "organelle", "vesicle")} <= found


def test_nuclei_of_a_culture_lie_inside_of_cells() -> None:
    beside = []
    for scene in scenes(CULTURE):
        nucleus = scene.kinds == kind("nucleus")
        if nucleus.any():
            ring = ndimage.binary_dilation(nucleus, iterations=2) & ~nucleus
            beside.append((scene.kinds[ring] == kind("cell")).mean())
    assert len(beside) > 6
    assert np.median(beside) > 0.7


def test_polyps_range_from_small_to_half_of_the_picture() -> None:
    areas = [(scene.kinds == kind("polyp")).mean() for scene in scenes(POLYPS)]
    assert min(a for a in areas if a > 0) < 0.1
    assert 0.2 < max(areas) < 0.75


def test_polyps_have_nearly_the_hue_of_the_wall() -> None:
    apart = []
    for scene in scenes(POLYPS):
        polyp = scene.kinds == kind("polyp")
        wall = (scene.kinds == 0) & (scene.image.max(2) > 50)
        if polyp.any() and wall.any():
            inks = [scene.image[where].mean(0) for where in (polyp, wall)]
            apart.append(np.abs(inks[0] / inks[0].sum() - inks[1] / inks[1].sum()).max())
    assert np.median(apart) < 0.05


@pytest.mark.parametrize(
    "family", [*neuropil.FAMILIES, *phase.FAMILIES, POLYPS], ids=lambda family: family.name
)
def test_scenes_are_drawn_quickly(family: Family) -> None:
    style = family.style(np.random.default_rng(0))
    times = []
    for seed in range(3):
        started = time.process_time()
        family.render(style, np.random.default_rng(seed), (320, 320))
        times.append(time.process_time() - started)
    # Some 0.05 s on one core; ten times that would be another order of work.
    assert min(times) < 0.5
