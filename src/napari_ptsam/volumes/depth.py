"""Agreement along Z: logits smoothed from plane to plane, or averaged over three axes.

Logits wait on disk in half precision until all that a plane needs are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.omezarr import sync_chunks
from napari_ptsam.planes import Part
from napari_ptsam.planes.layout import Index
from napari_ptsam.predict import predict_prepared, prepare_plane
from napari_ptsam.tiling import Scaling
from napari_ptsam.volumes.stages import SCRATCH, Work

if TYPE_CHECKING:
    import zarr

_SIDE = 1024
_LIMIT = 12.0
"""Logits beyond this say no more, and would outweigh all neighbours."""

_SLAB_BYTES = 128_000_000


def series_of(part: Part) -> list[list[int]]:
    """Numbers of the planes that lie right upon each other, in order of Z.

    Returns
    -------
    A list for each time point; several, where planes between were left out.

    Raises
    ------
    InputError
        If the input has no depth.
    """
    if "Z" not in part.origin.axes:
        axes = part.origin.axes or "Y and X alone"
        raise InputError(
            f"{part.key} has no axis Z, along which planes could be made to agree: its axes are "
            f"{axes}. Leave the option away, or name the axes (--axes)."
        )
    series = part.runs()
    if len(series) == part.count:
        raise InputError(
            f"Of the {part.count} planes chosen of {part.key}, no two lie right upon each other, "
            "so that none could be made to agree. Leave the option away, or choose planes in a "
            "row (--planes 0-15)."
        )
    return series


class Logits:
    """Logits of a job on disk, one array for each axis that planes are cut along."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._path = work.job.folder / SCRATCH

    def create(self) -> None:
        """Make the arrays."""
        import zarr

        group = zarr.open_group(str(self._path), mode="w")
        count, (height, width) = len(self._work.planes), self._work.plane_shape
        side = min(_SIDE, self._work.job.side or _SIDE)
        chunks = {"z": (1, min(side, height), min(side, width))}
        if self._work.job.settings.three_axes:
            series = series_of(self._work.planes.parts[0])
            # No two series may meet in one file.
            deep = min(count, 32) if len(series) == 1 else 1
            chunks["y"] = (deep, min(slab(self._work, 0), height), width)
            chunks["x"] = (deep, height, min(slab(self._work, 1), width))
        for name, chunk in chunks.items():
            group.create_array(
                name, shape=(count, height, width), chunks=chunk, dtype=np.float16, fill_value=0
            )

    def array(self, axis: str) -> zarr.Array[Any]:
        """The logits of planes along an axis."""
        import zarr

        return zarr.open_array(str(self._path / axis), mode="r+")

    def axes(self) -> str:
        """The axes that there are logits of."""
        return "zyx" if self._work.job.settings.three_axes else "z"

    def keep(self, number: int, probability: NDArray[np.float32]) -> None:
        """Put a chunk along Z on the disk, as the other steps put probabilities."""
        plane, block = self._work.locate(number)
        self.put("z", (plane, *block.slices), logit(probability))

    def put(self, axis: str, place: Index, values: NDArray[np.float16]) -> None:
        """Put logits of planes along an axis on the disk."""
        array = self.array(axis)
        array[place] = values
        sync_chunks(self._path / axis, array, place)


def logit(probability: NDArray[np.float32]) -> NDArray[np.float16]:
    """Log odds, cut off at 12."""
    p = probability.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray((np.log(p) - np.log1p(-p)).clip(-_LIMIT, _LIMIT), np.float16)


def smoothing_weights(sigma: float) -> NDArray[np.float64]:
    """A Gaussian up to three SD from its middle; one 1 if `sigma` is 0."""
    reach = int(3 * sigma + 0.5)
    distance = np.arange(-reach, reach + 1)
    return np.exp(-0.5 * (distance / max(sigma, 1e-9)) ** 2)


