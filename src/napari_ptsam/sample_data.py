"""Sample data for napari's File menu.

What napari needs are plain tuples, so neither napari nor Qt is imported.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import platformdirs
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.demo_data import SETS, demo_mask, wheel_image
from napari_ptsam.errors import DownloadError
from napari_ptsam.synthetic.fields import scatter, star_shape

LayerTuple = tuple[NDArray[Any], dict[str, Any], str]
"""Data, keyword arguments and type of a napari layer."""

MITOSIS_URL = (
    "https://gitlab.com/scikit-image/data/-/raw/2cdc5ce89b334d28f06a58c9f0ca21aa6992a5ba/"
    "AS_09125_050116030001_D03f00d0.tif"
)
"""Human cells in mitosis, David Root, CC0."""
MITOSIS_SHA256 = "2751ba667c4067c5d30817cff004aa06f6f6287f1cdbb5b8c9c6a500308cb456"
TIMEOUT = 20.0

PLANES, SIDE, ANNOTATED = 24, 192, 16


def procedural_stack() -> list[LayerTuple]:
    """A stack of blurred, noisy cells of which the first planes are annotated.

    Returns
    -------
    list of tuple
        An image layer, 24x192x192 uint8, and a labels layer of the same shape
        in which each cell has an id and only planes 0 to 15 have any paint:
        the rest is there to be segmented.
    """
    rng = np.random.default_rng(0)
    labels = _cells(rng)
    signal = ndimage.gaussian_filter((labels > 0).astype(np.float32), (0.5, 1.2, 1.2))
    noise = rng.normal(0.0, 12.0, labels.shape)
    image = np.clip(40 + 120 * signal + noise, 0, 255).astype(np.uint8)
    labels[ANNOTATED:] = 0
    return [
        (image, {"name": "procedural cells"}, "image"),
        (labels, {"name": "cells (planes 0-15 annotated)"}, "labels"),
    ]


def stained_tissue() -> list[LayerTuple]:
    """A section of tissue in colours, with a mask of the stained epithelium; no download.

    Returns
    -------
    list of tuple
        An image layer, 512x512x3 uint8, and a labels layer, 512x512.
    """
    tissue = next(demo_set for demo_set in SETS if demo_set.name == "ihc")
    return [
        (wheel_image(tissue), {"name": "stained tissue", "rgb": True}, "image"),
        (demo_mask(tissue).astype(np.uint8), {"name": "stained epithelium"}, "labels"),
    ]


def mitosis(url: str = MITOSIS_URL, folder: Path | None = None) -> list[LayerTuple]:
    """Human cells, some of which divide; downloaded once and checked.

    Parameters
    ----------
    url
        Where the image is.
    folder
        Where it is kept; the user's cache by default.

    Returns
    -------
    list of tuple
        An image layer, 512x512 uint8.

    Raises
    ------
    DownloadError
        If there is no network, or another file came.
    """
    folder = folder or platformdirs.user_cache_path("napari-ptsam") / "samples"
    target = folder / "mitosis.tif"
    if not target.is_file() or _sha256(target.read_bytes()) != MITOSIS_SHA256:
        _fetch(url, target)
    return [(tifffile.imread(target), {"name": "dividing cells"}, "image")]


def _fetch(url: str, target: Path) -> None:
    try:
        with urlopen(url, timeout=TIMEOUT) as response:
            content = response.read()
        if _sha256(content) != MITOSIS_SHA256:
            raise DownloadError(
                f"What {url} sent is not the sample image: {len(content):,} bytes with another "
                "checksum. Does your network ask for a log-in? The other samples need no download."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(".mitosis.partial")
        partial.write_bytes(content)
        partial.replace(target)
    except (URLError, TimeoutError) as error:
        raise DownloadError(
            f"The sample image could not be downloaded from {url}: "
            f"{getattr(error, 'reason', error)}. The other samples need no network."
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _cells(rng: np.random.Generator) -> NDArray[np.int32]:
    """Ids of roundish cells that reach through several planes each."""
    labels = np.zeros((PLANES, SIDE, SIDE), np.int32)
    centres = scatter(rng, (SIDE, SIDE), 20.0, margin=8.0)
    for number, centre in enumerate(centres, start=1):
        radius, middle = rng.uniform(8.0, 12.0), rng.uniform(0, PLANES)
        for z in range(PLANES):
            across = radius**2 - (1.5 * (z - middle)) ** 2
            if across > 4.0:
                # One seed for all planes of a cell: its outline keeps its shape.
                window, level = star_shape(
                    np.random.default_rng(number), (SIDE, SIDE), centre, float(np.sqrt(across))
                )
                labels[z][window][(level > 0) & (labels[z][window] == 0)] = number
    return labels
