"""Planes too large for the memory, predicted block by block without seams.

A block takes the tiles that the whole plane would be cut into, as far as they reach into it, in
the same order. So its pixels are those of the whole plane, and neighbours fit together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.backbones import Backbone, Embedding
from napari_ptsam.devices import computing
from napari_ptsam.methods import Method
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import Planes
from napari_ptsam.predict import TILES_AT_ONCE, averaged_logits, turned, view_tensors
from napari_ptsam.tiling import Offset, Scaling, interpolated, merge_tiles, tile_offsets
from napari_ptsam.views import (
    Marked,
    View,
    plain_positions,
    prefilter,
    prefilter_reach,
    sample_view,
    scaled_size,
)
from napari_ptsam.volumes.pipeline import ahead

LARGE_PLANE = 4096 * 4096
"""Pixels; larger planes are worked on in blocks."""

MODEL_PIXELS = 4096
"""Side of a block in model pixels, at most."""

_AT_ONCE = 4096 * 4096
"""Pixels of the source that a part of a view is made from, at most."""


def block_side(shape: tuple[int, int], scaling: Scaling, size: int) -> int | None:
    """Side of the blocks of a plane, a power of two; None where it is no large plane.

    Parameters
    ----------
    shape
        Height and width of the plane.
    scaling, size
        Working scale, and side of the model's input.
    """
    if shape[0] * shape[1] <= LARGE_PLANE:
        return None
    most = min(MODEL_PIXELS / scaling.scale_for(shape, size), 4096)
    return max(1 << (int(most).bit_length() - 1), 512)


@dataclass(frozen=True)
class LargePlane:
    """A plane that is read in windows.

    Attributes
    ----------
    planes, index
        Where it is.
    normalization
        With the grey values of the whole plane, see `Normalization.measured`.
    scaling, size
        Working scale, and side of the model's input.
    """

    planes: Planes
    index: int
    normalization: Normalization
    scaling: Scaling
    size: int

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.planes.shape_of(self.index)

    @property
    def scale(self) -> float:
        """Model pixels per pixel."""
        return self.scaling.scale_for(self.shape, self.size)

    @property
    def scaled(self) -> tuple[int, int]:
        """Height and width in model pixels."""
        return scaled_size(self.shape, self.scale)

    def view(self, offset: Offset) -> View:
        """The tile at an offset: as `plain_view` of the whole plane, from as little as it takes."""
        rows, columns = plain_positions(self.shape, self.size, self.scale, offset)
        rows, columns = rows.clip(0, self.shape[0] - 1), columns.clip(0, self.shape[1] - 1)
        nothing = np.zeros((self.size, self.size), bool)
        image = np.zeros((self.size, self.size, 3), np.float32)
        width = int(columns.max() - columns.min()) + 2 * prefilter_reach(self.scale) + 2
        count = max(int(_AT_ONCE / width * self.scale), 1)
        for first in range(0, len(rows), count):
            part = rows[first : first + count]
            image[first : first + len(part), : len(columns)] = self._sampled(part, columns)
        return View(image, nothing, nothing, (len(rows), len(columns)))

    def _sampled(
        self, rows: NDArray[np.float32], columns: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Pixels at these rows and columns, from a window around them."""
        reach = prefilter_reach(self.scale)
        starts, slices = [], []
        for positions, length in zip((rows, columns), self.shape, strict=True):
            start = max(int(positions.min()) - reach, 0)
            stop = min(int(positions.max()) + 2 + reach, length)
            starts.append(start)
            slices.append(slice(start, stop))
        window = self.planes.read_window(self.index, slices[0], slices[1])
        image = prefilter(self.normalization.apply(window), self.scale)
        y, x = np.broadcast_arrays((rows - starts[0])[:, None], (columns - starts[1])[None, :])
        view = sample_view(Marked.blank(image), y, x, max(y.shape))
        return view.image[: len(rows), : len(columns)]


@dataclass(frozen=True)
class Block:
    """A rectangle of a plane: its first row and column, and its height and width."""

    corner: tuple[int, int]
    shape: tuple[int, int]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        rows, columns = (slice(c, c + s) for c, s in zip(self.corner, self.shape, strict=True))
        return rows, columns

    @classmethod
    def all_of(cls, shape: tuple[int, int], side: int | None) -> list[Block]:
        """The blocks of a plane, row by row; one where `side` is None."""
        if side is None:
            return [cls((0, 0), shape)]
        return [
            cls((row, column), (min(side, shape[0] - row), min(side, shape[1] - column)))
            for row in range(0, shape[0], side)
            for column in range(0, shape[1], side)
        ]


