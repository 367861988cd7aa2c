"""Kept probabilities and what is drawn from them, without napari."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_ptsam._widgets.kept import KeptProbabilities
from napari_ptsam._widgets.results import Geometry, Look, Result
from napari_ptsam.errors import InputError
from napari_ptsam.objects import split_objects

SHAPE = (4, 32, 40)


def probabilities(seed: int = 0) -> Any:
    """Smooth random maps, 4x32x40 float32."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(size=SHAPE)
    smooth = ndimage.gaussian_filter(noise, (0.7, 3, 3))
    return (1 / (1 + np.exp(-smooth / smooth.std()))).astype(np.float32)


def result(look: Look, *, planes: range = range(4), volumes: Any = ((0, 1, 2, 3),)) -> Result:
    made = Result(
        KeptProbabilities(4, 0.5),
        np.zeros(SHAPE, np.int32),
        Geometry([(index, slice(None), slice(None)) for index in range(4)], volumes),
        look,
    )
    for index in planes:
        made.put(index, probabilities()[index])
    return made


def settle(made: Result) -> None:
    while stale := made.stale():
        made.draw_some(stale)
    if made.unfinished:
        if made.look.through_planes:
            list(made.link())
        else:
            made.renumber()
    assert not made.unfinished


@pytest.mark.parametrize("limit", [0, 3000, 2**30])
def test_masks_of_kept_probabilities_are_exact_at_every_threshold(limit: int) -> None:
    own = 0.47301
    kept = KeptProbabilities(4, own, limit)
    maps = probabilities()
    # What rounding would put on the wrong side.
    for k, level in enumerate((0.5, own, 0.01, 0.99)):
        near = np.float32(level)
        maps[k, 0, :3] = np.nextafter(near, 0), near, np.nextafter(near, 1)
    for index in (2, 0, 3, 1):
        kept.put(index, maps[index])
    assert own in kept.levels
    for threshold in kept.levels:
        for index in range(4):
            np.testing.assert_array_equal(kept.mask(index, threshold), maps[index] >= threshold)


def test_what_does_not_fit_in_memory_goes_to_a_folder_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = KeptProbabilities(4, 0.5, limit=32 * 40)
    for index in range(4):
        kept.put(index, probabilities()[index])
    assert len(list(tmp_path.iterdir())) == 1
    del kept
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_full_temporary_disk_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    kept = KeptProbabilities(4, 0.5, limit=0)
    with pytest.raises(InputError, match="No space left"):
        kept.put(0, probabilities()[0])
    assert 0 not in kept


def test_a_plane_that_was_not_segmented_has_no_mask() -> None:
    kept = KeptProbabilities(4, 0.5)
    with pytest.raises(InputError, match="segmented first"):
        kept.mask(0, 0.5)
    kept.put(0, probabilities()[0])
    with pytest.raises(InputError, match="whole percents"):
        kept.mask(0, 0.12345)


def test_a_new_look_makes_all_planes_stale_until_they_are_drawn() -> None:
    made = result(Look(0.5), planes=range(3))
    assert made.stale() == []
    made.look = Look(0.6)
    assert made.stale() == [0, 1, 2]
    settle(made)
    np.testing.assert_array_equal(made.data[:3], probabilities()[:3] >= 0.6)
    assert not made.data[3].any()


def test_drawing_ends_when_the_look_changes_meanwhile() -> None:
    made = result(Look(0.5))
    made.look = Look(0.6)
    drawn = []
    draw = made.draw

    def changing(index: int) -> None:
        draw(index)
        drawn.append(index)
        made.look = Look(0.7)

    made.draw = changing  # type: ignore[method-assign]
    assert made.draw_some([0, 1, 2, 3], seconds=10) == drawn == [0]
    assert made.stale() == [0, 1, 2, 3]


def test_numbers_do_not_depend_on_the_order_of_drawing() -> None:
    look = Look(0.5, 5, numbered=True)
    made = result(look, planes=range(3, -1, -1))  # type: ignore[arg-type]
    settle(made)
    other = result(look)
    settle(other)
    np.testing.assert_array_equal(made.data, other.data)
    numbers = [set(np.unique(plane)) - {0} for plane in made.data]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == made.data.max()


def test_small_objects_through_planes_are_left_out_as_a_whole() -> None:
    made = result(Look(0.6, 60, numbered=True, linked=True))
    settle(made)
    sizes = np.bincount(made.data.ravel())[1:]
    all_sizes = np.bincount(split_objects(probabilities() >= 0.6).ravel())[1:]
    assert sorted(sizes) == sorted(all_sizes[all_sizes >= 60])
    assert len(all_sizes) > len(sizes) > 0
    made.look = replace(made.look, numbered=False)
    settle(made)
    assert set(np.unique(made.data)) == {0, 1}
    assert (made.data > 0).sum() == sizes.sum()


def test_planes_that_come_later_are_linked_again() -> None:
    look = Look(0.5, numbered=True, linked=True)
    made = result(look, planes=range(2))
    settle(made)
    for index in (2, 3):
        made.put(index, probabilities()[index])
    assert made.unfinished
    settle(made)
    np.testing.assert_array_equal(made.data, split_objects(probabilities() >= 0.5))


def test_edited_planes_keep_their_labels_and_their_numbers_are_not_given_again() -> None:
    for linked in (False, True):
        made = result(Look(0.5))
        made.data[1] = 9
        made.edited.add(1)
        made.look = Look(0.55, numbered=True, linked=linked)
        settle(made)
        assert (made.data[1] == 9).all()
        others = set(np.unique(made.data[[0, 2, 3]])) - {0}
        assert min(others) == 10
