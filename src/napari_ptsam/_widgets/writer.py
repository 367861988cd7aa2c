"""Save labels as OME-TIFF or OME-Zarr, with the scale and the axes of their layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray

from napari_ptsam._widgets.layers import planes_of
from napari_ptsam.errors import InputError
from napari_ptsam.planes import Part, Planes
from napari_ptsam.sinks import Sink, TiffSink, ZarrSink
from napari_ptsam.writing import in_words

_TIFF = (".tif", ".tiff")
_SMALLEST = (np.uint8, np.uint16, np.int32, np.uint32)
"""Types that both formats and Fiji know."""


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a Labels layer plane by plane; a stack that is lazy stays so.

    Parameters
    ----------
    path
        Ends in ``.ome.tif``, ``.tif`` or ``.zarr``. The file gets its name when it is complete.
    data, meta
        Of the layer, as napari gives them.

    Returns
    -------
    list of str
        What was written.

    Raises
    ------
    InputError
        If the file cannot be written, or a label is too large for it.
    """
    layer = Layer.create(data, {**meta, "visible": False}, "labels")
    planes, target = planes_of(layer), Path(path)
    dtype = _type_for(planes)
    (part,) = planes.parts
    part = Part(layer.name, part.count, part.axes, part.shape, part.scale)
    with in_words(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, part, planes, dtype)
    return [path]


def _write(target: Path, part: Part, planes: Planes, dtype: np.dtype[Any]) -> None:
    sink: Sink | None = None
    try:
        for index in range(len(planes)):
            plane: NDArray[Any] = np.ascontiguousarray(planes.read(index), dtype)
            if sink is None:
                opener = TiffSink if target.suffix.lower() in _TIFF else ZarrSink
                sink = opener(target, part, plane)
            sink.write(plane)
        if sink is not None:
            sink.finish()
            sink = None
    finally:
        if sink is not None:
            sink.discard()


def _type_for(planes: Planes) -> np.dtype[Any]:
    """The smallest type that holds all labels. Reads each plane once more, and keeps none."""
    extremes = [(int(p.min()), int(p.max())) for p in map(planes.read, range(len(planes)))]
    low, high = min(e[0] for e in extremes), max(e[1] for e in extremes)
    for candidate in _SMALLEST:
        limits = np.iinfo(candidate)
        if limits.min <= low and high <= limits.max:
            return np.dtype(candidate)
    raise InputError(
        f"The labels of {planes.name} go from {low} to {high}, more than a label image can hold. "
        "Number them anew first."
    )
