"""Dropping a prompt file on napari loads the specialist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SUFFIX = ".ptsam.safetensors"

NO_LAYERS: list[tuple[None]] = [(None,)]
"""What napari takes as "this was read, and there are no layers in it"."""

PathOrPaths = str | Sequence[str]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[tuple[Any, ...]]] | None:
    """Napari's way to ask whether files are ours.

    Parameters
    ----------
    path
        One or several files.

    Returns
    -------
    The function that reads them, None if one of them is not a prompt file.
    """
    return read if all(p.endswith(SUFFIX) for p in _paths(path)) else None


def read(path: PathOrPaths) -> list[tuple[Any, ...]]:
    """Load specialists into the dock of the current viewer; there are no layers to show.

    Raises
    ------
    InputError
        If napari runs without a window.
    """
    import napari

    from napari_ptsam._widgets.commands import open_dock
    from napari_ptsam.errors import InputError

    viewer = napari.current_viewer()
    if viewer is None:
        raise InputError(
            f"{path} is a specialist, not an image. In a script, load it with "
            "napari_ptsam.Specialist.load."
        )
    dock = open_dock(viewer, "specialists")
    dock.sections["specialists"].load([Path(p) for p in _paths(path)])
    return list(NO_LAYERS)


def _paths(path: PathOrPaths) -> list[str]:
    return [str(path)] if isinstance(path, str | Path) else [str(p) for p in path]
