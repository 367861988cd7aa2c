"""Which files may be replaced: those that this program wrote, and never an input.

What it writes says so: a TIFF file in its tag Software, a Zarr image in an attribute. Labels that
a user saves from napari do not, nor do those of other programs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tifffile

from napari_ptsam import __version__
from napari_ptsam.errors import InputError

MARK = "napari_ptsam"
"""Attribute of a Zarr image that says which job made it."""

_PROGRAM = "napari-ptsam"
_SOFTWARE = 305
"""TIFF's tag for the program that made a file."""

_NAMED = 3
"""Files that a message lists."""


def made_by(job: str = "") -> str:
    """What a TIFF file names as its maker; `job` tells one run from another."""
    return f"{_PROGRAM} {__version__}" + (f", job {job}" if job else "")


def maker_of(path: Path) -> str:
    """What a TIFF file names as its maker; empty if it names none, or is no such file."""
    try:
        with tifffile.TiffFile(path) as file:
            tag = file.pages.first.tags.get(_SOFTWARE)
            return "" if tag is None else str(tag.value)
    except Exception:  # no TIFF, damaged, or not readable
        return ""


def mark_in(path: Path) -> Any:
    """What a Zarr image says of who made it; None if it does not say, or is no such image."""
    import zarr

    try:
        return dict(zarr.open_group(str(path), mode="r").attrs).get(MARK)
    except Exception:  # an array, or damaged: in any case nothing of ours
        return None


def is_ours(image: Path) -> bool:
    """Whether a TIFF file or Zarr image says that this program wrote it."""
    if image.suffix.lower() == ".zarr":
        return mark_in(image) is not None
    return maker_of(image).startswith(f"{_PROGRAM} ")


def refuse_clashes(files: Iterable[Path], sources: Iterable[Path | None]) -> None:
    """Refuse to write where an input lies, or a folder in the place of a file.

    Parameters
    ----------
    files
        What is to be written; that which ends in ``.zarr`` is a folder.
    sources
        The files and folders that are read; None for arrays in memory.

    Raises
    ------
    InputError
        If something would be lost, or results mix with images.
    """
    inputs = {source.resolve() for source in sources if source is not None}
    around = {parent for source in inputs for parent in source.parents}
    for file in files:
        place = file.resolve()
        if place in inputs:
            raise InputError(
                f"The output {file} is an input file, which would be lost. Choose another output."
            )
        if within := inputs.intersection(place.parents):
            raise InputError(
                f"The output {file} lies within the input {min(within)}, so that results would "
                "mix with images. Choose a place outside of it."
            )
        if place in around:
            raise InputError(
                f"The output {file} contains the input, which would be lost. Choose another output."
            )
        if file.exists() and file.is_dir() != (file.suffix.lower() == ".zarr"):
            kind = "folder" if file.is_dir() else "file"
            raise InputError(f"{file} is a {kind}. Give another name for the output.")


def refuse_foreign(
    files: Mapping[Path, Path], tables: Mapping[Path, Sequence[str]] | None = None
) -> None:
    """Refuse to replace what somebody else may have made.

    Parameters
    ----------
    files
        What is to be written, each with the image whose mark counts for it: itself, or for a
        table the image that it belongs to.
    tables
        More tables, each with the headings that ours begins with.

    Raises
    ------
    InputError
        If there are such files already; it names the first of them.
    """
    foreign = [file for file, image in files.items() if _has_content(file) and not is_ours(image)]
    foreign += [
        table
        for table, headings in (tables or {}).items()
        if _has_content(table) and _headings_of(table)[: len(headings)] != list(headings)
    ]
    if not foreign:
        return
    names = ", ".join(str(file) for file in foreign[:_NAMED])
    more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
    exist, them = ("exists", "it") if len(foreign) == 1 else ("exist", "them")
    raise InputError(
        f"{names}{more} {exist} and may be somebody's work: nothing tells that {_PROGRAM} wrote "
        f"{them}. Choose another output, move {them} away, or replace {them} with --overwrite (in "
        "Python overwrite=True)."
    )


def _has_content(path: Path) -> bool:
    """Whether there is anything to lose: not in an empty file or folder."""
    if path.is_dir():
        return any(path.iterdir())
    return path.exists() and path.stat().st_size > 0


def _headings_of(table: Path) -> list[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return []
