"""Where `segment` writes what it makes of each input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_ptsam.cli.usage import UsageError
from napari_ptsam.planes import open_planes

# Names that mean a file; whether masks can be written to it, the writer says.
_FILE_SUFFIXES = frozenset({".tif", ".tiff", ".zarr", ".npy", ".png", ".jpg", ".jpeg"})


def plan_targets(
    inputs: Sequence[Path],
    output: Path,
    *,
    axes: str | None = None,
    channel: int | str | None = None,
) -> list[tuple[Path, Path]]:
    """Pair each input with the file or folder to write.

    One folder is written to the folder `output`; one file to the file
    `output`, or into it when it is a folder. Of several inputs each gets a
    file or folder of its own name inside `output`. All inputs are opened (not
    read), so that a wrong one is found before hours of work on the others.

    Raises
    ------
    UsageError
        Several inputs but a file as output, two inputs that would be written
        to one place, or an output that would overwrite an input.
    """
    folders = {i: open_planes(i, axes=axes, channel=channel).kind == "folder" for i in inputs}
    if len(inputs) == 1 and (folders[inputs[0]] or _is_file_name(output)):
        targets = [(inputs[0], output)]
    elif _is_file_name(output):
        raise UsageError(
            f"{len(inputs)} inputs cannot be written to the one file {output}; "
            "give a folder: -o FOLDER"
        )
    else:
        targets = [(i, output / (_name(i) if folders[i] else f"{_stem(i)}.tif")) for i in inputs]
    _refuse_clashes(targets)
    return targets


def _is_file_name(output: Path) -> bool:
    return output.suffix.lower() in _FILE_SUFFIXES


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
        place = target.resolve()
        if place in sources:
            raise UsageError(f"{target} would overwrite an input; choose another -o")
        if place in taken:
            raise UsageError(
                f"{taken[place]} and {source} would both be written to {target}; "
                "segment them one at a time, each with its own -o"
            )
        taken[place] = source
