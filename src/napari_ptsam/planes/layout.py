"""Which axis of an array is what, and how a plane is cut out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError

Index = tuple[int | slice, ...]

NOTHING_TAUGHT: Mapping[str, Any] = MappingProxyType({})
"""Of a training that no input is read like."""

_COLOURS = ("red", "green", "blue", "alpha")
_LEGEND = (
    "one letter per axis: T time, Z depth, C channel, Y rows, X columns, S colour samples "
    "of a picture; for instance ZYX, CYX or TZCYX"
)


@dataclass(frozen=True)
class Layout:
    """How an array falls into planes.

    Attributes
    ----------
    axes, shape
        Names and sizes of the axes that are flattened to planes, outermost first.
    plane_shape
        Height and width.
    """

    axes: str
    shape: tuple[int, ...]
    plane_shape: tuple[int, int]
    _leading: tuple[int, ...]
    _template: Index
    _order: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of planes."""
        return math.prod(self.shape)

    def index(self, plane: int) -> Index:
        """Tell where a plane lies in the array, one integer or full slice per axis."""
        index = list(self._template)
        for axis, number in zip(self._leading, np.unravel_index(plane, self.shape), strict=True):
            index[axis] = int(number)
        return tuple(index)

    def window(self, plane: int, rows: slice, columns: slice) -> Index:
        """As `index`, of a part of the plane alone."""
        index = list(self.index(plane))
        inner = [axis for axis, part in enumerate(index) if isinstance(part, slice)]
        index[inner[self._order[0]]] = rows
        index[inner[self._order[1]]] = columns
        return tuple(index)

    def arrange(self, data: NDArray[Any]) -> NDArray[Any]:
        """Bring what `index` cut out into the order HxW or HxWxC."""
        return data.transpose(self._order)


def find_layout(
    name: str,
    shape: Sequence[int],
    stored_axes: str | None,
    *,
    axes: str | None = None,
    channel: int | str | None = None,
    channel_names: Sequence[str] = (),
    taught: Mapping[str, Any] = NOTHING_TAUGHT,
) -> Layout:
    """Work out how an array falls into planes.

    Parameters
    ----------
    name
        What to call the array in messages.
    shape
        Its shape.
    stored_axes
        What its file says about the axes, None if nothing.
    axes
        What the user says about them; goes before `stored_axes`.
    channel
        The one channel to use, by number or name; None for all, as colours.
    channel_names
        What the file calls its channels.
    taught
        The ``axes`` and ``channel`` of a specialist's training, for where the user says nothing.
        They were about other files: axes of another number are passed over, and so is a channel
        where there is a single one.

    Raises
    ------
    InputError
        If the array is empty, if it is unclear what its axes are, or if a channel
        has to be chosen.
    """
    shape = tuple(int(size) for size in shape)
    if len(shape) < 2 or 0 in shape:
        raise InputError(
            f"{name} has the shape {shape}, which holds no image. An image has at least two "
            "axes (rows, columns), none of them of length 0."
        )
    if axes is None and _fits(taught.get("axes"), shape):
        axes = taught["axes"]
    if axes is not None:
        names = _check_axes(name, shape, axes)
    else:
        names = _guess_axes(name, shape) if stored_axes is None else stored_axes.upper()
    sizes = dict(zip(names, shape, strict=True))
    if channel is None:
        channel = _taught_channel(name, sizes, taught.get("channel"), channel_names)
    told = axes is not None
    fixed, kept = _choose_channel(name, sizes, channel, channel_names, told=told)
    rows, columns = names.index("Y"), names.index("X")
    inner = [rows, columns] + ([names.index(kept)] if kept else [])
    template: list[int | slice] = []
    leading = []
    for axis, letter in enumerate(names):
        if axis in inner:
            template.append(slice(None))
            continue
        template.append(fixed.get(letter, 0))
        if letter not in fixed and shape[axis] > 1:
            leading.append(axis)
    cut = sorted(inner)
    return Layout(
        axes="".join(names[axis] for axis in leading),
        shape=tuple(shape[axis] for axis in leading),
        plane_shape=(shape[rows], shape[columns]),
        _leading=tuple(leading),
        _template=tuple(template),
        _order=tuple(cut.index(axis) for axis in inner),
    )


def _fits(axes: str | None, shape: tuple[int, ...]) -> bool:
    """Whether axes are as many as an array has; those of length 1 are often left out."""
    return axes is not None and len(axes) in (len(shape), sum(size > 1 for size in shape))


def _check_axes(name: str, shape: tuple[int, ...], axes: str) -> str:
    names = axes.upper()
    valid = names.isascii() and names.isalpha() and len(set(names)) == len(names)
    if not valid or not {"Y", "X"} <= set(names):
        raise InputError(
            f"The axes {axes!r} cannot be used: give {_LEGEND}. Each letter once, and Y and X "
            "must be there."
        )
    if not _fits(names, shape):
        raise InputError(
            f"The axes {axes!r} name {len(names)} axes, but {name} has {len(shape)}: its shape is "
            f"{shape}. Give {_LEGEND}."
        )
    if len(names) == len(shape):
        return names
    spare = iter(letter for letter in "ABDEFGHIJKLMNOPQRUVW" if letter not in names)
    given = iter(names)
    return "".join(next(given) if size > 1 else next(spare) for size in shape)


