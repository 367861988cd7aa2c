"""Pictures inside scikit-image's wheel, this project's masks of them, and how both are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_ptsam.errors import InputError

MASK_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class DemoSet:
    """A picture inside scikit-image's wheel, and how it is cut into parts.

    Attributes
    ----------
    name
        Of the data set, its mask and its folder in the output.
    file
        In scikit-image's ``data`` folder.
    target
        What the masks mark.
    rows, columns
        Borders of the parts in pixels.
    train
        How many parts, counted along `split_by`, are for training.
    split_by
        Whether the first rows or the first columns of parts are for training.
    """

    name: str
    file: str
    target: str
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    train: int
    split_by: Literal["rows", "columns"] = "rows"

    def parts(self) -> Iterator[tuple[Literal["train", "test"], str, tuple[slice, slice]]]:
        """Yield "train" or "test", a name, and where in the picture, for each part."""
        for i, (top, bottom) in enumerate(zip(self.rows, self.rows[1:], strict=False)):
            for j, (left, right) in enumerate(zip(self.columns, self.columns[1:], strict=False)):
                place = i if self.split_by == "rows" else j
                fold: Literal["train", "test"] = "train" if place < self.train else "test"
                yield fold, f"row{i}-column{j}", (slice(top, bottom), slice(left, right))


SETS = (
    DemoSet("coins", "coins.png", "coin", (0, 150, 303), (0, 128, 256, 384), train=1),
    DemoSet("ihc", "ihc.png", "stained epithelium", (0, 128, 256, 384, 512), (0, 256, 512),
            train=1, split_by="columns"),
    DemoSet("cell", "cell.png", "cell", (200, 374, 548), (306, 428, 550), train=1),
    DemoSet("hubble_deep_field", "hubble_deep_field.jpg", "galaxy or star",
            (0, 218, 436, 654, 872), (0, 250, 500, 750, 1000), train=2, split_by="columns"),
)  # fmt: skip


def wheel_image(demo_set: DemoSet) -> NDArray[np.uint8]:
    """A picture as it lies in scikit-image's wheel, HxW or HxWx3; nothing is fetched."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / demo_set.file
    if not path.is_file():
        raise InputError(
            f"{path} is missing: this scikit-image comes without its pictures. Install the wheel "
            "from PyPI (pip install --force-reinstall scikit-image)."
        )
    return np.asarray(Image.open(path))


def demo_mask(demo_set: DemoSet) -> NDArray[np.bool_]:
    """The committed mask of a picture, HxW."""
    return np.asarray(Image.open(MASK_FOLDER / f"{demo_set.name}.png"), bool)
