"""Zarr arrays and OME-Zarr images (versions 0.1 to 0.5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ptsam.errors import InputError
from napari_ptsam.planes.part import Scale, usable_scale
from napari_ptsam.planes.stored import Stored, stored_array

if TYPE_CHECKING:
    import zarr

_MARKERS = (".zarray", ".zgroup", "zarr.json")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / marker).is_file() for marker in _MARKERS)


def open_zarr(path: Path) -> Stored:
    """Open a Zarr array, or the highest resolution of an OME-Zarr image."""
    import zarr

    return stored_zarr(str(path), zarr.open(str(path), mode="r"))


def stored_zarr(name: str, node: zarr.Array[Any] | zarr.Group) -> Stored:
    """Wrap a Zarr array or group.

    Raises
    ------
    InputError
        If it is a group and unclear which of its arrays is the image.
    """
    import zarr

    if isinstance(node, zarr.Array):
        return stored_array(name, node)
    attributes: dict[str, Any] = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    if "multiscales" in ome:
        return _stored_multiscales(name, node, ome)
    if "plate" in ome or "well" in ome:
        raise InputError(
            f"{name} is a whole plate of images. Give one field of it, for instance {name}/A/1/0."
        )
    if len(children := dict(node.members())) == 1:
        (child,) = children
        return stored_zarr(f"{name}/{child}", children[child])
    # bioformats2raw keeps metadata in a group OME beside its numbered images.
    numbered = [child for child in children if child.isdigit()]
    if "bioformats2raw.layout" in ome and len(numbered) == 1:
        return stored_zarr(f"{name}/{numbered[0]}", children[numbered[0]])
    raise InputError(
        f"{name} is a Zarr group of {len(children)} members ({', '.join(sorted(children)[:8])}) "
        f"and not an OME-Zarr image. Give one of them, for instance "
        f"{name}/{min(children, default='NAME')}."
    )


def _stored_multiscales(name: str, node: zarr.Group, ome: Mapping[str, Any]) -> Stored:
    import zarr

    image = ome["multiscales"][0]
    dataset = image["datasets"][0]
    array = node[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise InputError(f"{name} names {dataset['path']!r} as its image, which is no array.")
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in _axes_of(image)]
    letters = "".join(str(axis["name"])[:1].upper() for axis in axes)
    valid = len(letters) == array.ndim and len(set(letters)) == len(letters)
    stored = stored_array(name, array)
    return Stored(
        name,
        stored.shape,
        stored.dtype,
        stored.read,
        axes=letters if valid and {"Y", "X"} <= set(letters) else None,
        channel_names=tuple(
            str(channel.get("label", "")) for channel in ome.get("omero", {}).get("channels", [])
        ),
        scale=_scale_of(axes, dataset),
    )


def _axes_of(image: Mapping[str, Any]) -> list[Any]:
    # Versions 0.1 and 0.2 always were five-dimensional and did not name their axes.
    return list(image.get("axes", "tczyx"))


def _scale_of(axes: list[Mapping[str, Any]], dataset: Mapping[str, Any]) -> Scale:
    for transformation in dataset.get("coordinateTransformations", []):
        if transformation.get("type") == "scale":
            stated = {
                str(axis["name"])[:1].upper(): (size, UNITS.get(axis["unit"], axis["unit"]))
                for axis, size in zip(axes, transformation["scale"], strict=False)
                if axis.get("type") in ("space", "time") and axis.get("unit")
            }
            return usable_scale(stated)
    return {}


UNITS = {
    "micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "angstrom": "Å",
    "second": "s", "millisecond": "ms", "minute": "min", "hour": "h",
}  # fmt: skip
"""OME-Zarr spells units out, OME-TIFF abbreviates them."""
