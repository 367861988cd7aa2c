"""Which planes of which layer are annotated, and what a training is given of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ptsam._widgets.layers import plane_count, planes_of, slot

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_ptsam._widgets.jobs import Jobs


class Annotations:
    """Which planes of which layer are annotated."""

    changed = Signal()

    def __init__(self, viewer: Viewer, jobs: Jobs) -> None:
        self.image: Image | None = None
        self.labels: Labels | None = None
        self.channel: int | str | None = None
        self.label: int | None = None

    def annotated(self) -> list[int]:
        """Planes that are painted or declared empty, ascending."""
        if self.labels is None:
            return []
        return [
            i
            for i in range(plane_count(self.labels))
            if self.labels.data[slot(self.labels, i)].any()
        ]

    def examples_input(self) -> dict[str, Any]:
        """Keyword arguments for `Specialist.train_steps`."""
        assert self.image is not None and self.labels is not None
        return {
            "images": planes_of(self.image, self.channel),
            "masks": planes_of(self.labels),
            "planes": self.annotated(),
            "label": self.label,
            "ignore_label": None,
        }

    def close(self) -> None:
        """Let go of the layers."""
        self.image = self.labels = None
