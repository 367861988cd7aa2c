"""What the benchmarks of large inputs share: made-up volumes, and a specialist to segment them."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.omezarr import OmeZarr
from napari_ptsam.planes import Part
from napari_ptsam.specialist import Specialist

SCALE = {"Z": (0.5, "µm"), "Y": (0.1, "µm"), "X": (0.1, "µm")}


def blobs(side: int, seed: int = 0) -> NDArray[np.float64]:
    """A plane of bright blobs in noise, 0..1; it continues over its borders."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(side, side)), side / 64, mode="wrap")
    bright = field > np.percentile(field, 75)
    grey = ndimage.gaussian_filter(0.2 + 0.5 * bright, 1.5, mode="wrap")
    return np.asarray((grey + rng.normal(0, 0.05, grey.shape)).clip(0, 1))


def planes_of(count: int, side: int) -> Iterator[NDArray[np.uint16]]:
    """Planes in which the blobs wander from one to the next."""
    base = (blobs(side) * 60_000).astype(np.uint16)
    for number in range(count):
        yield np.roll(base, (3 * number, number), (0, 1))


def write_volume(path: Path, count: int, side: int) -> Path:
    """An OME-Zarr image of ``count x side x side`` uint16."""
    part = Part("volume", count, "Z", (count,), SCALE)
    image = OmeZarr.create(path, part, (side, side), np.uint16, labels=False)
    for number, plane in enumerate(planes_of(count, side)):
        image.write(number, plane)
    return path


def train_specialist(path: Path, scale: float | str = "auto", steps: int = 60) -> Path:
    """A specialist for the blobs, after a short training."""
    images = np.stack(list(planes_of(6, 256)))
    truth = np.stack([ndimage.gaussian_filter(p.astype(float), 2) > 30_000 for p in images])
    return Specialist.train(images, truth, preset="quick", steps=steps, scale=scale).save(path)


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    if (found := _status_mb("VmHWM")) is not None:
        # The system's own count of a child begins with the memory of its parent.
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, others in KiB.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def resident_mb() -> float:
    """Resident memory of this process now; its peak where the system does not say."""
    found = _status_mb("VmRSS")
    return peak_mb() if found is None else found


def _status_mb(name: str) -> float | None:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def same_images(one: Path, other: Path) -> bool:
    """Whether two OME-Zarr images have the same arrays and attributes."""
    first, second = (zarr.open_group(str(path), mode="r") for path in (one, other))
    if dict(first.attrs) != dict(second.attrs):
        return False
    names = sorted(first.array_keys())
    return names == sorted(second.array_keys()) and all(
        _equal(first[name], second[name]) for name in names
    )


def _equal(one: Any, other: Any) -> bool:
    """Plane by plane: the arrays may be larger than the memory."""
    leading = one.shape[:-2]
    return one.shape == other.shape and all(
        np.array_equal(one[place], other[place]) for place in np.ndindex(*leading)
    )
