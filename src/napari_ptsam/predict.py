"""Planes to probabilities: embed and decode, in one go or in two parts kept apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.backbones.backbone import Backbone, Embedding, resize_logits
from napari_ptsam.devices import computing
from napari_ptsam.embeddings import embed
from napari_ptsam.methods.base import Method
from napari_ptsam.tiling import Offset, Scaling, blend, tile_offsets
from napari_ptsam.views import Marked, View, plain_view, prefilter, scaled_size

TILES_AT_ONCE = 4

T = TypeVar("T")


@dataclass(frozen=True)
class PlaneEmbedding:
    """What the decoder needs of a plane, and where its tiles lie.

    Attributes
    ----------
    tiles
        Embedding of N tiles.
    offsets
        Their corners in the scaled plane, model pixels.
    scaled, shape
        Height and width of the scaled plane and of the plane itself.
    """

    tiles: Embedding
    offsets: tuple[Offset, ...]
    scaled: tuple[int, int]
    shape: tuple[int, int]

    def compact(self) -> PlaneEmbedding:
        """The same in 16 bits on the CPU, for keeping."""
        return replace(self, tiles=tuple(level.half().cpu() for level in self.tiles))


@dataclass(frozen=True)
class PreparedPlane:
    """A plane ready for a backbone: filtered, and cut into tiles. Made by `prepare_plane`."""

    plane: Marked
    scale: float
    scaled: tuple[int, int]
    offsets: tuple[Offset, ...]

    def embedded(
        self, method: Method, backbone: Backbone, offsets: Sequence[Offset], quarters: int = 0
    ) -> Embedding:
        """Embedding of some of the tiles, each turned by so many quarters."""
        inputs = partial(self.inputs, backbone, offsets, quarters)
        return embed(method, backbone, partial(self.name, offsets, quarters), inputs)

    def inputs(self, backbone: Backbone, offsets: Sequence[Offset], quarters: int = 0) -> Tensor:
        """Model inputs of some of the tiles, Bx3xSxS on the backbone's device."""
        views = [plain_view(self.plane, backbone.input_size, self.scale, o) for o in offsets]
        return turned(view_tensors(backbone, views), views[0].content, quarters)

    def name(self, offsets: Sequence[Offset], quarters: int = 0) -> str:
        """What the inputs of some of the tiles are made of: pixels, scale, corners and turn."""
        turn = f" turned {quarters}" if quarters else ""
        return f"{self._digest} {self.scale!r} {list(offsets)}{turn}"

    @cached_property
    def _digest(self) -> str:
        """Of the plane's pixels."""
        image = np.ascontiguousarray(self.plane.image)
        return f"{image.shape} {xxhash.xxh3_128_hexdigest(image.data)}"


def prepare_plane(image: NDArray[np.float32], scaling: Scaling, size: int) -> PreparedPlane:
    """What of a prediction needs no network, so that another thread may do it.

    Parameters
    ----------
    image
        HxWx3 float32, 0..255, normalised as in training.
    scaling
        Working scale; decides the tiles.
    size
        Side of the model's input.
    """
    scale = scaling.scale_for(image.shape, size)
    scaled = scaled_size(image.shape, scale)
    plane = Marked.blank(prefilter(image, scale))
    return PreparedPlane(plane, scale, scaled, tuple(tile_offsets(scaled, size)))


def view_tensors(backbone: Backbone, views: Sequence[View]) -> Tensor:
    """Model inputs of views, Bx3xSxS on the backbone's device."""
    images = torch.stack([torch.from_numpy(v.image).permute(2, 0, 1) for v in views])
    return backbone.normalise_input(images, [v.content for v in views])


def embed_plane(
    method: Method, backbone: Backbone, image: NDArray[np.float32], scaling: Scaling
) -> PlaneEmbedding:
    """Encode one plane.

    Parameters
    ----------
    image
        HxWx3 float32, 0..255, normalised as in training.
    scaling
        Working scale; decides the tiles.
    """
    tiling = prepare_plane(image, scaling, backbone.input_size)
    with torch.inference_mode(), computing(backbone.device):
        parts = [tiling.embedded(method, backbone, group) for group in _groups(tiling.offsets)]
        tiles = tuple(torch.cat(level) for level in zip(*parts, strict=True))
    height, width = image.shape[:2]
    return PlaneEmbedding(tiles, tiling.offsets, tiling.scaled, (height, width))


