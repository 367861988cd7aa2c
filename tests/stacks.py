"""Small stacks, a specialist to segment them with, and ways to compare what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from scipy import ndimage

from napari_ptsam.omezarr import OmeZarr
from napari_ptsam.planes import Part
from napari_ptsam.specialist import Specialist


def drained(run):
    """All that a generator yields, and its value."""
    steps = []
    while True:
        try:
            steps.append(next(run))
        except StopIteration as end:
            return steps, end.value


def spots(*shape, seed=5):
    """Bright blobs in noise, uint16."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), [0] * (len(shape) - 2) + [4, 4])
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (200 + 2000 * smooth + rng.normal(0, 30, shape)).astype(np.uint16)


def any_specialist(backbone: Path) -> Specialist:
    """One that has learned next to nothing, and takes half of the pixels for object."""
    images = spots(2, 64, 64)
    made = Specialist.train(
        images, images > 1200, backbone=backbone, preset="quick", steps=2, scale=1.0
    )
    made.threshold = float(np.median(made.predict(images[0]).probability))
    return made


def write_source(path: Path, data, axes="ZYX", scale=None) -> Path:
    """An OME-Zarr image to segment."""
    leading = data.shape[:-2]
    part = Part("in", int(np.prod(leading)), axes[:-2], leading, scale or {})
    image = OmeZarr.create(path, part, data.shape[-2:], data.dtype, labels=False)
    for number, plane in enumerate(data.reshape(-1, *data.shape[-2:])):
        image.write(number, plane)
    return path


def stored(path: Path):
    """The full resolution of an OME-Zarr image."""
    return zarr.open_group(path, mode="r")["0"][:]


def assert_same(one: Path, other: Path) -> None:
    """Two OME-Zarr images have the same arrays and attributes."""
    first, second = (zarr.open_group(path, mode="r") for path in (one, other))
    assert dict(first.attrs) == dict(second.attrs)
    assert sorted(first.array_keys()) == sorted(second.array_keys())
    for name in first.array_keys():
        np.testing.assert_array_equal(first[name][:], second[name][:])
