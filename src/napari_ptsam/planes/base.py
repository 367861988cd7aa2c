"""A lazy sequence of 2D planes: what every source of images looks like to the rest."""

from __future__ import annotations

import bisect
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from napari_ptsam.errors import InputError, PtsamError
from napari_ptsam.planes.part import Part

Kind = Literal["folder", "stack", "image"]


class Planes(ABC):
    """A lazy sequence of 2D planes; nothing is read before it is asked for.

    Attributes
    ----------
    name
        What to call the source in messages.
    kind
        Whether the planes are the files of a folder, the planes of a stack, or one image.
    keys
        One unique name per plane. Folder: path of the file without suffix, relative to
        the folder. Stack: "0000", "0001" and so on. Image: its name without suffix.
    parts
        The files that the planes come from, in order.
    source
        The folder or file that was opened, None for an array in memory.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        keys: Sequence[str],
        parts: Sequence[Part],
        source: Path | None,
    ) -> None:
        self.name = name
        self.kind: Kind = kind
        self.keys: Sequence[str] = keys
        self.parts: Sequence[Part] = parts
        self.source = source

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> NDArray[Any]:
        """Read one plane, and only this one.

        Returns
        -------
        HxW or HxWxC array of the type that is stored.

        Raises
        ------
        InputError
            If there is no such plane, or its file cannot be read.
        """
        self.check(index)
        return self._read(index, labels=False)

    def read_labels(self, index: int) -> NDArray[Any]:
        """Read one plane as labels: as `read`, but a palette image gives its indices."""
        self.check(index)
        return self._read(index, labels=True)

    def read_window(self, index: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a part of a plane; where the file allows, only the tiles that it lies on.

        Parameters
        ----------
        rows, columns
            From and to, both given and within the plane.

        Returns
        -------
        HxW or HxWxC array of the type that is stored.
        """
        self.check(index)
        return self._read_window(index, rows, columns)

    def shape_of(self, index: int) -> tuple[int, int]:
        """Height and width of a plane; read from the file's header where it has them."""
        self.check(index)
        return self._shape_of(index)

    def path_of(self, index: int) -> Path | None:
        """Tell which file a plane comes from; None for an array in memory."""
        return self.parts[self._locate(index)[0]].path

    def in_stack(self, index: int) -> bool:
        """Whether a plane is one of several in its file or array."""
        return bool(self.parts[self._locate(index)[0]].axes)

    def describe(self, index: int) -> str:
        """Name a plane in a message: its file, and its number where there are several."""
        part_number, within = self._locate(index)
        part = self.parts[part_number]
        where = self.name if part.path is None else str(part.path)
        return f"plane {within} of {where}" if part.axes else where

    def subset(self, indices: Sequence[int]) -> Planes:
        """Give a view of some planes, in the order of `indices`."""
        for index in indices:
            self.check(index)
        return _Subset(self, [int(index) for index in indices])

    def check(self, index: int) -> None:
        """Raise an `InputError` if there is no plane `index`."""
        if not 0 <= index < len(self):
            raise InputError(
                f"There is no plane {index} in {self.name}: it has {len(self)} "
                f"plane{'s' * (len(self) != 1)}, numbered from 0 to {len(self) - 1}."
            )

    def _locate(self, index: int) -> tuple[int, int]:
        """Find the part of a plane and the plane's number within it."""
        self.check(index)
        part = bisect.bisect_right(self._starts, index) - 1
        return part, index - self._starts[part]

    @cached_property
    def _starts(self) -> list[int]:
        counts = [part.count for part in self.parts]
        return [0, *itertools.accumulate(counts[:-1])]

    @abstractmethod
    def _read(self, index: int, *, labels: bool) -> NDArray[Any]: ...

    def _read_window(self, index: int, rows: slice, columns: slice) -> NDArray[Any]:
        return self._read(index, labels=False)[rows, columns]

    @abstractmethod
    def _shape_of(self, index: int) -> tuple[int, int]: ...