def decode_plane(
    method: Method, backbone: Backbone, embedded: PlaneEmbedding
) -> NDArray[np.float32]:
    """Probability of the object, HxW float32, from an embedded plane."""

    def decoded() -> Iterator[tuple[Tensor, Offset]]:
        for group in _groups(range(len(embedded.offsets))):
            part = slice(group[0], group[-1] + 1)
            tiles = tuple(level[part].to(backbone.device).float() for level in embedded.tiles)
            yield from tile_logits(method, backbone, tiles, embedded.offsets[part])

    with torch.inference_mode(), computing(backbone.device):
        return blend(decoded(), embedded.scaled, embedded.shape)


def predict_plane(
    method: Method,
    backbone: Backbone,
    image: NDArray[np.float32],
    scaling: Scaling,
    rotations: int = 1,
) -> NDArray[np.float32]:
    """Probability of the object, HxW float32.

    With one rotation it is what `embed_plane` and `decode_plane` give, a few tiles at a time:
    embeddings of a whole large plane would fill the memory.

    Parameters
    ----------
    image, scaling
        As for `prepare_plane`.
    rotations
        1, 2 or 4: in how many positions each tile is looked at, see `averaged_logits`.
    """
    prepared = prepare_plane(image, scaling, backbone.input_size)
    return predict_prepared(method, backbone, prepared, rotations)


def predict_prepared(
    method: Method, backbone: Backbone, prepared: PreparedPlane, rotations: int = 1
) -> NDArray[np.float32]:
    """Probability of the object, HxW float32: the rest of `predict_plane`."""
    size = backbone.input_size
    content = min(prepared.scaled[0], size), min(prepared.scaled[1], size)

    def predicted() -> Iterator[tuple[Tensor, Offset]]:
        for group in _groups(prepared.offsets):
            encode = partial(prepared.embedded, method, backbone, group)
            logits = averaged_logits(method, backbone, encode, content, rotations)
            yield from zip(logits, group, strict=True)

    height, width = prepared.plane.image.shape[:2]
    with torch.inference_mode(), computing(backbone.device):
        return blend(predicted(), prepared.scaled, (height, width))


def tile_logits(
    method: Method, backbone: Backbone, tiles: Embedding, offsets: Sequence[Offset]
) -> Iterator[tuple[Tensor, Offset]]:
    """SxS logits of each tile, with its corner."""
    yield from zip(_logits(method, backbone, tiles), offsets, strict=True)


def averaged_logits(
    method: Method,
    backbone: Backbone,
    encode: Callable[[int], Embedding],
    content: tuple[int, int],
    rotations: int,
) -> Tensor:
    """Logits of tiles, BxSxS: their mean over several positions of each tile.

    Micrographs have no upright, but a network's answer differs a little with the position.

    Parameters
    ----------
    encode
        Gives the embedding of the tiles `turned` by so many quarters.
    content
        Rows and columns, from the top left, that the image fills in each tile.
    rotations
        How many positions: 1, 2 (a quarter turn apart) or 4.
    """
    total = torch.zeros(())
    for quarters in range(rotations):
        logits = _logits(method, backbone, encode(quarters))
        there = content if quarters % 2 == 0 else content[::-1]
        total = turned(logits, there, -quarters) + total.to(logits.device)
    return total / rotations


def turned(maps: Tensor, content: tuple[int, int], quarters: int) -> Tensor:
    """Maps, ...xSxS, with their content turned by quarters; the padding stays below and right."""
    if quarters % 4 == 0:
        return maps
    found = torch.zeros_like(maps)
    part = torch.rot90(maps[..., : content[0], : content[1]], quarters, (-2, -1))
    found[..., : part.shape[-2], : part.shape[-1]] = part
    return found


def _logits(method: Method, backbone: Backbone, tiles: Embedding) -> Tensor:
    return resize_logits(method.decode(backbone, tiles).float(), backbone.input_size)[:, 0]


def _groups(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), TILES_AT_ONCE):
        yield items[start : start + TILES_AT_ONCE]
