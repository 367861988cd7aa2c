"""Dropping a prompt file on napari loads the specialist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SUFFIX = ".ptsam.safetensors"

CLICK_METHODS = ("plm",)
"""Methods that answer clicks: a list that needs no torch."""

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

    from napari_ptsam._widgets.commands import open_clicks, open_dock
    from napari_ptsam.errors import InputError

    viewer = napari.current_viewer()
    if viewer is None:
        raise InputError(
            f"{path} is a specialist, not an image. In a script, load it with "
            "napari_ptsam.Specialist.load."
        )
    paths = [Path(p) for p in _paths(path)]
    clicked = [p for p in paths if _takes_clicks(p)]
    others = [p for p in paths if p not in clicked]
    if clicked:
        clicks = open_clicks(viewer)
        for one in clicked:
            clicks.sections["click"].models.load(one)
    if others:
        dock = open_dock(viewer, "specialists")
        dock.sections["specialists"].load(others)
    return list(NO_LAYERS)


def _takes_clicks(path: Path) -> bool:
    """Whether a file holds a click specialist; one that cannot be read is explained later."""
    from napari_ptsam.errors import PtsamError
    from napari_ptsam.promptfile import read_prompt_file

    try:
        return read_prompt_file(path).metadata.method in CLICK_METHODS
    except PtsamError:
        return False


def _paths(path: PathOrPaths) -> list[str]:
    return [str(path)] if isinstance(path, str | Path) else [str(p) for p in path]
