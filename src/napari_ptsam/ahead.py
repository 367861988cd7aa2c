"""Encode planes now, so that every later training and segmentation finds them encoded."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import torch

from napari_ptsam.backbones import Backbone
from napari_ptsam.devices import computing
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import Planes
from napari_ptsam.predict import TILES_AT_ONCE, prepare_plane
from napari_ptsam.tiling import Scaling, tile_count


@dataclass(frozen=True)
class PlaneEmbedded:
    """One plane was encoded, or found encoded.

    Attributes
    ----------
    index, key
        Which plane.
    done, total
        How many of the planes are done.
    seconds
        Since the start.
    encoded, recalled
        How many tiles were encoded and how many found so far.
    """

    index: int
    key: str
    done: int
    total: int
    seconds: float
    encoded: int
    recalled: int


def disk_space(backbone: Backbone, planes: Planes, scaling: Scaling, rotations: int = 1) -> int:
    """Bytes on disk that the embeddings of planes in so many positions take at most, about.

    Compression saves a little of it, and what is kept already takes no more.
    """
    size = backbone.input_size
    shapes = Counter(planes.shape_of(index) for index in range(len(planes)))
    tiles = sum(n * tile_count(shape, scaling, size) for shape, n in shapes.items())
    return rotations * tiles * backbone.embedding_count * torch.float16.itemsize


def embed_planes(
    backbone: Backbone,
    planes: Planes,
    embeddings: Embeddings,
    normalization: Normalization,
    scaling: Scaling,
    rotations: int = 1,
) -> Generator[PlaneEmbedded, None, None]:
    """Encode planes as a prediction would, and leave the embeddings where it looks for them.

    It may be stopped after any plane, and goes on from there when it is run again. It ends
    early, with a warning, where the encoder turns out to be faster than the disk.

    Parameters
    ----------
    planes
        Read one at a time.
    embeddings
        Where to leave them; of use with a disk that writes.
    normalization, scaling
        As they will be in training and prediction: other brightness or another working scale
        gives other tiles.
    rotations
        In how many positions they will be looked at.

    Yields
    ------
    PlaneEmbedded
        After each plane.
    """
    embeddings.new_run()
    served, size = embeddings.serve(backbone), backbone.input_size
    encoded, recalled = embeddings.encoded, embeddings.recalled
    started = time.perf_counter()
    for index in range(len(planes)):
        prepared = prepare_plane(normalization.apply(planes.read(index)), scaling, size)
        for start in range(0, len(prepared.offsets), TILES_AT_ONCE):
            offsets = prepared.offsets[start : start + TILES_AT_ONCE]
            for quarters in range(rotations):
                with torch.inference_mode(), computing(backbone.device):
                    served.encode_named(
                        partial(prepared.name, offsets, quarters),
                        partial(prepared.inputs, served, offsets, quarters),
                    )
        yield PlaneEmbedded(
            index=index,
            key=planes.keys[index],
            done=index + 1,
            total=len(planes),
            seconds=time.perf_counter() - started,
            encoded=embeddings.encoded - encoded,
            recalled=embeddings.recalled - recalled,
        )
        if embeddings.disk_is_slow:
            warnings.warn(
                f"Reading embeddings from {embeddings.disk and embeddings.disk.folder} takes "
                "longer than computing them, so no more are kept. Train and segment without.",
                stacklevel=2,
            )
            return
