"""napari's layers as the engine's planes, and back.

A plane is what lies at one position of all leading axes but the channels; planes are
numbered in the order in which they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.transforms import Affine
from numpy.typing import DTypeLike, NDArray

from napari_ptsam.planes import Planes, open_planes

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

Slot = tuple[int | slice, ...]

_LETTERS = {
    "T": ("t", "time", "frame", "frames"),
    "Z": ("z", "depth", "plane", "planes", "slice", "section"),
    "C": ("c", "ch", "channel", "channels"),
}
RESULT_MARK = "napari-ptsam"
"""Key in the metadata of layers that the plugin computed: they are no annotations."""

_SPARE = "ZTPABDEFGHIJKLMNOQRUVW"
_IN_MEMORY = 2**31
"""Bytes from which on an empty array is made in chunks, of which only painted ones exist."""


def axes_of(layer: Layer) -> str:
    """Name the data axes of a layer by one letter each, the colour axis of RGB left out.

    The layer's axis labels and units are taken where they say it; others are depth, then time.
    """
    labels = [str(label).strip().casefold() for label in layer.axis_labels[:-2]]
    found = [next((k for k, words in _LETTERS.items() if label in words), "") for label in labels]
    for i, unit in enumerate(layer.units[:-2]):
        if dict(unit.dimensionality) == {"[time]": 1}:
            found[i] = found[i] or "T"
    names = [name if name and found.index(name) == i else "" for i, name in enumerate(found)]
    spare = iter(letter for letter in _SPARE if letter not in names)
    for i in reversed(range(len(names))):
        names[i] = names[i] or next(spare)
    return "".join(names) + "YX"


def is_given(layer: Layer, kind: type[Layer]) -> bool:
    """Whether a layer is of a kind, and not one that the plugin computed."""
    return isinstance(layer, kind) and RESULT_MARK not in layer.metadata


def channel_axis(layer: Layer) -> int | None:
    """Which data axis holds channels, None if the axis labels name none."""
    position = axes_of(layer).find("C")
    return None if position < 0 else position


def set_channel_axis(layer: Layer, axis: int | None) -> None:
    """Say in the layer's axis labels which axis holds channels."""
    labels = [
        str(i - layer.ndim) if i == channel_axis(layer) else str(label)
        for i, label in enumerate(layer.axis_labels)
    ]
    if axis is not None:
        labels[axis] = "channel"
    layer.axis_labels = labels


def full_data(layer: Layer) -> Any:
    """The array of a layer at its full resolution, as it is stored."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def data_shape(layer: Layer) -> tuple[int, ...]:
    """Shape at full resolution, without the colour axis of RGB."""
    return tuple(int(size) for size in full_data(layer).shape[: layer.ndim])


def leading_axes(layer: Layer) -> list[int]:
    """Data axes along which planes are counted."""
    skipped = channel_axis(layer)
    return [axis for axis in range(layer.ndim - 2) if axis != skipped]


def plane_count(layer: Layer) -> int:
    """How many planes a layer has."""
    shape = data_shape(layer)
    return math.prod(shape[axis] for axis in leading_axes(layer))


def same_planes(labels: Labels, image: Image) -> bool:
    """Whether labels have as many planes as an image, of the same size."""
    return plane_count(labels) == plane_count(image) and (
        data_shape(labels)[-2:] == data_shape(image)[-2:]
    )


def slot(layer: Layer, index: int, channel: int = 0) -> Slot:
    """Where a plane lies in a layer's data: one integer or full slice per axis.

    Parameters
    ----------
    layer
        Image or Labels.
    index
        Number of the plane.
    channel
        Position on the channel axis, if there is one.
    """
    return slots(layer, (index,), channel)[index]


def slots(layer: Layer, indices: Iterable[int], channel: int = 0) -> dict[int, Slot]:
    """Where planes lie in a layer's data, see `slot`; its axes are read once for all of them."""
    shape, axes, axis_of_channels = data_shape(layer), leading_axes(layer), channel_axis(layer)
    sizes = [shape[axis] for axis in axes]
    found = {}
    for index in indices:
        place: list[int | slice] = [slice(None)] * layer.ndim
        if axis_of_channels is not None:
            place[axis_of_channels] = channel
        numbers = np.unravel_index(index, sizes) if axes else ()
        for axis, number in zip(axes, numbers, strict=True):
            place[axis] = int(number)
        found[index] = tuple(place)
    return found


