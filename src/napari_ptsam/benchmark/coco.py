"""Masks from the polygons of COCO files, format at cocodataset.org/#format-data."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, ImageDraw

from napari_ptsam.errors import InputError


def draw_masks(tables: Sequence[Path], keys: Collection[str], folder: Path) -> set[str]:
    """Write a mask, 0 and 255, of all objects of each image.

    Parameters
    ----------
    tables
        COCO files. One at a time is held in memory.
    keys
        Names without suffix of the images that are there; others are left out.
    folder
        Where masks go, as ``KEY.png``.

    Returns
    -------
    set of str
        Names of the images that have a mask; an image that a table lists without any object
        has an empty one.

    Raises
    ------
    InputError
        If a table is none, or an object is not given as polygons.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: set[str] = set()
    for path in tables:
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            images, annotations = table["images"], table["annotations"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no COCO file: {error!r}.") from error
        shapes: dict[int, list[Any]] = defaultdict(list)
        # A list, or an object whose values are the annotations.
        for annotation in annotations.values() if isinstance(annotations, dict) else annotations:
            shapes[annotation["image_id"]].append(annotation["segmentation"])
        for image in images:
            key = PurePosixPath(image["file_name"]).stem
            if key in keys:
                size = (image["width"], image["height"])
                _mask(size, shapes[image["id"]], path).save(folder / f"{key}.png")
                drawn.add(key)
    return drawn


def _mask(size: tuple[int, int], shapes: Sequence[Any], path: Path) -> Image.Image:
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    for polygons in shapes:
        if not isinstance(polygons, list):
            raise InputError(f"{path} has run lengths where polygons were expected.")
        for corners in polygons:
            if len(corners) >= 6:  # x and y of three corners
                pen.polygon(corners, fill=255)
    return mask
