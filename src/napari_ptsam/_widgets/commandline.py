"""The command line that gives what was done here, or why there is none."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ptsam._widgets.layers import axes_of, channel_axis, data_shape
from napari_ptsam.backbones.registry import list_backbones
from napari_ptsam.errors import InputError, PtsamError
from napari_ptsam.planes import Planes, open_planes

if TYPE_CHECKING:
    from napari_ptsam._widgets.folders import FolderRun
    from napari_ptsam._widgets.layerresult import LayerResult
    from napari_ptsam._widgets.results import Look
    from napari_ptsam._widgets.state import SpecialistEntry

PROGRAM = "napari-ptsam"


@dataclass(frozen=True)
class Command:
    """A command line, and what has to be known of it."""

    line: str
    remark: str = ""


def command_of_result(target: LayerResult, look: Look, done: Sequence[int], device: str) -> Command:
    """The command that segments the file of a layer to the same mask.

    It reads a plane of the file, to be sure that the layer shows what the command will read.

    Raises
    ------
    InputError
        If there is no such command, with the reason.
    """
    if look.linked and look.minimum_size > 1:
        raise InputError(
            "The command line leaves out small objects plane by plane. Choose 'Objects in each "
            "plane', or a smallest size of 0, then copy it again."
        )
    path = _file_of(target)
    options = _reading(target, path)
    if list(done) != list(range(len(target.planes))):
        options += ["--planes", _ranges(done)]
    if look.minimum_size > 1:
        options += ["--minimum-size", str(look.minimum_size)]
    if target.probability is not None:
        options.append("--probability")
    output = path.with_name(f"{path.stem.removesuffix('.ome')}_segmented.tif")
    remark = _NUMBERS if look.numbered else ""
    options += _rotations(target.entry, target.rotations)
    return _command(target.entry, path, output, look.threshold, options, device, remark)


_NUMBERS = "It writes the mask; the numbers of the objects are given in napari only."


def command_of_folder(run: FolderRun, device: str) -> Command:
    """The command that segments a folder to the same files.

    Raises
    ------
    InputError
        If the specialist was not exported.
    """
    options = [] if run.channel is None else ["--channel", str(run.channel)]
    if run.probability:
        options.append("--probability")
    if run.minimum_size > 1:
        options += ["--minimum-size", str(run.minimum_size)]
    options += _rotations(run.entry, run.rotations)
    return _command(run.entry, run.source, run.target, run.threshold, options, device)


def _rotations(entry: SpecialistEntry, rotations: int) -> list[str]:
    own = entry.specialist.rotations
    return [] if rotations == own else ["--rotations", str(rotations)]


def _command(
    entry: SpecialistEntry,
    source: Path,
    output: Path,
    threshold: float,
    options: list[str],
    device: str,
    remark: str = "",
) -> Command:
    if entry.path is None or not entry.saved:
        raise InputError(
            f"The specialist '{entry.name}' is in no file yet. Export it below, then copy the "
            "command again."
        )
    words = [PROGRAM, "segment", str(entry.path), str(source), "-o", str(output), *options]
    if threshold != entry.specialist.metadata.threshold:
        words += ["--threshold", repr(threshold)]
    words += ["--device", device]
    name = entry.specialist.metadata.backbone_name
    if name not in {spec.name for spec in list_backbones()}:
        # It was loaded from a file, whose place is not known here.
        words += ["--backbone", name]
        remark = f"Give the file of the backbone '{name}' after --backbone. {remark}".strip()
    line = subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
    return Command(line, remark)


def _file_of(target: LayerResult) -> Path:
    path = target.source.source.path
    if path is None:
        raise InputError(
            f"The layer '{target.source.name}' does not come from a file, so there is no command "
            "for it. Save the layer, open the file and segment that."
        )
    if not Path(path).exists():
        raise InputError(
            f"The file of the layer '{target.source.name}', {path}, is no longer there."
        )
    return Path(path)


def _reading(target: LayerResult, path: Path) -> list[str]:
    """Options with which the command reads what the layer shows."""
    index = target.result.done()[0]
    shown = target.planes.read(index)
    for options, planes in _ways(target, path):
        if len(planes) == len(target.planes) and _same(planes, index, shown):
            return options
    raise InputError(
        f"The layer '{target.source.name}' does not show what is in its file {path} (another "
        "channel or time point, perhaps, or it was changed), so no command gives the same mask."
    )


def _ways(target: LayerResult, path: Path) -> Iterator[tuple[list[str], Planes]]:
    """Ways to read the file, the simplest first."""
    named = axes_of(target.source) + ("S" if target.source.rgb else "")
    stored = target.entry.specialist.metadata.channels
    channels: list[int | str | None] = [None, target.channel, *range(_most_channels(target))]
    for axes in (None, named):
        for channel in dict.fromkeys(channels):
            try:
                planes = open_planes(path, axes=axes, channel=channel, taught=stored)
            except PtsamError:
                continue
            options = [] if axes is None else ["--axes", axes]
            yield options + ([] if channel is None else ["--channel", str(channel)]), planes


def _most_channels(target: LayerResult) -> int:
    axis = channel_axis(target.source)
    # A file of several channels is often opened as one layer for each.
    return 8 if axis is None else data_shape(target.source)[axis]


def _same(planes: Planes, index: int, shown: Any) -> bool:
    try:
        stored = planes.read(index)
    except PtsamError:
        return False
    return stored.shape == shown.shape and bool(np.array_equal(stored, shown))


def _ranges(indices: Sequence[int]) -> str:
    """Numbers as the command line takes them: ``0-3,7``."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)