class CombineStage:
    """Logits of planes, their neighbours and other axes to the probability of a chunk."""

    name = "combining"
    at_once = 1

    def __init__(self, work: Work, sink: Callable[[int, NDArray[np.float32]], None]) -> None:
        self._work, self._sink = work, sink
        logits = Logits(work)
        self._arrays = [logits.array(axis) for axis in logits.axes()]
        series = series_of(work.planes.parts[0])
        self._place = {plane: (run, depth) for run in series for depth, plane in enumerate(run)}
        self._weights = smoothing_weights(work.job.settings.z_smooth)

    def __len__(self) -> int:
        return len(self._work.planes) * len(self._work.blocks)

    def read(self, number: int) -> NDArray[np.float32]:
        """Weighted mean of the logits; beyond the first and last plane there are none."""
        plane, block = self._work.locate(number)
        rows, columns = block.slices
        run, depth = self._place[plane]
        reach = len(self._weights) // 2
        total, weights = np.zeros(block.shape), 0.0
        for step, weight in enumerate(self._weights, start=-reach):
            if not 0 <= depth + step < len(run):
                continue
            other = run[depth + step]
            for array in self._arrays:
                total += weight * np.asarray(array[other, rows, columns], np.float64)
                weights += weight
        return np.asarray(total / weights, np.float32)

    def compute(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of the object."""
        return np.asarray(torch.from_numpy(data).sigmoid().numpy())

    def write(self, number: int, result: NDArray[np.float32]) -> None:
        """Hand the probability on."""
        self._sink(number, result)


def slab(work: Work, axis: int) -> int:
    """How many rows (axis 0) or columns (1) of all planes are in memory at once."""
    depth = max(map(len, series_of(work.planes.parts[0])))
    across = work.plane_shape[1 - axis]
    return max(1, min(64, _SLAB_BYTES // (depth * across * 12)))


class SideStage:
    """Planes along Y or X: a few of them at once, from all planes along Z.

    Parameters
    ----------
    axis
        0 for planes of one row (Z, X), 1 for planes of one column (Z, Y).
    """

    at_once = 1  # what it holds is large

    def __init__(self, work: Work, axis: int) -> None:
        self.name = ("planes along Y", "planes along X")[axis]
        self._work, self._axis = work, axis
        self._slab = slab(work, axis)
        self._series = series_of(work.planes.parts[0])
        self._logits = Logits(work)
        self._stretch = stretch_of(work.planes.parts[0], axis)
        specialist = work.specialist
        # As large as the objects are shown along Z.
        size = specialist.backbone.input_size
        self._scaling = Scaling(specialist.scaling.scale_for(work.plane_shape, size))

    def __len__(self) -> int:
        return len(self._series) * self._slabs

    @property
    def _slabs(self) -> int:
        return -(-self._work.plane_shape[self._axis] // self._slab)

    def _locate(self, number: int) -> tuple[list[int], tuple[slice, slice]]:
        row, start = divmod(number, self._slabs)
        stop = min((start + 1) * self._slab, self._work.plane_shape[self._axis])
        part, every = (
            slice(start * self._slab, stop),
            slice(0, self._work.plane_shape[1 - self._axis]),
        )
        return self._series[row], (part, every) if self._axis == 0 else (every, part)

    def read(self, number: int) -> NDArray[np.float32]:
        """The slab, normalised as the planes along Z are: slab x Z x across x 3."""
        planes, (rows, columns) = self._locate(number)
        parts = [
            self._work.ranged(p).apply(self._work.planes.read_window(p, rows, columns))
            for p in planes
        ]
        return np.moveaxis(np.stack(parts), 1 + self._axis, 0)

    def compute(self, data: NDArray[np.float32]) -> NDArray[np.float16]:
        """Logits of the slab."""
        specialist = self._work.specialist
        size = specialist.backbone.input_size
        found = []
        for cut in data:
            depth, across = cut.shape[:2]
            tall = max(round(depth * self._stretch), 1)
            image = _resized(cut, (tall, across)) if tall != depth else np.ascontiguousarray(cut)
            prepared = prepare_plane(image, self._scaling, size)
            probability = predict_prepared(
                specialist.method, specialist.recalling, prepared, specialist.rotations
            )
            back = _resized(probability[..., None], (depth, across))[..., 0]
            found.append(logit(back))
        return np.stack(found)

    def write(self, number: int, result: NDArray[np.float16]) -> None:
        """Put the slab on the disk."""
        planes, (rows, columns) = self._locate(number)
        turned = np.moveaxis(result, 0, 1 + self._axis)
        axis, first, last = "yx"[self._axis], planes[0], planes[-1]
        if planes == list(range(first, last + 1)):
            self._logits.put(axis, (slice(first, last + 1), rows, columns), turned)
            return
        for plane, values in zip(planes, turned, strict=True):
            self._logits.put(axis, (plane, rows, columns), values)


def stretch_of(part: Part, axis: int) -> float:
    """By how much planes lie further apart than pixels, as far as the file says."""
    # Neighbours lie as far apart as in the whole, whichever planes were chosen.
    scale = part.origin.scale
    across, depth = scale.get("XY"[axis]), scale.get("Z")
    if across is None or depth is None or across[1] != depth[1]:
        return 1.0
    return min(max(depth[0] / across[0], 0.1), 20.0)


def _resized(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    found = F.interpolate(tensor, shape, mode="bilinear", align_corners=False)
    return np.ascontiguousarray(found[0].permute(1, 2, 0).numpy())