class BlockPredictor:
    """Predicts blocks of large planes.

    Parameters
    ----------
    method, backbone
        Of the specialist.
    batch
        Tiles that the backbone sees at once. Another number may change the last digits.
    rotations
        In how many positions each tile is looked at, see `averaged_logits`.
    """

    def __init__(
        self,
        method: Method,
        backbone: Backbone,
        batch: int = TILES_AT_ONCE,
        rotations: int = 1,
    ) -> None:
        self._method, self._backbone = method, backbone
        self._batch, self._rotations = batch, rotations
        self._only: tuple[int, Tensor] | None = None

    def predict(self, plane: LargePlane, block: Block) -> NDArray[np.float32]:
        """Probability of the object on a block, HxW float32."""
        (top, bottom), (left, right) = (
            _span(first, length, whole, scaled)
            for first, length, whole, scaled in zip(
                block.corner, block.shape, plane.shape, plane.scaled, strict=True
            )
        )
        size = plane.size
        offsets = tile_offsets(plane.scaled, size)
        needed = [
            (row, column)
            for row, column in offsets
            if row < bottom and row + size > top and column < right and column + size > left
        ]
        with torch.inference_mode(), computing(self._backbone.device):
            tiles = self._tiles(plane, needed, alone=len(offsets) == 1)
            merged = merge_tiles(tiles, (top, left), (bottom - top, right - left))
            merged = _enlarged(merged, 0, block, plane, top)
            merged = _enlarged(merged, 1, block, plane, left)
            return np.asarray(merged.sigmoid().numpy(), np.float32)

    def _tiles(
        self, plane: LargePlane, offsets: list[Offset], *, alone: bool
    ) -> Iterator[tuple[Tensor, Offset]]:
        if not alone:
            yield from self._computed(plane, offsets)
            return
        # All blocks are cut from the one view of the whole plane.
        if self._only is None or self._only[0] != plane.index:
            ((tile, _),) = self._computed(plane, offsets)
            self._only = plane.index, tile
        yield self._only[1], offsets[0]

    def _computed(
        self, plane: LargePlane, offsets: list[Offset]
    ) -> Iterator[tuple[Tensor, Offset]]:
        groups = [offsets[i : i + self._batch] for i in range(0, len(offsets), self._batch)]
        drawn = ([plane.view(offset) for offset in group] for group in groups)
        for group, views in zip(groups, ahead(drawn), strict=True):
            yield from zip(self._logits(views), group, strict=True)

    def _logits(self, views: list[View]) -> Tensor:
        method, backbone, content = self._method, self._backbone, views[0].content
        inputs = view_tensors(backbone, views)

        def encode(quarters: int) -> Embedding:
            return method.encode(backbone, turned(inputs, content, quarters))

        return averaged_logits(method, backbone, encode, content, self._rotations)


def _span(first: int, length: int, whole: int, scaled: int) -> tuple[int, int]:
    """Model pixels that a stretch of pixels is interpolated from."""
    ends = (np.array([first, first + length - 1]) + 0.5) * scaled / whole - 0.5
    return max(int(np.floor(ends[0])) - 1, 0), min(int(np.floor(ends[1])) + 3, scaled)


def _enlarged(logits: Tensor, axis: int, block: Block, plane: LargePlane, start: int) -> Tensor:
    """Bilinear interpolation along one axis, as of the whole plane (`torch`'s, corners apart)."""
    length, whole, scaled = block.shape[axis], plane.shape[axis], plane.scaled[axis]
    places = torch.arange(block.corner[axis], block.corner[axis] + length, dtype=torch.float64)
    if whole == scaled:
        return logits.index_select(axis, places.long() - start)
    source = ((places + 0.5) * (scaled / whole) - 0.5).clamp(min=0)
    return interpolated(logits, axis, source - start)


def batch_size(backbone: Backbone, free: int | None) -> int:
    """How many tiles a backbone may see at once.

    Parameters
    ----------
    free
        Bytes of memory that are free on its device, None where nobody knows.
    """
    # Float32 activations in the widest places: the MLP of an encoder block, and the stem.
    size = backbone.input_size
    stem = 2 * 4 * size * size * 32
    each = 16 * 4 * (size // 8) ** 2 * backbone.encoder_width + stem
    most = TILES_AT_ONCE if backbone.device.type == "cpu" else 64
    if free is None:
        return min(most, TILES_AT_ONCE)
    return max(1, min(most, free // 2 // each))
