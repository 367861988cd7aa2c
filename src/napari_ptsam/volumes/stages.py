"""The steps of a job, each made of chunks that can be computed in any order, and again.

A step reads, computes and writes a chunk, so that these can overlap. What it writes are whole
files of its own, so chunks can be computed at the same time, by several processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.normalize import Normalization
from napari_ptsam.objects import without_small
from napari_ptsam.omezarr import OmeZarr
from napari_ptsam.planes import Planes
from napari_ptsam.predict import PreparedPlane, predict_prepared, prepare_plane
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes.blocks import Block, BlockPredictor, LargePlane
from napari_ptsam.volumes.job import Job, mark_of
from napari_ptsam.volumes.pipeline import side_by_side

MASK, PROBABILITY, OBJECTS, SCRATCH = "mask.zarr", "probability.zarr", "objects.zarr", "logits.zarr"


class Stage(Protocol):
    """A step of a job."""

    name: str
    at_once: int
    """How many chunks are computed at the same time, in threads."""

    def __len__(self) -> int:
        """Number of chunks."""

    def read(self, number: int) -> Any:
        """What is needed to compute a chunk."""

    def compute(self, data: Any) -> Any:
        """The result of a chunk, from what `read` gave."""

    def write(self, number: int, result: Any) -> None:
        """Put the result of a chunk on the disk."""


@dataclass(frozen=True)
class Work:
    """A job with its input and its specialist at hand.

    Attributes
    ----------
    job, planes, specialist
        What is done to what by whom.
    """

    job: Job
    planes: Planes
    specialist: Specialist

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of all planes."""
        return self.planes.shape_of(0)

    @property
    def blocks(self) -> list[Block]:
        """The blocks of each plane."""
        return Block.all_of(self.plane_shape, self.job.side)

    def locate(self, number: int) -> tuple[int, Block]:
        """Plane and block of a chunk; blocks of a plane follow each other."""
        blocks = self.blocks
        return number // len(blocks), blocks[number % len(blocks)]

    def create(self) -> None:
        """Make the arrays that chunks are written to."""
        settings, part = self.job.settings, self.planes.parts[0]
        kinds: list[tuple[str, type, bool]] = [(MASK, np.uint8, True)]
        kinds += [(PROBABILITY, np.float32, False)] * settings.probability
        kinds += [(OBJECTS, np.uint32, True)] * settings.objects
        for name, dtype, labels in kinds:
            OmeZarr.create(
                self.job.folder / name,
                part,
                self.plane_shape,
                dtype,
                version=settings.version,
                block=self.job.side,
                labels=labels,
                attributes=mark_of(self.job),
            )

    def image(self, name: str) -> OmeZarr:
        """One of the outputs."""
        return OmeZarr.open(
            self.job.folder / name, self.planes.parts[0], labels=name != PROBABILITY
        )

    def ranged(self, index: int) -> Normalization:
        """The normalisation of a plane, to apply to parts of it: measured once for all."""
        normalization = self.specialist.normalization
        if normalization.range is not None:
            return normalization
        path = self.job.folder / "ranges" / f"{index}.json"
        try:
            return Normalization.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            found = normalization.measured(self.planes, index)
            write_whole(path, json.dumps(found.to_dict()))
            return found


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that others see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


class Outputs:
    """Turns the probability of a chunk into what the user wants of it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._mask = work.image(MASK)
        wanted = work.job.settings.probability
        self._probability = work.image(PROBABILITY) if wanted else None

    def write(self, number: int, probability: NDArray[np.float32]) -> None:
        """Write the chunk."""
        plane, block = self._work.locate(number)
        mask = probability >= self._work.specialist.threshold
        if self._work.job.side is None:
            # Of blocks, an object may be larger than it seems here: see `linking`.
            mask = without_small(mask, self._work.job.settings.minimum_size)
        if self._probability is not None:
            self._probability.write(plane, probability, block.corner, durable=True)
        self._mask.write(plane, mask.astype(np.uint8), block.corner, durable=True)


class PlanePredictor:
    """Single planes: the very same computation as `Specialist.predict`, in two parts.

    Attributes
    ----------
    at_once
        How many planes are best computed at the same time, see `side_by_side`.
    """

    def __init__(self, specialist: Specialist, planes: Planes) -> None:
        self._specialist, self._planes = specialist, planes
        self.at_once = side_by_side(specialist.backbone, len(planes))

    def read(self, number: int) -> Any:
        """What `compute` takes: a plane, prepared if there is but one thread that computes."""
        pixels = np.asarray(self._planes.read(number))
        return pixels if self.at_once > 1 else self._prepared(pixels)

    def compute(self, data: Any) -> NDArray[np.float32]:
        """Probability of the object."""
        specialist = self._specialist
        prepared = data if isinstance(data, PreparedPlane) else self._prepared(data)
        return predict_prepared(
            specialist.method, specialist.recalling, prepared, specialist.rotations
        )

    def _prepared(self, pixels: NDArray[Any]) -> PreparedPlane:
        specialist = self._specialist
        image = specialist.normalization.apply(pixels)
        return prepare_plane(image, specialist.scaling, specialist.backbone.input_size)


class PlaneStage(PlanePredictor):
    """Whole planes."""

    name = "planes"

    def __init__(self, work: Work, sink: Callable[[int, NDArray[np.float32]], None]) -> None:
        super().__init__(work.specialist, work.planes)
        self._count, self._sink = len(work.planes), sink

    def __len__(self) -> int:
        return self._count

    def write(self, number: int, result: NDArray[np.float32]) -> None:
        """Hand the probability on."""
        self._sink(number, result)


class BlockStage:
    """Blocks of large planes."""

    name = "blocks"
    at_once = 1  # a block has many tiles already

    def __init__(self, work: Work, sink: Callable[[int, NDArray[np.float32]], None]) -> None:
        self._work, self._sink = work, sink
        specialist = work.specialist
        self._predictor = BlockPredictor(
            specialist.method, specialist.recalling, work.job.batch, specialist.rotations
        )

    def __len__(self) -> int:
        return len(self._work.planes) * len(self._work.blocks)

    def read(self, number: int) -> tuple[LargePlane, Block]:
        """The plane with its grey values measured; tiles are read as they are drawn."""
        plane, block = self._work.locate(number)
        specialist = self._work.specialist
        size = specialist.backbone.input_size
        large = LargePlane(
            self._work.planes, plane, self._work.ranged(plane), specialist.scaling, size
        )
        return large, block

    def compute(self, data: tuple[LargePlane, Block]) -> NDArray[np.float32]:
        """Probability of the object on the block."""
        return self._predictor.predict(*data)

    def write(self, number: int, result: NDArray[np.float32]) -> None:
        """Hand the probability on."""
        self._sink(number, result)
