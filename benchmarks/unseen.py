"""Procedural data sets of types that no backbone was trained on, laid out as the real ones are.

``python -m benchmarks.unseen FOLDER`` writes them for other programs, in about half a minute on
one core. They are made from `napari_ptsam.synthetic.unseen` and nothing else, and every writing
gives the same images.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.data import TRAIN_IMAGES, DataSet, training_images
from napari_ptsam.errors import InputError
from napari_ptsam.synthetic.scene import kind
from napari_ptsam.synthetic.unseen import FAMILIES, TARGETS

TEST_IMAGES = 36
"""In each ``test`` folder, as many as the real data sets have."""

SIDE = 320
"""Height and width of the images in pixels."""


@dataclass(frozen=True)
class Made:
    """What a data set shows: seed of the one type of all its scenes, and what is marked."""

    seed: int
    target: str


SETS = {"diatoms": Made(2, "diatom"), "cracks": Made(7, "crack"), "pollen": Made(5, "pollen")}
"""By the name of their family."""


def load(name: str, folder: Path, count: int = 16, seed: int = 0) -> DataSet:
    """One data set with `count` training images, written into `folder` if it is not there.

    Parameters
    ----------
    name
        A key of `SETS`.
    folder
        Where the data sets lie or are to be written, each in a folder of its name.
    count, seed
        See `benchmarks.data.training_images`; the test images are the same for all seeds.

    Raises
    ------
    InputError
        If the name is unknown, or there are not so many training images.
    """
    if name not in SETS:
        raise InputError(
            f"There is no procedural data set {name!r}; choose from {', '.join(SETS)}."
        )
    planes = training_images(count, seed)
    home = folder / name
    parts = {"train": TRAIN_IMAGES, "test": TEST_IMAGES}
    if any(len(list(home.glob(f"{part}/masks/*.png"))) != n for part, n in parts.items()):
        write(name, home)
    return DataSet(
        name, SETS[name].target, home / "train" / "images", home / "train" / "masks", planes,
        home / "test" / "images", home / "test" / "masks",
    )  # fmt: skip


def write(name: str, home: Path, train: int = TRAIN_IMAGES, test: int = TEST_IMAGES) -> None:
    """Write a data set: `images` (RGB) and `masks` (0 and 255) in ``train`` and ``test``."""
    family = next(family for family in FAMILIES if family.name == name)
    style = family.style(np.random.default_rng([SETS[name].seed, 1]))
    for part, (folder, images) in enumerate((("train", train), ("test", test))):
        for i in range(images):
            scene = family.render(style, np.random.default_rng([part, i]), (SIDE, SIDE))
            mask = (scene.kinds == kind(TARGETS[name])) * np.uint8(255)
            for what, picture in (("images", scene.image), ("masks", mask)):
                path = home / folder / what / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where each data set gets a folder")
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    given = parser.parse_args()
    for name in given.only:
        write(name, given.folder / name)
        print(given.folder / name)


if __name__ == "__main__":
    main()
