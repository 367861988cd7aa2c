"""What a specialist says of one layer, and how its planes are segmented."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ptsam._widgets.geometry import placement_of, volumes_of
from napari_ptsam._widgets.kept import KeptProbabilities
from napari_ptsam._widgets.layers import blank, labels_over, result_shape, slot
from napari_ptsam._widgets.results import Geometry, Look, Result

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_ptsam._widgets.state import SpecialistEntry
    from napari_ptsam.planes import Planes


@dataclass(eq=False)
class LayerResult:
    """What a specialist says of one image layer, and the layers that show it.

    Attributes
    ----------
    source
        The image layer.
    planes
        What was read of it; stays readable if the layer goes.
    entry, channel
        The specialist, and the channel of the image that it saw.
    rotations
        In how many positions the specialist looks at each plane.
    labels, probability
        Layers of the result; `probability` only where it was asked for.
    result
        The arrays behind them.
    wanted
        Planes that the last run was to segment.
    point
        Where the sliders were when `labels` were last drawn.
    """

    source: Image
    planes: Planes
    entry: SpecialistEntry
    channel: int | str | None
    rotations: int
    labels: Labels
    result: Result
    probability: Image | None = None
    wanted: list[int] = field(default_factory=list)
    point: tuple[float, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether layer and result still have the shapes that they had."""
        shape = result_shape(self.source)
        return self.labels.data is self.result.data and self.result.data.shape == shape

    def missing(self) -> list[int]:
        """Planes that the last run did not come to."""
        return [index for index in self.wanted if index not in self.result.kept]


def empty_result(
    source: Image,
    planes: Planes,
    entry: SpecialistEntry,
    channel: int | str | None,
    *,
    rotations: int,
    look: Look,
) -> LayerResult:
    """A result of which nothing is segmented yet; its layer is in no viewer."""
    name = f"{entry.name}: {source.name}"
    labels = labels_over(source, name, blank(result_shape(source), np.int32))
    kept = KeptProbabilities(len(planes), entry.specialist.threshold)
    geometry = Geometry(
        [slot(labels, index) for index in range(len(planes))],
        volumes_of(source),
        placement_of(source).spacing,
    )
    # The layer may have put the array into another shape.
    result = Result(kept, labels.data, geometry, look)
    return LayerResult(source, planes, entry, channel, rotations, labels, result)


@dataclass(frozen=True)
class PlaneShown:
    """A plane was segmented and written into its layer."""

    target: LayerResult
    index: int
    done: int
    total: int


def segmented(
    specialist: Any, work: Sequence[tuple[LayerResult, int]]
) -> Generator[PlaneShown, None, None]:
    """Segment planes as `Specialist.segment` does, and write them into their layers' arrays."""
    looking = {target: specialist.applied(rotations=target.rotations) for target, _ in work}
    for number, (target, index) in enumerate(work, start=1):
        probability = looking[target].predict(target.planes.read(index)).probability
        if target.probability is not None:
            target.probability.data[target.result.geometry.slots[index]] = probability
        target.result.put(index, probability)
        yield PlaneShown(target, index, number, len(work))


def from_plane(indices: Sequence[int], first: int | None) -> list[int]:
    """The planes in order, but beginning with the one in view."""
    start = next((i for i, index in enumerate(indices) if index == first), 0)
    return [*indices[start:], *indices[:start]]
