"""Lazy input: folders, files and arrays as sequences of 2D planes."""

from __future__ import annotations

from napari_ptsam.planes.base import Planes, as_stack, parse_plane_ranges
from napari_ptsam.planes.opening import is_folder, list_images, open_planes
from napari_ptsam.planes.part import Part

__all__ = [
    "Part",
    "Planes",
    "as_stack",
    "is_folder",
    "list_images",
    "open_planes",
    "parse_plane_ranges",
]
