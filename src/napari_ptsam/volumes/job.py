"""What a job is: which specialist, which input, which settings; and the record of what is done.

A job works in a hidden folder beside its output, ``.NAME.job``, which has

- ``job.json``: the description, and how to open specialist and input again,
- ``specialist.ptsam.safetensors``: the learned prompts,
- ``done``: a line for each chunk that lies complete on the disk,
- the files to come, and scratch.

Whoever finds the folder can go on with the job, in this process or another.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from napari_ptsam import __version__
from napari_ptsam.errors import InputError
from napari_ptsam.omezarr import VERSIONS
from napari_ptsam.planes import Planes
from napari_ptsam.promptfile import PromptFile, write_prompt_file
from napari_ptsam.replacing import MARK
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes.inputs import input_identity

FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What is made of the input.

    Attributes
    ----------
    probability
        Write probabilities beside the masks.
    minimum_size
        Leave out objects of fewer pixels in a plane.
    objects
        Number the objects, linked through planes, and measure them.
    z_smooth
        SD in planes of the Gaussian that logits are smoothed with along Z; 0 for none.
    three_axes
        Segment planes along Z, Y and X, and average their logits.
    version
        Of OME-Zarr.
    block
        Side of the blocks of large planes; None to choose from their size.
    software
        What a TIFF file names as its maker; no part of what the job is.

    Raises
    ------
    InputError
        If a value cannot be used.
    """

    probability: bool = False
    minimum_size: int = 0
    objects: bool = False
    z_smooth: float = 0.0
    three_axes: bool = False
    version: str = VERSIONS[0]
    block: int | None = None
    software: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.z_smooth <= 50:
            raise InputError(f"Smoothing along Z takes 0 to 50 planes, not {self.z_smooth}.")
        if self.version not in VERSIONS:
            raise InputError(
                f"OME-Zarr {self.version!r} is not written. Valid are {' and '.join(VERSIONS)}."
            )
        if self.block is not None and (self.block < 64 or self.block & (self.block - 1)):
            raise InputError(f"A block's side is a power of two from 64 on, not {self.block}.")