class _Subset(Planes):
    """Some planes of another source."""

    def __init__(self, base: Planes, indices: list[int]) -> None:
        self._base = base
        self._indices = indices
        keys = [base.keys[index] for index in indices]
        super().__init__(base.name, base.kind, keys, list(_parts_of(base, indices)), base.source)

    def _read(self, index: int, *, labels: bool) -> NDArray[Any]:
        return self._base._read(self._indices[index], labels=labels)

    def _read_window(self, index: int, rows: slice, columns: slice) -> NDArray[Any]:
        return self._base._read_window(self._indices[index], rows, columns)

    def _shape_of(self, index: int) -> tuple[int, int]:
        return self._base._shape_of(self._indices[index])


class _Series(Planes):
    """The files of a folder as the planes of one stack."""

    def __init__(self, base: Planes, axis: str) -> None:
        self._base = base
        first = base.parts[0]
        key = base.name if base.source is None else base.source.resolve().name
        # The files tell nothing of the distance between them.
        scale = {letter: size for letter, size in first.scale.items() if letter in "YX"}
        part = Part(key, len(base), axis, (len(base),), scale, base.source)
        super().__init__(base.name, "stack", list(base.keys), [part], base.source)

    def _read(self, index: int, *, labels: bool) -> NDArray[Any]:
        return self._base._read(index, labels=labels)

    def _read_window(self, index: int, rows: slice, columns: slice) -> NDArray[Any]:
        return self._base._read_window(index, rows, columns)

    def _shape_of(self, index: int) -> tuple[int, int]:
        return self._base._shape_of(index)


def as_stack(planes: Planes, axis: str = "Z") -> Planes:
    """The files of a folder as the planes of one stack; anything else as it is.

    Parameters
    ----------
    planes
        All of one height and width, which only the files' headers are read for.
    axis
        What the files count: ``Z`` or ``T``.

    Raises
    ------
    InputError
        If planes differ in size.
    """
    if planes.kind != "folder":
        return planes
    first = planes.shape_of(0)
    for index in range(1, len(planes)):
        if planes.shape_of(index) != first:
            raise InputError(
                f"{planes.describe(index)} is {planes.shape_of(index)} and {planes.describe(0)} "
                f"is {first}: images of different sizes are no stack. Give a folder as the output."
            )
    return _Series(planes, axis)


def _parts_of(base: Planes, indices: list[int]) -> Iterator[Part]:
    located = (base._locate(index) for index in indices)
    for part_number, group in itertools.groupby(located, key=lambda place: place[0]):
        yield base.parts[part_number].choose([within for _, within in group])


@contextmanager
def explained(name: object) -> Iterator[None]:
    """Turn whatever a decoder throws into an `InputError` that names the file."""
    try:
        yield
    except (PtsamError, MemoryError):
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(
            f"{name} cannot be read: {reason}. The file may be damaged, only half copied, or "
            "of a kind that is not supported. Open it in Fiji or another viewer and save it "
            "again as TIFF, or leave it out."
        ) from error


def parse_plane_ranges(text: str) -> list[int]:
    """Read a choice of planes such as ``"0-15"`` or ``"0,3,7-9"``.

    Numbers count from 0 and ranges include both ends.

    Returns
    -------
    The plane numbers, ascending and each once.

    Raises
    ------
    InputError
        If the text is not such a choice.
    """
    numbers: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", piece, flags=re.ASCII)
        if match is None:
            raise InputError(
                f"{text!r} is not a choice of planes. Write numbers from 0 on and inclusive "
                "ranges, separated by commas, for instance 0-15 or 0,3,7-9."
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise InputError(
                f"The range {piece.strip()} in {text!r} runs backwards. Write {last}-{first}."
            )
        if last >= _MOST_PLANES:
            raise InputError(f"The plane {last} in {text!r} is beyond any stack.")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


_MOST_PLANES = 10_000_000