def _guess_axes(name: str, shape: tuple[int, ...]) -> str:
    """Name the axes of an array that comes without names.

    YX; a last axis of 3 or 4 (or 1) is colour; one more axis is depth.
    """
    colour = "S" if len(shape) > 2 and shape[-1] in (1, 3, 4) else ""
    leading = shape[: len(shape) - len(colour) - 2]
    if sum(size > 1 for size in leading) > 1:
        raise InputError(
            f"{name} has the shape {shape} and nothing says what its axes are. Say it with the "
            f"option 'axes', {_LEGEND}."
        )
    spare = iter("ABDEFGHIJKLMNOPQRUVW")
    return "".join("Z" if size > 1 else next(spare) for size in leading) + "YX" + colour


def _channel_axes(sizes: dict[str, int]) -> list[str]:
    """The axes on which there is something to choose."""
    return [letter for letter in "CS" if sizes.get(letter, 1) > 1]


def _taught_channel(
    name: str,
    sizes: dict[str, int],
    channel: int | str | None,
    channel_names: Sequence[str],
) -> int | str | None:
    """The channel of a specialist's training, None where there is nothing to choose."""
    letters = _channel_axes(sizes)
    if channel is None or not letters:
        return None
    if _find_channel(channel, _names_of(letters[0], sizes, channel_names)) is None:
        raise InputError(
            f"The specialist was trained on the channel {channel!r}, and {name} has none of that "
            f"name or number: it has {_list_channels(letters[0], sizes, channel_names)}. Choose "
            "the one that shows the same with the option 'channel' (--channel)."
        )
    return channel


def _choose_channel(
    name: str,
    sizes: dict[str, int],
    channel: int | str | None,
    channel_names: Sequence[str],
    *,
    told: bool,
) -> tuple[dict[str, int], str]:
    """Find the fixed position on each channel axis, and the axis that stays as colours."""
    letters = _channel_axes(sizes)
    if channel is None:
        if not letters:
            return {}, ""
        if len(letters) == 1 and _is_colour(letters[0], sizes, told=told):
            return {}, letters[0]
        raise InputError(
            f"{name} has {_list_channels(letters[0], sizes, channel_names)}. A model sees grey "
            "or colour (RGB) images: choose one channel with the option 'channel', by number "
            "or name."
        )
    if not letters:
        if channel in (0, "0") or channel in channel_names:
            return {}, ""
        raise InputError(
            f"The channel {channel!r} was asked for, but {name} has a single channel. Leave the "
            "option 'channel' away, or say which axis holds channels with the option 'axes'."
        )
    position = _find_channel(channel, _names_of(letters[0], sizes, channel_names))
    if position is None:
        raise InputError(
            f"There is no channel {channel!r}: {name} has "
            f"{_list_channels(letters[0], sizes, channel_names)}. Choose one of these."
        )
    return {letters[0]: position}, letters[1] if len(letters) > 1 else ""


def _is_colour(letter: str, sizes: dict[str, int], *, told: bool) -> bool:
    """Tell pictures (grey, grey + alpha, RGB, RGBA) from microscopy channels.

    Two or four microscopy channels must not pass as grey or RGB with an alpha channel:
    that channel would be dropped without a word. Where the user named the axes (`told`), a last
    C of four is a picture: a file would call it S.
    """
    count = sizes[letter]
    if letter == "S":
        return count <= 4
    return count == 3 or (told and count == 4 and list(sizes)[-1] == letter)


def _names_of(letter: str, sizes: dict[str, int], channel_names: Sequence[str]) -> list[str]:
    count = sizes[letter]
    if letter == "S" and count in (3, 4):
        return list(_COLOURS[:count])
    return list(channel_names) if len(channel_names) == count else [""] * count


def _list_channels(letter: str, sizes: dict[str, int], channel_names: Sequence[str]) -> str:
    names = _names_of(letter, sizes, channel_names)
    shown = ", ".join(
        f"{number} ({label})" if label else f"{number}" for number, label in enumerate(names[:20])
    )
    return f"{len(names)} channels: {shown}{' ...' if len(names) > 20 else ''}"


def _find_channel(channel: int | str, names: list[str]) -> int | None:
    if isinstance(channel, str):
        wanted = channel.strip().casefold()
        matches = [number for number, name in enumerate(names) if name.casefold() == wanted]
        if wanted and len(matches) == 1:
            return matches[0]
        if not (wanted.isascii() and wanted.isdigit()):
            return None
    number = int(channel)
    return number if 0 <= number < len(names) else None
