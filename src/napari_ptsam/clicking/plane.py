"""A plane ready to be clicked: the views that a click may be answered from.

A click is answered from one view of the plane. Views are those that a prediction at the same
working scale takes, so that their embeddings are found wherever one was encoded before; and
where the working scale needs several, the whole plane in one, for what is larger than a tile.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from napari_ptsam.backbones import Embedding
from napari_ptsam.clicking.prompt import ClickPrompt
from napari_ptsam.devices import computing
from napari_ptsam.embeddings import Recalling
from napari_ptsam.predict import PreparedPlane, prepare_plane
from napari_ptsam.tiling import Offset, Scaling
from napari_ptsam.views import view_position

MOST_KEPT = 64
"""Views of one plane whose embeddings are kept at hand; the longest unused make room."""


@dataclass(frozen=True)
class Seen:
    """A square view of a plane.

    Attributes
    ----------
    prepared
        The plane at the view's scale.
    offset
        Its corner in the scaled plane, model pixels.
    """

    prepared: PreparedPlane
    offset: Offset

    @property
    def scale(self) -> float:
        """Model pixels per image pixel."""
        return self.prepared.scale

    def position(self, y: float, x: float) -> tuple[float, float]:
        """Row and column in the view, model pixels, of a position in the plane."""
        return (
            view_position(y, self.scale, self.offset[0]),
            view_position(x, self.scale, self.offset[1]),
        )

    def depth(self, y: float, x: float, size: int) -> float:
        """How far inside of the view a position lies, model pixels; below 0 if outside.

        The plane's own border is no border of the view: nothing is beyond it.
        """
        depths = []
        for place, offset, full in zip(
            self.position(y, x), self.offset, self.prepared.scaled, strict=True
        ):
            if offset > 0:
                depths.append(place + 0.5)
            if offset + size < full:
                depths.append(size - 0.5 - place)
        return min(depths, default=float(size))


@dataclass
class EmbeddedPlane:
    """A plane whose views are encoded, or will be when they are first clicked.

    Attributes
    ----------
    shape
        Height and width in pixels.
    size
        Side of a view, model pixels.
    views
        At the working scale; if there are several, followed by the whole plane in one.
    """

    shape: tuple[int, int]
    size: int
    views: tuple[Seen, ...]
    _kept: OrderedDict[int, Embedding] = field(default_factory=OrderedDict, repr=False)

    @classmethod
    def of(cls, image: NDArray[np.float32], scaling: Scaling, size: int) -> EmbeddedPlane:
        """Views of an HxWx3 plane, 0..255 and normalised as in training; none is encoded yet."""
        prepared = prepare_plane(image, scaling, size)
        views = [Seen(prepared, offset) for offset in prepared.offsets]
        if len(views) > 1:
            views.append(Seen(prepare_plane(image, Scaling(None), size), (0, 0)))
        height, width = image.shape[:2]
        return cls((height, width), size, tuple(views))

    def best_view(self, prompt: ClickPrompt) -> int:
        """Number of the view to answer from: all of the prompt lies in it, as deep as can be."""
        *tiles, whole = range(len(self.views))
        depths = {
            i: min(self.views[i].depth(y, x, self.size) for y, x in prompt.points)
            for i in tiles or [whole]
        }
        deepest = max(depths, key=lambda i: depths[i])
        return deepest if depths[deepest] >= 0 else whole

    def is_ready(self, prompt: ClickPrompt) -> bool:
        """Whether the prompt can be answered without the encoder."""
        return self.best_view(prompt) in self._kept

    def embedding(self, number: int, backbone: Recalling) -> Embedding:
        """Embedding of a view, 1xDxhxw for each level; encoded if it is not at hand."""
        if number not in self._kept:
            seen = self.views[number]
            name = partial(seen.prepared.name, [seen.offset])
            inputs = partial(seen.prepared.inputs, backbone, [seen.offset])
            with torch.inference_mode(), computing(backbone.device):
                levels = backbone.encode_named(name, inputs)
            self._kept[number] = tuple(level.half() for level in levels)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return tuple(level.float() for level in self._kept[number])
