"""Which images train and which test: drawn once, and kept in a file that can be committed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_ptsam.benchmark.record import write_json
from napari_ptsam.errors import InputError

FORMAT = 1
TEST_SHARE = 0.2
"""Section 4.1.2 of the PTSAM paper."""


@dataclass(frozen=True)
class Splits:
    """The draws of one data set.

    Attributes
    ----------
    test
        Names of the test images, the same in all splits.
    train
        For each split, names of training images in the order drawn: the first 16 are a part
        of the first 32.
    most
        How many training images were to be drawn; there may have been fewer.
    seed
        What they were drawn from.
    given
        Whether the data set came with its test images.
    """

    test: tuple[str, ...]
    train: tuple[tuple[str, ...], ...]
    most: int
    seed: int
    given: bool = False

    def training(self, split: int, size: int) -> tuple[str, ...]:
        """The first `size` training images of a split; fewer if there are no more."""
        return self.train[split][:size]

    def to_dict(self) -> dict[str, Any]:
        """As a split file holds it."""
        return {
            "format": FORMAT,
            "seed": self.seed,
            "most_training_images": self.most,
            "test_images_given": self.given,
            "test": list(self.test),
            "train": [list(names) for names in self.train],
        }


def draw_splits(
    pool: Sequence[str], count: int, size: int, seed: int, test: Sequence[str] | None = None
) -> Splits:
    """Draw a constant test set, and nested training sets from the rest.

    Parameters
    ----------
    pool
        Names to draw from.
    count
        How many splits.
    size
        Most training images to draw for each.
    seed
        Draws depend on it and on the names alone.
    test
        Test images, where the data set comes with them; else a fifth of the pool.
    """
    names = np.array(sorted(pool), dtype=object)
    rest = names
    if test is None:
        order = np.random.default_rng([seed, 0]).permutation(len(names))
        held = round(len(names) * TEST_SHARE)
        if held < 1:
            raise InputError(
                f"A fifth of {len(names)} images is no test set; give at least 3 images."
            )
        chosen, rest = sorted(names[order[:held]]), names[np.sort(order[held:])]
    else:
        chosen = sorted(test)
    train = [
        tuple(rest[np.random.default_rng([seed, 1 + split]).permutation(len(rest))[:size]])
        for split in range(count)
    ]
    return Splits(tuple(chosen), tuple(train), size, seed, given=test is not None)


def read_splits(path: Path, count: int, size: int, seed: int) -> Splits:
    """Read a split file.

    Raises
    ------
    InputError
        If it is damaged, or has not as many splits or images as the study wants.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        splits = Splits(
            tuple(stored["test"]),
            tuple(tuple(names) for names in stored["train"]),
            int(stored["most_training_images"]),
            int(stored["seed"]),
            bool(stored["test_images_given"]),
        )
        version = stored["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"The split file {path} cannot be read: {error!r}.") from error
    if (
        version != FORMAT
        or (len(splits.train) < count or splits.most < size)
        or splits.seed != seed
    ):
        raise InputError(
            f"The split file {path} has format {version}, {len(splits.train)} splits of "
            f"{splits.most} images and the seed {splits.seed}, but the study wants {FORMAT}, "
            f"{count}, {size} and {seed}. Name another split_folder in the study, or remove the "
            "file to draw anew."
        )
    return splits


def write_splits(path: Path, splits: Splits) -> None:
    """Write a split file."""
    write_json(path, splits.to_dict())
