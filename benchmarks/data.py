"""The development data sets: where they lie, and which images are for training.

Nothing of them enters the project. Training sets are nested: the first n of one
seeded permutation of the names in the ``train`` folder, so that 16 images are
among the 32. Names are put in plain order first, so that a set does not depend on
how a folder is listed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_ptsam.errors import InputError
from napari_ptsam.planes import open_planes

NAMES = ("dsb2018", "isbi2012", "kvasir", "emps")
TRAIN_IMAGES = 64
"""In each ``train`` folder."""

DEFAULT_FOLDER = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True)
class DataSet:
    """Images and masks of one data set, for training and for the test.

    Attributes
    ----------
    name, target
        Of the data set, and of what the masks mark.
    train_images, train_masks, test_images, test_masks
        Folders, or one stack for both uses.
    train_planes, test_planes
        Numbers of the images, as `open_planes` lists the folder, or of the stack's planes.
    """

    name: str
    target: str
    train_images: Path
    train_masks: Path
    train_planes: tuple[int, ...]
    test_images: Path
    test_masks: Path
    test_planes: tuple[int, ...] | None = None


def training_images(count: int, seed: int) -> tuple[int, ...]:
    """The first `count` of a permutation of 64 numbers, that of names in plain order."""
    if not 1 <= count <= TRAIN_IMAGES:
        raise InputError(f"Training takes 1 to {TRAIN_IMAGES} images, not {count}.")
    return tuple(int(i) for i in np.random.default_rng(seed).permutation(TRAIN_IMAGES)[:count])


def data_folder(folder: Path | None = None) -> Path:
    """The folder given, else the one in ``NAPARI_PTSAM_DATA``, else ``../shared/data``.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    named = os.environ.get("NAPARI_PTSAM_DATA")
    folder = folder or (Path(named) if named else DEFAULT_FOLDER)
    if not folder.is_dir():
        raise InputError(
            f"The data folder {folder} does not exist. Put the data sets into ../shared/data "
            "beside the checkout, or name their folder with --data or NAPARI_PTSAM_DATA."
        )
    return folder


def load(name: str, folder: Path, count: int = 16, seed: int = 0) -> DataSet:
    """One data set with `count` training images.

    Parameters
    ----------
    name
        One of `NAMES`.
    folder
        From `data_folder`.
    count, seed
        See `training_images`. ISBI 2012 is one stack: its planes 0-15 train and
        20-29 test, whatever the seed.

    Raises
    ------
    InputError
        If the name is unknown, or the data set is not in the folder.
    """
    targets = {"dsb2018": "nucleus", "isbi2012": "membrane", "kvasir": "polyp", "emps": "particle"}
    if name not in targets:
        raise InputError(f"There is no data set {name!r}; choose from {', '.join(NAMES)}.")
    home = folder / name
    if not home.is_dir():
        raise InputError(f"The data set {name} is not in {folder}.")
    if name == "isbi2012":
        volume, membranes = home / "volume.ome.tif", home / "membranes.ome.tif"
        return DataSet(
            name, targets[name], volume, membranes, tuple(range(min(count, 16))),
            volume, membranes, tuple(range(20, 30)),
        )  # fmt: skip
    keys = list(open_planes(home / "train" / "images").keys)
    if len(keys) != TRAIN_IMAGES:
        raise InputError(
            f"{home / 'train' / 'images'} holds {len(keys)} images, but the splits are made for "
            f"{TRAIN_IMAGES}. Fetch the data set again."
        )
    names = sorted(keys)
    planes = tuple(keys.index(names[i]) for i in training_images(count, seed))
    return DataSet(
        name, targets[name], home / "train" / "images", home / "train" / "masks", planes,
        home / "test" / "images", home / "test" / "masks",
    )  # fmt: skip
