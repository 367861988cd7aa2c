"""Where `segment` writes what it makes of each input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_ptsam.cli.usage import UsageError
from napari_ptsam.planes import is_folder, list_images, open_planes
from napari_ptsam.planes.layout import NOTHING_TAUGHT

# Names that mean a file and no folder.
_FILE_SUFFIXES = frozenset({".tif", ".tiff", ".zarr", ".npy", ".png", ".jpg", ".jpeg"})


def plan_targets(
    inputs: Sequence[Path],
    output: Path,
    *,
    axes: str | None = None,
    channel: int | str | None = None,
    taught: Mapping[str, Any] = NOTHING_TAUGHT,
) -> list[tuple[Path, Path]]:
    """Pair each input with the file or folder to write.

    What is written for one input goes where the user says. Of several inputs
    each gets a file or folder of its own name inside `output`. Files are
    opened (not read) and folders listed, so that a wrong input is found before
    hours of work on the others.

    Raises
    ------
    UsageError
        Several inputs but a file as output, or two inputs that would be
        written to one place.
    """
    folders = {i: is_folder(i) for i in inputs}
    for path, folder in folders.items():
        if folder:
            list_images(path)
        else:
            open_planes(path, axes=axes, channel=channel, taught=taught)
    if len(inputs) == 1:
        return [(inputs[0], output)]
    if output.suffix.lower() in _FILE_SUFFIXES:
        raise UsageError(
            f"{len(inputs)} inputs cannot be written to the one file {output}; "
            "give a folder: -o FOLDER"
        )
    targets = [(i, output / (_name(i) if folders[i] else f"{_stem(i)}.tif")) for i in inputs]
    _refuse_clashes(targets)
    return targets


def _name(path: Path) -> str:
    """The last part of the path, also of `.` and `folder/..`."""
    return path.resolve().name


def _stem(path: Path) -> str:
    """The name without suffixes; `cells.ome.tif` is `cells`."""
    return Path(_name(path)).stem.removesuffix(".ome")


def _refuse_clashes(targets: Sequence[tuple[Path, Path]]) -> None:
    sources = {source.resolve() for source, _ in targets}
    taken: dict[Path, Path] = {}
    for source, target in targets:
        if target.resolve() in sources:
            raise UsageError(f"{target} would overwrite an input; choose another -o")
        if target in taken:
            raise UsageError(
                f"{taken[target]} and {source} would both be written to {target}; "
                "segment them one at a time, each with its own -o"
            )
        taken[target] = source
