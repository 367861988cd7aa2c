"""Files of microscopes (CZI, LIF, ND2), read by bioio where that is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from napari_ptsam.errors import InputError
from napari_ptsam.planes.part import Scale, usable_scale
from napari_ptsam.planes.stored import Stored, stored_array

MICROSCOPES = (".czi", ".lif", ".nd2")


def open_microscope(path: Path, valid: str) -> Stored:
    """Open the first scene of a file; planes are read when they are asked for.

    Parameters
    ----------
    path
        The file.
    valid
        What can be read without bioio, for the message.

    Raises
    ------
    InputError
        If bioio, or its reader of this format, is not installed.
    """
    suffix = path.suffix.lower()
    reader = f"bioio_{suffix[1:]}"
    try:
        # Named, so that bioio does not try every reader that is installed.
        image = import_module("bioio").BioImage(path, reader=import_module(reader).Reader)
    except ImportError as error:
        raise InputError(
            f"{path} is of a kind that is read with bioio, which is not installed here or lacks "
            f"something ({error}): pip install bioio {reader.replace('_', '-')}. Valid are {valid} "
            "without it, so you can also export it as OME-TIFF (in Fiji: Plugins > Bio-Formats > "
            "Bio-Formats Exporter)."
        ) from error
    data = image.dask_data
    axes = str(image.dims.order)
    stored = stored_array(str(path), data)
    names = tuple(str(name) for name in image.channel_names or ())
    return Stored(str(path), stored.shape, stored.dtype, stored.read, axes, names, _scale_of(image))


def can_read_microscopes() -> bool:
    """Whether bioio is installed."""
    return find_spec("bioio") is not None


def _scale_of(image: Any) -> Scale:
    sizes = image.physical_pixel_sizes
    return usable_scale({axis: (getattr(sizes, axis, None), "µm") for axis in "ZYX"})