def plane_name(layer: Layer, index: int) -> str:
    """What to call a plane, by the numbers that napari's sliders show."""
    return plane_names(layer, (index,))[index]


def plane_names(layer: Layer, indices: Iterable[int]) -> dict[int, str]:
    """What to call planes, see `plane_name`; the layer's axes are read once for all of them."""
    axes = leading_axes(layer)
    if len(axes) < 2:
        return {index: f"Plane {index}" for index in indices}
    letters = axes_of(layer)
    return {
        index: ", ".join(f"{letters[axis]} {place[axis]}" for axis in axes)
        for index, place in slots(layer, indices).items()
    }


def planes_of(layer: Image | Labels, channel: int | str | None = None) -> Planes:
    """Give the planes of a layer to the engine; nothing is read or copied yet.

    The planes belong to the array that the layer has now: it does not matter to them if the
    layer is removed, renamed or given other data afterwards.

    Parameters
    ----------
    layer
        2D or with leading axes; RGB; of several resolutions, of which the finest is read;
        NumPy, Dask or Zarr.
    channel
        The one to use of several, by number, or by name of a colour.

    Raises
    ------
    InputError
        If the layer holds no image, or a channel has to be chosen.
    """
    axes = axes_of(layer) + ("S" if getattr(layer, "rgb", False) else "")
    planes = open_planes(full_data(layer), axes=axes, channel=channel)
    planes.name = f"the layer '{layer.name}'"
    (part,) = planes.parts
    planes.parts = [replace(part, scale=_physical_size(layer))]
    return planes


def _physical_size(layer: Layer) -> dict[str, tuple[float, str]]:
    sizes = {}
    for axis, size, unit in zip(axes_of(layer), layer.scale, layer.units, strict=True):
        short = f"{unit:~}"
        if short not in ("", "pixel", "px"):
            sizes[axis] = (abs(float(size)), short)
    return sizes


def plane_index(viewer: Viewer, layer: Layer) -> int | None:
    """Number of the layer's plane that is in view.

    None where no single one is: in 3D, with other axes on the screen, or where the sliders
    are beyond the layer.
    """
    count = viewer.dims.ndim
    if viewer.dims.ndisplay != 2 or set(viewer.dims.displayed) != {count - 2, count - 1}:
        return None
    shape, axes = data_shape(layer), leading_axes(layer)
    place = layer.world_to_data(viewer.dims.point)
    numbers = [int(np.round(place[axis])) for axis in axes]
    sizes = [shape[axis] for axis in axes]
    if any(not 0 <= number < size for number, size in zip(numbers, sizes, strict=True)):
        return None
    return int(np.ravel_multi_index(numbers, sizes)) if axes else 0


def go_to_plane(viewer: Viewer, layer: Layer, index: int) -> None:
    """Move the sliders to a plane of a layer."""
    viewer.dims.ndisplay = 2
    place = np.array(layer.world_to_data(viewer.dims.point), float)
    for axis, number in enumerate(slot(layer, index)[:-2]):
        if axis != channel_axis(layer):
            place[axis] = number
    world = layer.data_to_world(place)
    offset = viewer.dims.ndim - layer.ndim
    axes = leading_axes(layer)
    if axes:
        viewer.dims.set_point([offset + axis for axis in axes], [world[axis] for axis in axes])


def result_shape(layer: Layer, channels: int | None = None) -> tuple[int, ...]:
    """Shape of a result for all planes of a layer.

    Parameters
    ----------
    channels
        The channel axis; by default what the axis labels say. If it is the first, it is left
        out; else it has length 1, so that the axes around it stay where they are.
    """
    shape = data_shape(layer)
    axis = channel_axis(layer) if channels is None else channels
    if axis is None:
        return shape
    return shape[1:] if axis == 0 else (*shape[:axis], 1, *shape[axis + 1 :])


