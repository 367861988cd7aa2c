"""What comes after the last chunk: small objects, numbers and tables, and the files' names."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_ptsam.measure import ObjectSums, ObjectTable
from napari_ptsam.omezarr import OmeZarr, known_scale, output_axes
from napari_ptsam.planes import Part
from napari_ptsam.replacing import made_by
from napari_ptsam.sinks import is_large, ome_description
from napari_ptsam.volumes.job import Settings
from napari_ptsam.volumes.linking import Linker, Numbers, pieces
from napari_ptsam.volumes.stages import MASK, OBJECTS, PROBABILITY, Work
from napari_ptsam.writing import split_name

TABLE = "objects.csv"

_TILE = 512


@dataclass(frozen=True)
class Order:
    """Planes in the order in which objects are linked.

    Attributes
    ----------
    planes
        Their numbers in the source, time point by time point, from the first in depth on.
    frames
        The time point of each in the output.
    depths
        The place along Z of each in the output.
    linked
        Whether the one before lies right above it in the source.
    """

    planes: list[int]
    frames: list[int]
    depths: list[int]
    linked: list[bool]

    @classmethod
    def of(cls, part: Part) -> Order:
        """The order for these planes: time points and depths as in the output."""
        runs = part.runs()
        planes = [number for run in runs for number in run]
        axes, shape = output_axes(part)
        grid = np.indices(shape).reshape(len(axes), part.count)[:, planes]
        place = dict(zip(axes, grid.tolist(), strict=True))
        nothing = [0] * part.count
        return cls(
            planes,
            place.get("T", nothing),
            place.get("Z", nothing),
            # Not what is next in the output: planes may have been left out in between.
            [step > 0 for run in runs for step in range(len(run))],
        )


def linked(work: Work, *, planewise: bool = False) -> Iterator[int | Linker]:
    """Link the objects of the mask: yields the number of planes done, and at last the linker."""
    order, mask = Order.of(work.planes.parts[0]), work.image(MASK)
    linker = Linker(work.plane_shape, work.blocks)
    for number, place, block in pieces(len(order.planes), work.blocks):
        piece = mask.read(order.planes[place], *block.slices) > 0
        above = None
        if order.linked[place] and not planewise:
            above = mask.read(order.planes[place - 1], *block.slices) > 0
        linker.add(piece, above)
        if (number + 1) % len(work.blocks) == 0:
            yield place + 1
    yield linker


def without_small_objects(work: Work) -> Iterator[int]:
    """Take objects off the mask that are too small in their plane, over borders of blocks.

    Doing it twice does no harm, so it starts again where it was interrupted.
    """
    linker = None
    for step in linked(work, planewise=True):
        if isinstance(step, Linker):
            linker = step
        else:
            yield step
    if linker is None:
        return
    numbers = linker.finish(work.job.settings.minimum_size)
    order, mask = Order.of(work.planes.parts[0]), work.image(MASK)
    for number, place, block in pieces(len(order.planes), work.blocks):
        plane = order.planes[place]
        piece = mask.read(plane, *block.slices)
        kept = (numbers.apply(number, piece > 0) > 0).astype(np.uint8)
        if not np.array_equal(piece, kept):
            mask.write(plane, kept, block.corner, durable=True)


def numbered(work: Work) -> Iterator[int | ObjectTable]:
    """Number and measure the objects: yields planes done, and at last the table."""
    linker = None
    for step in linked(work):
        if isinstance(step, Linker):
            linker = step
    if linker is None:
        return
    numbers: Numbers = linker.finish()
    order, mask, objects = Order.of(work.planes.parts[0]), work.image(MASK), work.image(OBJECTS)
    sums = ObjectSums("zyx" if any(order.depths) else "yx")
    for number, place, block in pieces(len(order.planes), work.blocks):
        plane = order.planes[place]
        labels = numbers.apply(number, mask.read(plane, *block.slices) > 0)
        objects.write(plane, labels, block.corner, durable=True)
        grey = work.planes.read_window(plane, *block.slices)
        corner = (order.depths[place], *block.corner)
        sums.add(labels, corner, grey, frame=order.frames[place])
        if (number + 1) % len(work.blocks) == 0:
            yield place + 1
    spacing, unit = spacing_of(work.planes.parts[0], "ZYX" if any(order.depths) else "YX")
    yield sums.table(spacing=spacing, unit=unit, frames=len(set(order.frames)) > 1)


def spacing_of(part: Part, axes: str) -> tuple[tuple[float, ...], str]:
    """Size of a pixel along axes, and its unit; 1 pixel where one is unknown or units differ."""
    scale = known_scale(part)
    units = {scale[axis][1] for axis in axes if axis in scale}
    if len(units) != 1 or not set(axes) <= set(scale):
        return (1.0,) * len(axes), "pixel"
    return tuple(scale[axis][0] for axis in axes), units.pop()


def write_tiff(
    image: OmeZarr, part: Part, shape: tuple[int, int], path: Path, software: str
) -> None:
    """Write an image as a tiled OME-TIFF, of which a few tiles are in memory."""
    dtype = image.read(0, slice(0, 1), slice(0, 1)).dtype
    description: bytes | None = ome_description(part, shape, dtype)

    def tiles(plane: int) -> Iterator[NDArray[np.generic]]:
        for row in range(0, shape[0], _TILE):
            band = image.read(plane, slice(row, row + _TILE))
            band = np.pad(band, ((0, _TILE - band.shape[0]), (0, -shape[1] % _TILE)))
            yield from np.split(band, band.shape[1] // _TILE, axis=1)

    with tifffile.TiffWriter(path, bigtiff=is_large(part, shape, dtype), ome=False) as writer:
        for plane in range(part.count):
            writer.write(
                tiles(plane),
                shape=shape,
                dtype=dtype,
                tile=(_TILE, _TILE),
                photometric="minisblack",
                compression="zlib",
                description=description,
                software=software if description else False,
                metadata=None,
                contiguous=False,
            )
            description = None


Naming = Callable[[Path, str], Path]
"""From the mask's path and a word, such as ``objects``, to the path of another result."""


