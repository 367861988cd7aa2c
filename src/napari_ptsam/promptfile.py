"""The learned prompt file, `NAME.ptsam.safetensors`: tensors and their whole story.

A safetensors file whose metadata has three entries: `format`, a marker;
`format_version`; and `record`, the JSON text of `PromptMetadata`. It holds no code
and no pickle. Files come from strangers, so every size and type is checked before
it is used, and nothing but `PromptFileError` is raised for a bad one.

Version 1 stays readable for ever. Fields that this version does not know are
ignored, so a later one may add some without a new version number.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_ptsam._safetensors import (
    ContainerError,
    pack,
    parse_json,
    unpack,
    unpack_metadata,
)
from napari_ptsam.errors import PromptFileError

R = TypeVar("R")

FORMAT = "napari-ptsam prompt file"
FORMAT_VERSION = 1
SUFFIX = ".ptsam.safetensors"
ROTATIONS = (1, 2, 4)
"""In how many positions, a quarter turn apart, a specialist may look at an image."""

MAX_FILE_BYTES = 256 * 2**20
FROZEN = "frozen_"
"""Names of tensors that were not learned begin so, for instance embeddings of label names."""

_AGAIN = "Ask for the file again, or train again."


@dataclass(frozen=True)
class PromptMetadata:
    """All that is needed to use learned prompts, and to know where they came from.

    Attributes
    ----------
    backbone_name, backbone_identity, backbone_architecture
        The frozen SAM they were learned on: its name, the fingerprint of its tensors, and
        its kind.
    method, method_settings
        Adaptation method and its settings.
    normalization
        Percentiles and ranges that bring images to 0..255.
    channels
        Which channels of the image are used.
    working_scale
        Model pixels per image pixel, and how it was chosen.
    threshold
        Probability from which a pixel is object, 0..1.
    rotations
        In how many positions, a quarter turn apart, an image is looked at: 1, 2 or 4.
    class_name
        What the object is.
    training
        Data hashes, seed, steps, held-out Dice, package versions, date, and the command
        that reproduces it.

    Raises
    ------
    PromptFileError
        If a field is not of its type, or a text has line breaks or control characters.
    """

    backbone_name: str
    backbone_identity: str
    backbone_architecture: str
    method: str
    method_settings: dict[str, Any] = field(default_factory=dict)
    normalization: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, Any] = field(default_factory=dict)
    working_scale: dict[str, Any] = field(default_factory=dict)
    threshold: float = 0.5
    rotations: int = 1
    class_name: str = "object"
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _FIELDS:
            value = getattr(self, name)
            if name == "threshold":
                good, wanted = _is_share(value), "a number from 0 to 1"
            elif name == "rotations":
                good, wanted = type(value) is int and value in ROTATIONS, "1, 2 or 4"
            elif name in _TABLES:
                good, wanted = isinstance(value, dict), "a table"
            else:
                # Such text reaches terminals, where control characters are commands.
                good = isinstance(value, str) and value.isprintable()
                wanted = "a text of one line without control characters"
            if not good:
                raise PromptFileError(f"{name} is {value!r:.100}; it must be {wanted}.")


_FIELDS = tuple(f.name for f in fields(PromptMetadata))
_LATER = frozenset({"rotations"})
"""Fields that the first files of version 1 lack."""

_TABLES = frozenset({"method_settings", "normalization", "channels", "working_scale", "training"})


@dataclass(frozen=True, eq=False)
class PromptFile:
    """Learned tensors (float32 or float16) by name, and their metadata."""

    tensors: dict[str, NDArray[Any]]
    metadata: PromptMetadata

    @property
    def trainable_parameters(self) -> int:
        """How many numbers were learned; constants that go with them do not count."""
        learned = (t for name, t in self.tensors.items() if not name.startswith(FROZEN))
        return sum(int(tensor.size) for tensor in learned)

    def info_dict(self) -> dict[str, Any]:
        """Everything but the numbers, as values that JSON can hold.

        Returns
        -------
        dict
            `trainable_parameters`, `backbone`, `method`, `format_version`, `tensors` (shape
            by name), and all fields of `PromptMetadata`.
        """
        return {
            "trainable_parameters": self.trainable_parameters,
            "backbone": self.metadata.backbone_name,
            "format_version": FORMAT_VERSION,
            "tensors": {name: list(tensor.shape) for name, tensor in self.tensors.items()},
            **_plain(asdict(self.metadata)),
        }


def prompt_path(path: str | Path) -> Path:
    """The path with the suffix `.ptsam.safetensors`, completed where it lacks a part of it.

    Raises
    ------
    PromptFileError
        If the path has no file name or is a folder.
    """
    path = Path(path).expanduser()
    if not path.name or path.is_dir():
        raise PromptFileError(
            f"'{path}' is a folder; give the prompt file a name in it, such as "
            f"'{path / ('nuclei' + SUFFIX)}'."
        )
    stem = path.name
    for part in reversed(SUFFIX.removeprefix(".").split(".")):
        stem = stem.removesuffix(f".{part}")
    return path.with_name(stem + SUFFIX)


def write_prompt_file(path: str | Path, prompt_file: PromptFile) -> Path:
    """Write a prompt file; it appears complete or not at all, and replaces an older one.

    Equal content gives equal bytes. Numbers in the metadata that are infinite or NaN
    become null, which JSON lacks otherwise.

    Parameters
    ----------
    path
        Where to; completed by `prompt_path`.
    prompt_file
        What to write.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    PromptFileError
        If the content cannot be stored, or the file not be written.
    """
    path = prompt_path(path)
    try:
        _check_tensors(prompt_file.tensors)
        # Sorted names make the bytes independent of the order in which fields were filled.
        record = json.dumps(_plain(asdict(prompt_file.metadata)), sort_keys=True)
        parse_json(record)
        metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "record": record}
        content = pack(prompt_file.tensors, metadata)
        if len(content) > MAX_FILE_BYTES:
            raise ContainerError(f"it would have {len(content):,} bytes")
    except (ContainerError, TypeError) as error:
        raise PromptFileError(
            f"The learned prompts cannot be stored in {path}: {error}. A prompt file takes "
            "finite float32 or float16 tensors and metadata of plain values."
        ) from error
    _replace(path, content)
    return path


def read_prompt_file(path: str | Path) -> PromptFile:
    """Read and check a prompt file.

    Raises
    ------
    PromptFileError
        If there is no such file, or it is not a prompt file, damaged, hostile, or made by
        a newer version.
    """
    return _in_words(Path(path).expanduser(), _read)


def read_prompt_metadata(path: str | Path) -> PromptMetadata:
    """Read what is told of a prompt file, and not its numbers.

    Raises
    ------
    PromptFileError
        As `read_prompt_file`, but for what is wrong with the numbers.
    """
    return _in_words(Path(path).expanduser(), _read_metadata)


def _in_words(path: Path, read: Callable[[Path], R]) -> R:
    try:
        if path.is_file():  # a pipe or a device would be waited for
            return read(path)
    except OSError as error:
        raise PromptFileError(
            f"{path} cannot be read: {error.strerror or error}. Check that you may read it."
        ) from error
    except _NewerVersionError as error:
        raise PromptFileError(
            f"{path} was made by a newer version of napari-ptsam (its format is version {error}, "
            f"this one reads up to {FORMAT_VERSION}); update napari-ptsam."
        ) from error
    except (ContainerError, PromptFileError) as error:
        reason = str(error).removesuffix(".")
        raise PromptFileError(
            f"{path} is not a napari-ptsam prompt file that can be used: {reason}. {_AGAIN}"
        ) from error
    raise PromptFileError(f"There is no prompt file '{path}'. Give the path of a *{SUFFIX}.")


def _read(path: Path) -> PromptFile:
    size = _checked_size(path)
    with path.open("rb") as file:
        tensors, metadata = unpack(file, size)
    _check_marker(metadata)
    _check_tensors(tensors)
    return PromptFile(tensors, _metadata(metadata["record"]))


def _read_metadata(path: Path) -> PromptMetadata:
    size = _checked_size(path)
    with path.open("rb") as file:
        metadata = unpack_metadata(file, size)
    _check_marker(metadata)
    return _metadata(metadata["record"])


def _checked_size(path: Path) -> int:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ContainerError(f"it has {size:,} bytes, and a prompt file at most {MAX_FILE_BYTES:,}")
    return size


class _NewerVersionError(Exception):
    """The format version of a file from the future."""


def _check_marker(metadata: dict[str, str]) -> None:
    """Raise unless the metadata is that of a prompt file of a known version."""
    if metadata.get("format") != FORMAT:
        raise ContainerError("it is a safetensors file of another kind (weights, perhaps)")
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10 and int(version) > 0):
        raise ContainerError(f"its format version is {version!r:.40} and not a number")
    if int(version) > FORMAT_VERSION:
        raise _NewerVersionError(version)
    if "record" not in metadata:
        raise ContainerError("its record is missing")


def _metadata(record: str) -> PromptMetadata:
    values = parse_json(record)
    if not isinstance(values, dict):
        raise ContainerError("its record is not a table")
    missing = [name for name in _FIELDS if name not in values and name not in _LATER]
    if missing:
        raise ContainerError(f"its record lacks {', '.join(missing)}")
    return PromptMetadata(**{name: values[name] for name in _FIELDS if name in values})


def _check_tensors(tensors: dict[str, NDArray[Any]]) -> None:
    if not tensors:
        raise ContainerError("it holds no tensors")
    for name, tensor in tensors.items():
        if not name.isprintable():
            raise ContainerError(f"it holds a tensor of the unusable name {name!r:.60}")
        if not np.isfinite(tensor).all():
            raise ContainerError(f"tensor '{name}' holds NaN or infinite numbers")


def _plain(value: Any) -> Any:
    """The value in types of JSON: NumPy's scalars, tuples and paths have none of their own."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _replace(path: Path, content: bytes) -> None:
    """Write beside the target, make it durable, and move it into place."""
    # Not tempfile: its files are unreadable to others, and stay so after the move.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise PromptFileError(
            f"{path} cannot be written: {error.strerror or error}. Choose a folder that exists, "
            "that you may write to, and that has room."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
