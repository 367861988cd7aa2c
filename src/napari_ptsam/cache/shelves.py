"""The small files and the shelves of the cache."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from napari_ptsam.cache.entry import UNFINISHED

ABOUT = "backbone.json"


@dataclass(frozen=True)
class File:
    """One file, its size, and when it was last used (seconds since the epoch)."""

    path: Path
    nbytes: int
    used: float


def note_text(keys: list[str]) -> str:
    """Keys as a file has them, with their digest."""
    return json.dumps({"keys": keys, "digest": _digest(keys)})


def keys_in(text: str) -> list[str] | None:
    """Keys of a file, None if it is damaged."""
    try:
        noted = json.loads(text)
        keys = [str(key) for key in noted["keys"]]
        return keys if noted["digest"] == _digest(keys) else None
    except (ValueError, TypeError, KeyError):
        return None


def _digest(keys: list[str]) -> str:
    return xxhash.xxh3_64_hexdigest(" ".join(keys).encode())


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid.uuid4().hex}{UNFINISHED}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def files_below(home: Path) -> Iterator[File]:
    """Embeddings of a backbone, finished or not."""
    with suppress(FileNotFoundError):
        for shelf in list(home.iterdir()):
            if not shelf.is_dir():
                continue
            with os.scandir(shelf) as found:
                for item in found:
                    with suppress(FileNotFoundError):
                        status = item.stat()
                        yield File(Path(item.path), status.st_size, status.st_mtime)


def name_in(home: Path) -> str:
    """What the backbone of a folder is called."""
    try:
        return str(json.loads((home / ABOUT).read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError):
        return "unknown"