@dataclass(frozen=True)
class Access:
    """How to open a job's input and specialist again, in another process.

    Attributes
    ----------
    source
        The input's path; None for an array in memory.
    axes, channel, planes
        See `open_planes` and `Planes.subset`.
    backbone, device
        See `Specialist.load`.
    taught
        See `open_planes`; set by `complete_access`.
    """

    source: str | None = None
    axes: str | None = None
    channel: int | str | None = None
    planes: tuple[int, ...] | None = None
    backbone: str | None = None
    device: str = "auto"
    taught: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job in its folder.

    Attributes
    ----------
    folder
        Where it works.
    identity
        What it is, as plain values: specialist, input, settings. Two jobs with the same
        identity give the same output.
    settings, access
        See there.
    side
        Side of the blocks that planes are worked on in; None for whole planes.
    batch
        Tiles that the backbone sees at once.
    """

    folder: Path
    identity: dict[str, Any]
    settings: Settings
    access: Access = field(default_factory=Access)
    side: int | None = None
    batch: int = 4

    @property
    def digest(self) -> str:
        """Short name of the identity."""
        return xxhash.xxh3_128_hexdigest(_canonical(self.identity).encode())

    def save(self, specialist: Specialist) -> None:
        """Write the description and the specialist; the description last, and at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save_specialist(specialist)
        content = {"format": FORMAT, **asdict(self)}
        del content["folder"]
        unfinished = self.folder / "job.tmp"
        unfinished.write_text(json.dumps(content, indent=1), encoding="utf-8")
        unfinished.replace(self.folder / "job.json")

    def _save_specialist(self, specialist: Specialist) -> None:
        # What was changed since it was loaded is part of it here.
        metadata = replace(specialist.metadata, working_scale=specialist.scaling.to_dict())
        tensors = {name: t.numpy() for name, t in specialist.method.tensors().items()}
        write_prompt_file(self.specialist_file, PromptFile(tensors, metadata))

    @property
    def specialist_file(self) -> Path:
        """The learned prompts."""
        return self.folder / "specialist.ptsam.safetensors"

    def load_specialist(self) -> Specialist:
        """The specialist, as the job was started with."""
        specialist = Specialist.load(
            self.specialist_file, backbone=self.access.backbone, device=self.access.device
        )
        if specialist.method.knows_names:
            return specialist.of(specialist.metadata.class_name)
        return specialist

    @classmethod
    def load(cls, folder: Path) -> Job | None:
        """The job of a folder, None if there is none.

        Raises
        ------
        InputError
            If it was made by another version.
        """
        try:
            content = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(f"{folder} is damaged. Remove it and start again.") from error
        if content.pop("format", None) != FORMAT:
            raise InputError(
                f"{folder} holds a job of another version of napari-ptsam. Finish it with that "
                "version, or remove the folder."
            )
        access = content.pop("access")
        chosen = access.pop("planes")
        return cls(
            folder=folder,
            settings=Settings(**content.pop("settings")),
            access=Access(**access, planes=None if chosen is None else tuple(chosen)),
            **content,
        )

    def discard(self) -> None:
        """Remove the folder with all that is in it."""
        # Without its description it is no job, should this be interrupted.
        (self.folder / "job.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def identity_of(specialist: Specialist, planes: Planes, settings: Settings) -> dict[str, Any]:
    """What makes a job this job, as plain values."""
    chosen = asdict(settings)
    del chosen["software"]
    return {
        "specialist": specialist_identity(specialist),
        "input": input_identity(planes),
        "settings": chosen,
    }


def specialist_identity(specialist: Specialist) -> dict[str, Any]:
    """What makes a specialist's results these results."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(specialist.method.tensors().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    metadata = specialist.metadata
    return {
        "prompts": digest.hexdigest(),
        "backbone": metadata.backbone_identity,
        "method": [metadata.method, metadata.method_settings, metadata.class_name],
        "normalization": metadata.normalization,
        "working scale": specialist.scaling.to_dict(),
        "threshold": metadata.threshold,
        "rotations": metadata.rotations,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In which values two identities differ, such as ``settings: z_smooth (0 there, 1 here)``."""
    found = []
    for group in ("specialist", "input", "settings"):
        there, here = one.get(group, {}), other.get(group, {})
        for name in sorted({*there, *here}):
            if _canonical(there.get(name)) != _canonical(here.get(name)):
                short = f" ({there.get(name)} there, {here.get(name)} here)"
                found.append(f"{group}: {name}" + (short if len(short) < 80 else ""))
    return found


def mark_of(job: Job) -> dict[str, Any]:
    """Attributes that tell which job made an output."""
    return {MARK: {"version": __version__, "job": job.digest, "identity": job.identity}}


def _canonical(values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


class Done:
    """The record of finished chunks, one line each.

    Parameters
    ----------
    path
        The file. A last line that was cut off when the power went counts as not written.
    """

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="ascii") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        self._done: dict[str, set[int]] = {}
        for line in whole.splitlines():
            stage, _, number = line.rpartition(" ")
            self._done.setdefault(stage, set()).add(int(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        if whole != text:
            path.write_text(whole, encoding="ascii")
        self._file = path.open("a", encoding="ascii")

    def of(self, stage: str) -> set[int]:
        """Numbers of the chunks of a stage that are done."""
        return self._done.setdefault(stage, set())

    def add(self, stage: str, number: int) -> None:
        """Record a chunk whose files are complete."""
        self._file.write(f"{stage} {number}\n")
        # Not waiting for the disk: a line that a power cut takes is a chunk computed again.
        self._file.flush()
        self.of(stage).add(number)

    def close(self) -> None:
        """Wait until the disk has the record, and let go of it."""
        os.fsync(self._file.fileno())
        self._file.close()
