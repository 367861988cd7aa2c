"""Validation families: kept out of training, consistent, and written as data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks import unseen as sets
from napari_ptsam.errors import InputError
from napari_ptsam.synthetic import FAMILIES as KNOWN
from napari_ptsam.synthetic import Family, kind
from napari_ptsam.synthetic.unseen import FAMILIES, TARGETS
from pretraining.pool import GROUPS, families_of

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def test_no_family_for_validation_is_trained_on() -> None:
    held_out = {family.name for family in FAMILIES}
    pooled = {family.name for group in GROUPS for family in families_of(group)}
    assert not held_out & {family.name for family in KNOWN}
    assert not held_out & pooled
    assert set(sets.SETS) == set(TARGETS) == held_out


@each_family
def test_scenes_are_reproducible_and_consistent(family: Family) -> None:
    for seed in range(4):
        style = family.style(np.random.default_rng(seed))
        one, again = (family.render(style, np.random.default_rng(9), (96, 130)) for _ in range(2))
        np.testing.assert_array_equal(one.image, again.image)
        np.testing.assert_array_equal(one.instances, again.instances)
        assert one.image.shape == (96, 130, 3)
        np.testing.assert_array_equal(one.kinds > 0, one.instances > 0)
        pairs = np.unique(np.stack([one.instances.ravel(), one.kinds.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1], "an instance has two kinds"


@each_family
def test_targets_are_there_beside_other_objects(family: Family) -> None:
    wanted, others = [], []
    for seed in range(10):
        style = family.style(np.random.default_rng(seed))
        kinds = family.render(style, np.random.default_rng(1), (160, 160)).kinds
        wanted.append((kinds == kind(TARGETS[family.name])).mean())
        others.append(len(np.unique(kinds)) > 2)
    assert np.median(wanted) > 0.005
    assert max(wanted) < 0.7
    assert np.mean(others) > 0.5


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def cracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("unseen") / "cracks"
    sets.write("cracks", home, train=3, test=2)
    return home


def test_written_images_are_all_different_and_paired_with_masks(cracks: Path) -> None:
    images = sorted(cracks.glob("*/images/*.png"))
    assert [p.parent.parent.name for p in images] == ["test"] * 2 + ["train"] * 3
    assert len({pixels(p).tobytes() for p in images}) == 5
    for path in images:
        mask = pixels(path.parents[1] / "masks" / path.name)
        assert mask.shape == pixels(path).shape[:2]
        assert set(np.unique(mask)) <= {0, 255}


def test_writing_again_gives_the_same_images(cracks: Path, tmp_path: Path) -> None:
    sets.write("cracks", tmp_path, train=1, test=1)
    for part in ("train", "test"):
        first, again = (pixels(h / part / "images" / "000.png") for h in (cracks, tmp_path))
        np.testing.assert_array_equal(first, again)


def test_a_data_set_is_written_once_and_split_by_its_seed(
    cracks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "TRAIN_IMAGES", 3)
    monkeypatch.setattr(sets, "TEST_IMAGES", 2)
    monkeypatch.setattr(sets, "write", lambda *_: pytest.fail("It was there already."))
    first, other = (sets.load("cracks", cracks.parent, 16, seed) for seed in (0, 1))
    assert first.train_planes != other.train_planes
    assert len(set(first.train_planes)) == 16
    assert first.train_images == cracks / "train" / "images"
    assert first.test_masks == other.test_masks == cracks / "test" / "masks"
    assert first.target == "crack"


def test_an_unknown_data_set_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'kvasir'; choose from diatoms, cracks, pollen"):
        sets.load("kvasir", tmp_path)