def beside(output: Path, word: str) -> Path:
    """``masks.ome.tif`` and ``objects`` make ``masks_objects.ome.tif``."""
    stem, suffix = split_name(output.name)
    return output.with_name(f"{stem}_{word}{suffix}")


def products(settings: Settings, output: Path, naming: Naming = beside) -> dict[str, Path]:
    """For each file in the job's folder, where it goes."""
    found = {}
    if settings.probability:
        found[PROBABILITY] = naming(output, "probability")
    if settings.objects:
        found[OBJECTS] = naming(output, "objects")
        stem, _ = split_name(found[OBJECTS].name)
        found[TABLE] = found[OBJECTS].with_name(f"{stem}.csv")
    # The mask last: it stands for the job.
    return {**found, MASK: output}


def marked(targets: Mapping[str, Path]) -> dict[Path, Path]:
    """Each of the `products` with the image that tells who made it; a table has no mark."""
    return {path: targets[OBJECTS if name == TABLE else name] for name, path in targets.items()}


def put_in_place(work: Work, output: Path, naming: Naming) -> dict[str, Path]:
    """Give the files their names, and remove the job's folder. Can be done again if interrupted."""
    part, shape = work.planes.parts[0], work.plane_shape
    settings = work.job.settings
    targets = products(settings, output, naming)
    software = settings.software or made_by(work.job.digest)
    for name, target in targets.items():
        source = work.job.folder / name
        if not source.exists():
            continue  # it was moved before
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".zarr") and target.suffix.lower() != ".zarr":
            unfinished = source.with_suffix(".tif")
            write_tiff(work.image(name), part, shape, unfinished, software)
            unfinished.replace(target)
            continue
        if target.is_dir():
            shutil.rmtree(target)
        source.replace(target)
    work.job.discard()
    return targets
