"""Procedural stacks: reproducible, consistent, and one body in space rather than single planes."""

from __future__ import annotations

import time
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.synthetic import KINDS, STACKS, Stack, stack
from napari_ptsam.synthetic.bodies import Bodies
from napari_ptsam.synthetic.space import Space

SIZE = (12, 96, 112)
SEEDS = range(3)

each_sort = pytest.mark.parametrize("name", STACKS)


@cache
def made(name: str, seed: int) -> Stack:
    return stack(name, seed, SIZE)


def agreement(first: NDArray[np.uint16], second: NDArray[np.uint16]) -> float:
    """Share of the voxels with an object in either plane that hold the same one in both."""
    either = (first > 0) | (second > 0)
    return float((first == second)[either].mean()) if either.any() else 1.0


@each_sort
def test_same_seed_gives_the_same_stack_and_another_seed_another(name: str) -> None:
    first, again, other = made(name, 0), stack(name, 0, SIZE), made(name, 1)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.kinds, again.kinds)
    np.testing.assert_array_equal(first.instances, again.instances)
    assert (first.image != other.image).any()


@each_sort
def test_arrays_agree_with_each_other(name: str) -> None:
    for seed in SEEDS:
        one = made(name, seed)
        assert one.image.shape == one.kinds.shape == one.instances.shape == SIZE
        assert (one.image.dtype, one.kinds.dtype, one.instances.dtype) == ("u1", "u1", "u2")
        np.testing.assert_array_equal(one.kinds > 0, one.instances > 0)
        assert one.kinds.max() < len(KINDS)
        pairs = np.unique(np.stack([one.instances.ravel(), one.kinds.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1], "an instance has two kinds"
        assert one.spacing[0] >= 1
        assert one.spacing[1:] == (1.0, 1.0)


@each_sort
def test_neighbouring_planes_show_the_same_objects_and_distant_ones_do_not(name: str) -> None:
    near, far = [], []
    for seed in SEEDS:
        ids = made(name, seed).instances
        near += [agreement(a, b) for a, b in pairwise(ids)]
        far += [agreement(ids[0], ids[-1])]
    assert np.mean(near) > 0.55
    assert np.mean(near) > np.mean(far) + 0.2


@each_sort
def test_most_objects_reach_over_several_planes(name: str) -> None:
    ids = made(name, 0).instances
    planes = [len(np.unique(np.nonzero(ids == n)[0])) for n in np.unique(ids)[1:]]
    assert np.median(planes) >= 2


@each_sort
def test_objects_can_be_told_from_their_surroundings(name: str) -> None:
    steps = []
    for seed in SEEDS:
        one = made(name, seed)
        tones = [one.image[one.kinds == k].mean() for k in np.unique(one.kinds)]
        steps.append(max(tones) - min(tones))
    assert np.mean(steps) > 10


def test_a_stack_may_be_one_plane() -> None:
    for name in STACKS:
        assert stack(name, 5, (1, 32, 40)).image.shape == (1, 32, 40)


def test_what_cannot_be_made_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="no procedural stack 'gold'; choose from nuclei"):
        stack("gold")
    with pytest.raises(InputError, match=r"\(4, 20, 64\) is too small"):
        stack("nuclei", 0, (4, 20, 64))


def test_stacks_are_made_quickly() -> None:
    started = time.process_time()
    for name in STACKS:
        stack(name, 7, SIZE)
    # Some 0.3 s on a quiet machine.
    assert time.process_time() - started < 5


def test_noise_in_space_has_its_scale_in_pixels_along_all_axes() -> None:
    field = Space((40, 60, 60), 2.0).noise(np.random.default_rng(0), 12.0)
    assert abs(field.mean()) < 1e-3
    assert field.std() == pytest.approx(1, abs=1e-3)
    across, along = (field[1:] * field[:-1]).mean(), (field[:, 2:] * field[:, :-2]).mean()
    assert across == pytest.approx(along, abs=0.1)
    assert 0.6 < along < 0.99


def test_balls_are_flattened_by_distant_planes_only_on_the_grid() -> None:
    bodies = Bodies(Space((20, 61, 61), 3.0))
    bodies.add(np.random.default_rng(0), (31.0, 30.0, 30.0), 11.9)
    assert bodies.mask.sum() * 3 == pytest.approx(4 / 3 * np.pi * 11.9**3, rel=0.05)
    z, y, x = (np.flatnonzero(bodies.mask.any(axis)) for axis in ((1, 2), (0, 2), (0, 1)))
    assert (len(z), len(y), len(x)) == (8, 23, 23)


def test_a_tube_is_one_connected_object() -> None:
    bodies = Bodies(Space((30, 60, 60), 1.0))
    bodies.add_tube(np.random.default_rng(3), (15.0, 30.0, 30.0), 4.0, 30.0)
    assert len(bodies) == bodies.ids.max() == 1
    assert bodies.mask.sum() > 1.2 * 4 / 3 * np.pi * 4**3
