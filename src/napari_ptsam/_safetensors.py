"""The safetensors container, read with suspicion and written reproducibly.

The layout is that of https://github.com/huggingface/safetensors: eight bytes with
the header's length (little-endian), a JSON header with each tensor's type, shape
and place, and the numbers without gaps. The `safetensors` library writes text
metadata in random order, so equal content gives unequal bytes, and it reads any
size and type; files that travel between people need the two the other way round.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAX_HEADER_BYTES = 1_000_000
MAX_NUMBERS = 2**25
MAX_DIMENSIONS = 8
MAX_JSON_DEPTH = 32

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class ContainerError(ValueError):
    """What is wrong with a container; a phrase to be put into a message."""


def parse_json(text: str | bytes) -> Any:
    """JSON without repeated names, deep nesting, infinities or broken characters.

    Raises
    ------
    ContainerError
        If the text is not such JSON.
    """
    try:
        # Left to itself, json would take bytes for UTF-16 or UTF-32 as well.
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
        # Lone surrogates and numbers such as 1e999 would break whoever writes them again.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ContainerError:
        raise
    except RecursionError:
        raise ContainerError("its JSON text is nested too deeply") from None
    except ValueError as error:
        raise ContainerError(f"its JSON text is damaged ({error})") from error
    _check_depth(value)
    return value


def pack(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Bytes of a container; equal content gives equal bytes.

    Parameters
    ----------
    tensors
        Named arrays, float32 or float16.
    metadata
        Text by name.

    Raises
    ------
    ContainerError
        If the content is beyond what `unpack` accepts.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    pieces = []
    end = 0
    # The wider type first, then by name, as the library does, keeps numbers aligned.
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        dtype = tensor.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise ContainerError(f"tensor '{name}' is {tensor.dtype}, not float32 or float16")
        piece = np.ascontiguousarray(tensor, dtype).tobytes()
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + len(piece)],
        }
        end += len(piece)
        pieces.append(piece)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    _entries(_checked_header(text), end)  # what is written can be read
    return b"".join([len(text).to_bytes(8, "little"), text, *pieces])


def unpack(file: BinaryIO, size: int) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a container of `size` bytes; no more is read than its header announces and limits allow.

    Returns
    -------
    tuple
        Tensors by name (native float32 or float16, writable) and metadata.

    Raises
    ------
    ContainerError
        If the file is not a container, damaged, or beyond the limits.
    """
    header, entries, count = _read_header(file, size)
    data = file.read(count)
    if len(data) < count:
        raise ContainerError("it became shorter while it was read")
    tensors = {}
    for name, (dtype, shape, begin, _) in entries.items():
        values = np.frombuffer(data, dtype, math.prod(shape), begin)
        tensors[name] = values.astype(dtype.newbyteorder("=")).reshape(shape)
    return tensors, header.get("__metadata__", {})


def unpack_metadata(file: BinaryIO, size: int) -> dict[str, str]:
    """The metadata of a container alone; its numbers are not read.

    Raises
    ------
    ContainerError
        As `unpack`.
    """
    header, _, _ = _read_header(file, size)
    found: dict[str, str] = header.get("__metadata__", {})
    return found


Entry = tuple[np.dtype[Any], tuple[int, ...], int, int]


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], dict[str, Entry], int]:
    """Header, its tensors, and how many bytes of numbers follow."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length < 2 or length > MAX_HEADER_BYTES:
        raise ContainerError(
            "it does not start as a safetensors file does"
            + (f" (a header of {length} bytes is announced)" if len(start) == 8 else "")
        )
    if 8 + length > size:
        raise ContainerError(f"it ends within its header, after {size} of {8 + length} bytes")
    header = _checked_header(file.read(length))
    return header, _entries(header, size - 8 - length), size - 8 - length


def _checked_header(text: bytes) -> dict[str, Any]:
    """Header as a dictionary whose metadata is text only."""
    if len(text) > MAX_HEADER_BYTES:
        raise ContainerError(
            f"its header has {len(text):,} bytes, more than the {MAX_HEADER_BYTES:,} allowed"
        )
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ContainerError("its header is not a table of tensors")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ContainerError("its metadata is not text")
    return header


def _entries(header: Mapping[str, Any], size: int) -> dict[str, Entry]:
    """Type, shape and place of each tensor, which together fill `size` bytes without gaps."""
    entries = {name: _entry(name, e) for name, e in header.items() if name != "__metadata__"}
    end = 0
    for name, (_, _, begin, stop) in sorted(entries.items(), key=lambda item: item[1][2]):
        if begin != end:
            raise ContainerError(f"tensor '{name}' starts at byte {begin} instead of {end}")
        end = stop
    if end != size:
        raise ContainerError(f"it has {size:,} bytes of numbers instead of {end:,}")
    if sum(math.prod(entry[1]) for entry in entries.values()) > MAX_NUMBERS:
        raise ContainerError(f"it holds more than {MAX_NUMBERS:,} numbers")
    return entries


def _entry(name: str, entry: Any) -> Entry:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ContainerError(f"the entry of tensor '{name}' is damaged")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise ContainerError(f"tensor '{name}' is of type {kind!r}, not F32 or F16")
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS or 0 in shape:
        raise ContainerError(f"tensor '{name}' has the impossible shape {shape!r:.100}")
    dtype = _DTYPES[kind]
    if not _counts(offsets) or len(offsets) != 2:
        raise ContainerError(f"the place of tensor '{name}' is damaged")
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ContainerError(f"tensor '{name}' of shape {shape!r:.100} does not fit its place")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _counts(values: Any) -> bool:
    """Whether this is a list of whole numbers from 0 on."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ContainerError("its JSON text names a thing twice")
    return table


def _refuse_constant(name: str) -> Any:
    raise ContainerError(f"its JSON text contains {name}")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ContainerError("its JSON text is nested too deeply")