def blank(shape: Sequence[int], dtype: DTypeLike) -> Any:
    """An array of zeros that can be written plane by plane.

    Large ones are Zarr arrays in memory, of which only what was written takes any.
    """
    dtype = np.dtype(dtype)
    if math.prod(shape) * dtype.itemsize <= _IN_MEMORY:
        return np.zeros(shape, dtype)
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *shape[-2:])
    return zarr.create_array(
        zarr.storage.MemoryStore(), shape=tuple(shape), chunks=chunks, dtype=dtype, fill_value=0
    )


def labels_over(
    layer: Layer,
    name: str,
    data: Any = None,
    *,
    channel_axis: int | None = None,
    dtype: DTypeLike = np.uint16,
) -> Labels:
    """A Labels layer that lies on an image layer; it is in no viewer yet.

    Parameters
    ----------
    layer
        The image. Scale, translation, units and axis labels are taken from it.
    name
        Of the new layer.
    data
        Of the shape that `result_shape` gives, or without the channel axis; the layer is marked
        as a result then. By default empty, to be painted on.
    channel_axis
        The image's channel axis; by default what its axis labels say.
    dtype
        Of what is made to be painted on.
    """
    metadata = {} if data is None else {RESULT_MARK: True}
    if data is None:
        data = blank(result_shape(layer, channel_axis), dtype)
    data = _fitted(data, layer, channel_axis)
    placement = _placement(layer, data.ndim, channel_axis)
    return Labels(data, name=name, metadata=metadata, **placement)


def labels_like(
    viewer: Viewer, layer: Layer, name: str, data: Any = None, **options: Any
) -> Labels:
    """Add what `labels_over` makes to a viewer, and select it."""
    added = labels_over(layer, name, data, **options)
    viewer.add_layer(added)
    return added


def image_over(layer: Layer, name: str, data: Any, **options: Any) -> Image:
    """An Image layer of one channel that lies on an image layer, see `labels_over`.

    It is marked as a result.

    Parameters
    ----------
    options
        Of the new layer, as napari names them.
    """
    data = _fitted(data, layer, None)
    options |= _placement(layer, data.ndim, None)
    metadata = {RESULT_MARK: True} | options.pop("metadata", {})
    return Image(data, name=name, rgb=False, metadata=metadata, **options)


def add_unseen(viewer: Viewer, layer: Layer) -> None:
    """Add a layer, invisible, and without selecting it: each of the three is work for napari."""
    layer.visible = False
    selection = viewer.layers.selection
    selected = set(selection)
    with selection.events.blocker_all():
        viewer.add_layer(layer)
        viewer.layers.selection = selected


def _fitted(data: Any, layer: Layer, channels: int | None) -> Any:
    """Give an array without the channel axis one of length 1 in its place."""
    shape = result_shape(layer, channels)
    if tuple(data.shape) == shape or data.ndim == len(shape):
        return data
    axis = channel_axis(layer) if channels is None else channels
    return data[(slice(None),) * (axis or 0) + (None,)]


def _placement(layer: Layer, ndim: int, channels: int | None) -> dict[str, Any]:
    """Where a layer of so many axes lies, as napari names it, so that it covers the image."""
    axis = channel_axis(layer) if channels is None else channels
    own = Affine(rotate=layer.rotate, scale=layer.scale, shear=layer.shear)
    linear, translate = np.array(own.linear_matrix), np.array(layer.translate, float)
    labels = list(layer.axis_labels)
    if axis:
        # One element as long as all channels: it is seen and painted from each of them.
        count = data_shape(layer)[axis]
        translate += linear[:, axis] * (count - 1) / 2
        linear[:, axis] *= count
        labels[axis] = "channel"
    kept = slice(layer.ndim - ndim, None)
    return {
        "affine": layer.affine.set_slice(range(layer.ndim)[kept]),
        "axis_labels": labels[kept],
        "translate": translate[kept],
        "units": list(layer.units)[kept],
        **_factors(linear[kept, kept]),
    }


def _factors(linear: NDArray[np.float64]) -> dict[str, Any]:
    """Scale, rotation and shear that make up a matrix, as napari names them."""
    scale = np.diag(linear)
    if np.array_equal(linear, np.diag(scale)):
        return {"scale": scale}
    own = Affine(linear_matrix=linear)
    return {"rotate": own.rotate, "scale": own.scale, "shear": own.shear}
