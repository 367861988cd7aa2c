"""Which planes of which layer are annotated, and what a training is given of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import DTypeLike
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_ptsam._widgets.layers import (
    channel_axis,
    data_shape,
    labels_like,
    plane_count,
    plane_index,
    planes_of,
    same_planes,
)
from napari_ptsam._widgets.masks import IGNORED, AnnotatedMasks, Box, boxes_of, rectangle
from napari_ptsam._widgets.tracking import PaintedPlanes
from napari_ptsam.errors import InputError

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Shapes
    from napari.viewer import Viewer

    from napari_ptsam._widgets.jobs import Jobs


SOON_MS = 100
"""Until strokes are told of: those in between together, as all that is shown follows each time."""


class Annotations:
    """Which planes of which layer are annotated.

    Attributes
    ----------
    changing
        Emitted before another image or labels layer is taken.
    changed
        Emitted when anything of it changed; after `SOON_MS` where it was paint.
    edited
        Emitted when the user changed something, with the planes; with none if it may be any.
    """

    changing = Signal()
    changed = Signal()
    edited = Signal(list)

    def __init__(self, viewer: Viewer, jobs: Jobs) -> None:
        self._viewer = viewer
        self._image: Image | None = None
        self._areas: Shapes | None = None
        self._channel: int | str | None = None
        self._label: int | None = None
        # Of each layer, and only as long as it has the shape that they were declared for.
        self._declared_of: WeakKeyDictionary[Labels, tuple[tuple[int, ...], set[int]]] = (
            WeakKeyDictionary()
        )
        self._closed = False
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(SOON_MS)
        self._soon.timeout.connect(self._tell)
        self._painted = PaintedPlanes(viewer, jobs)
        self._painted.changed.connect(self._on_found)
        self._painted.edited.connect(self.edited)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def image(self) -> Image | None:
        """The image layer that is annotated."""
        return self._image

    @image.setter
    def image(self, layer: Image | None) -> None:
        if layer is not self._image:
            self.changing.emit()
            self._image = layer
            self._channel = None
            self._tell()

    @property
    def labels(self) -> Labels | None:
        """The layer that is painted on."""
        return self._painted.layer

    @labels.setter
    def labels(self, layer: Labels | None) -> None:
        if layer is not self.labels:
            self.changing.emit()
            self._painted.watch(layer)
            self._tell()

    @property
    def areas(self) -> Shapes | None:
        """Rectangles that say which part of a plane was annotated, if there are any."""
        return self._areas

    @areas.setter
    def areas(self, layer: Shapes | None) -> None:
        if self._areas is not None:
            self._areas.events.data.disconnect(self._on_areas)
        self._areas = layer
        if layer is not None:
            layer.events.data.connect(self._on_areas)
        self._tell()

    @property
    def channel(self) -> int | str | None:
        """The channel to use of several, None for all."""
        return self._channel

    @channel.setter
    def channel(self, value: int | str | None) -> None:
        self._channel = value
        self._tell()

    @property
    def label(self) -> int | None:
        """The one label that is the object, None if every label is."""
        return self._label

    @label.setter
    def label(self, value: int | None) -> None:
        self._label = value
        self._tell()

    @property
    def searching(self) -> bool:
        """Whether planes with paint are still being looked for."""
        return self._painted.searching

    def painted(self) -> list[int]:
        """Planes with any paint, ascending."""
        return self._painted.painted

    def declared_empty(self) -> list[int]:
        """Planes that were declared to hold no object, ascending."""
        return sorted(self._declared().difference(self._painted.painted))

    def annotated(self) -> list[int]:
        """Planes that are painted or declared empty, ascending."""
        return sorted(self._declared().union(self._painted.painted))

    def declare_empty(self, index: int, empty: bool = True) -> None:
        """Say that a plane of the labels layer has no object, or take that back."""
        declared = self._declared()
        (declared.add if empty else declared.discard)(index)
        self.edited.emit([index])
        self._tell()

    def look(self, indices: Iterable[int]) -> None:
        """Look again at planes that were changed by code."""
        self._painted.look(indices)

    def boxes(self) -> dict[int, list[Box]]:
        """Parts that were annotated, by plane, where it is not all of the plane."""
        if self._areas is None or self.labels is None:
            return {}
        return boxes_of(self._areas, self.labels)

    def new_labels(self, dtype: DTypeLike = np.uint16) -> Labels:
        """Make a Labels layer that lies on the image, ready for the brush."""
        if self._image is None:
            raise InputError("There is no image to annotate. Open one first.")
        name = f"{self._image.name} annotations"
        labels = labels_like(self._viewer, self._image, name, dtype=dtype)
        self.labels = labels
        self._viewer.layers.selection.active = labels
        labels.mode = "paint"
        return labels

    def new_areas(self) -> Shapes:
        """Make the layer for rectangles, or bring it to the front, ready to draw."""
        if self.labels is None:
            raise InputError("There is no labels layer yet. Make one first.")
        areas = self._areas
        if areas is None:
            self.areas = areas = self._viewer.add_shapes(
                name="annotated parts",
                ndim=self.labels.ndim,
                edge_color="yellow",
                edge_width=max(1, max(data_shape(self.labels)[-2:]) // 250),
                face_color="transparent",
                scale=self.labels.scale,
                translate=self.labels.translate,
                units=self.labels.units,
                axis_labels=self.labels.axis_labels,
            )
        self._viewer.layers.selection.active = areas
        areas.mode = "add_rectangle"
        return areas

    def put_back(self, empty: Iterable[int], boxes: dict[int, list[Box]]) -> None:
        """Take declared planes and rectangles as they were kept."""
        self._declared().update(empty)
        if boxes and self.labels is not None:
            active = self._viewer.layers.selection.active
            areas = self.new_areas()
            there = self.boxes()
            for index, found in boxes.items():
                for box in found if index not in there else ():
                    areas.add_rectangles(rectangle(self.labels, index, box))
            areas.mode = "pan_zoom"
            self._viewer.layers.selection.active = active
        self._tell()

    def plane_in_view(self) -> int | None:
        """The plane that is in view, None if no single one is."""
        layer = self.labels or self._image
        return None if layer is None else plane_index(self._viewer, layer)

    def missing(self) -> str | None:
        """What has to be done before a training can start, None if nothing."""
        if self._image is None:
            return "Open an image and choose it above."
        if self.labels is None:
            return "Make a labels layer to paint on first."
        if not same_planes(self.labels, self._image):
            return (
                f"The labels layer '{self.labels.name}' does not have the size of the image "
                f"'{self._image.name}'. Choose another, or make a new one."
            )
        axis = channel_axis(self._image)
        if (
            axis is not None
            and self._channel is None
            and data_shape(self._image)[axis]
            not in (
                1,
                3,
            )
        ):
            return "Choose the channel that shows the object."
        if self.searching and not self.annotated():
            return "Looking for painted planes ..."
        if not self._painted.painted:
            return "Paint the object on at least one plane first."
        return None

    def examples_input(self) -> dict[str, Any]:
        """Keyword arguments for `Specialist.train_steps`.

        Returns
        -------
        dict
            ``images``, ``masks``, ``planes``, ``label``, ``ignore_label`` and ``channel``;
            layers may be removed or renamed afterwards.

        Raises
        ------
        InputError
            If there is nothing to learn from, with what to do.
        """
        missing = self.missing()
        if missing is not None or self._image is None or self.labels is None:
            raise InputError(missing or "There is no image to annotate.")
        annotated = self.annotated()
        boxes = {index: box for index, box in self.boxes().items() if index in annotated}
        return {
            "images": planes_of(self._image, self._channel),
            "masks": AnnotatedMasks(self.labels, boxes),
            "planes": annotated,
            "label": self._label,
            "ignore_label": IGNORED if boxes else None,
            "channel": self._channel,
        }

    def suggestion(self) -> int | None:
        """The plane farthest from all that are annotated, None if all are."""
        if self._image is None:
            return None
        count, done = plane_count(self._image), self.annotated()
        if not done:
            return count // 2
        distance = np.min([np.abs(np.arange(count) - index) for index in done], axis=0)
        farthest = int(np.argmax(distance))
        return farthest if distance[farthest] else None

    def close(self) -> None:
        """Let go of the layers."""
        self._closed = True
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self.areas = None
        self._painted.watch(None)
        self._image = None

    def _declared(self) -> set[int]:
        """Planes of the labels layer that were declared to hold no object, to be changed."""
        labels = self.labels
        if labels is None:
            return set()
        shape = data_shape(labels)
        found = self._declared_of.get(labels)
        if found is None or found[0] != shape:
            found = self._declared_of[labels] = shape, set()
        return found[1]

    def _on_found(self) -> None:
        # Paint takes back what was declared, for good: an undo leaves the plane open.
        self._declared().difference_update(self._painted.painted)
        if not self._closed and not self._soon.isActive():
            self._soon.start()

    def _tell(self) -> None:
        if not self._closed:
            self._soon.stop()
            self.changed.emit()

    def _on_areas(self) -> None:
        self.edited.emit(sorted(self.boxes()))
        self._tell()

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if layer is self._areas:
            self.areas = None
        if layer is self.labels:
            self.labels = None
        if layer is self._image:
            self.image = None
