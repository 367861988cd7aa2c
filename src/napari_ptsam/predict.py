"""Planes to probabilities, in two parts that can be kept apart: embed, then decode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.backbones.backbone import Backbone, Embedding, resize_logits
from napari_ptsam.devices import computing
from napari_ptsam.methods.base import Method
from napari_ptsam.tiling import Scaling, blend, tile_offsets
from napari_ptsam.views import View, plain_view, prefilter, scaled_size

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
    offsets: tuple[tuple[int, int], ...]
    scaled: tuple[int, int]
    shape: tuple[int, int]


@dataclass(frozen=True)
class _Unannotated:
    """A plane without masks, as a view needs it."""

    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    valid: NDArray[np.bool_]


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
    height, width = image.shape[:2]
    scale = scaling.scale_for(image.shape, backbone.input_size)
    scaled = scaled_size(image.shape, scale)
    offsets = tile_offsets(scaled, backbone.input_size)
    blank = np.zeros((height, width), bool)
    plane = _Unannotated(prefilter(image, scale), blank, blank)
    parts = []
    with torch.inference_mode(), computing(backbone.device):
        for group in _groups(offsets):
            views = [plain_view(plane, backbone.input_size, scale, o) for o in group]
            parts.append(method.encode(backbone, view_tensors(backbone, views)))
    tiles = tuple(torch.cat(level) for level in zip(*parts, strict=True))
    return PlaneEmbedding(tiles, tuple(offsets), scaled, (height, width))


def decode_plane(
    method: Method, backbone: Backbone, embedded: PlaneEmbedding
) -> NDArray[np.float32]:
    """Probability of the object, HxW float32, from an embedded plane."""
    parts = []
    with torch.inference_mode(), computing(backbone.device):
        for group in _groups(range(len(embedded.offsets))):
            tiles = tuple(level[group[0] : group[-1] + 1].float() for level in embedded.tiles)
            logits = method.decode(backbone, tiles)
            parts.append(resize_logits(logits.float(), backbone.input_size))
        return blend(torch.cat(parts), embedded.offsets, embedded.scaled, embedded.shape)


def predict_plane(
    method: Method, backbone: Backbone, image: NDArray[np.float32], scaling: Scaling
) -> NDArray[np.float32]:
    """Probability of the object, HxW float32 (`embed_plane`, then `decode_plane`)."""
    return decode_plane(method, backbone, embed_plane(method, backbone, image, scaling))


def _groups(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), TILES_AT_ONCE):
        yield items[start : start + TILES_AT_ONCE]
