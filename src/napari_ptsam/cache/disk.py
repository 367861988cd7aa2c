"""The folder of kept embeddings.

::

    embeddings/v1/IDENTITY OF THE BACKBONE/AB/AB....zarr.zip    one embedding each
    embeddings/v1/IDENTITY OF THE BACKBONE/AB/AB....json        which ones a plane's tiles have
    embeddings/v1/IDENTITY OF THE BACKBONE/backbone.json        the name it goes by

Files are written under another name and renamed when they are complete, so that whoever reads
sees all of one or nothing, and a writer may be killed at any moment. There is no index that
could disagree with the files; their times of change tell what was used last. A lock is held
only to make room. What cannot be read is removed and computed anew.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from napari_ptsam.cache.entry import SUFFIX, UNFINISHED, Kept, read_entry, write_entry
from napari_ptsam.cache.shelves import (
    ABOUT,
    File,
    files_below,
    keys_in,
    name_in,
    note_text,
    write_text,
)
from napari_ptsam.cache.sizes import LIMIT_VARIABLE, allowed_bytes, free_bytes, size_text
from napari_ptsam.fetching import CACHE_VARIABLE, cache_base

RESERVE = 10**9
"""Bytes of free disk space that are left to others."""

FILLED_AGAIN_TO = 0.9
"""Share of the limit that stays in use when room is made, so that it is made seldom."""

COUNTED_AGAIN_AFTER = 0.02
"""Share of the limit after which a writer looks at what others have written."""

STALE_SECONDS = 3600.0
"""Unfinished files of this age are of writers that were killed."""

LOCK_SECONDS = 10.0

NOTE = ".json"

OVERHEAD = 2000
"""Bytes of a file beside its numbers, and a little more."""


@dataclass(frozen=True)
class Share:
    """What is kept for one backbone.

    Attributes
    ----------
    backbone, identity
        Its name when the first embedding was kept, and the digest of its tensors.
    embeddings, nbytes
        How many, and what they take.
    """

    backbone: str
    identity: str
    embeddings: int
    nbytes: int


class DiskCache:
    """Embeddings that outlive the process.

    Any number of these may work on one folder at the same time, in one process or in several.

    Parameters
    ----------
    folder
        Where; by default ``embeddings`` in ``$NAPARI_PTSAM_CACHE`` or in the user's cache.
    limit
        Bytes to use at most; by default ``$NAPARI_PTSAM_CACHE_LIMIT``, else 20 GB or a tenth
        of the free disk space if that is less. 0 keeps nothing new.
    writes
        Whether new embeddings are kept, or those that are there only read.
    """

    def __init__(
        self, folder: Path | None = None, limit: int | None = None, *, writes: bool = False
    ) -> None:
        self.folder = folder or cache_base() / "embeddings"
        self._root = self.folder / "v1"
        self._given = limit
        self.writes = writes
        self._lock = threading.Lock()
        self._began = time.time()
        self._full = False
        self._in_use: int | None = None
        self._uncounted = self._counted = 0

    def limit(self) -> int:
        """Bytes to use at most."""
        if self._given is not None:
            return self._given
        return allowed_bytes(self.folder, self.in_use())

    def in_use(self) -> int:
        """Bytes that are in use."""
        return sum(file.nbytes for file in self._files())

    def new_run(self) -> None:
        """Say that another run begins, for which what earlier ones used makes room.

        What a run used itself does not: of a stack larger than the limit a part is kept,
        instead of each plane pushing out one that is wanted again.
        """
        self._began = time.time()
        self._full = False

    def keeps(self) -> bool:
        """Whether a new embedding may find a place."""
        return self.writes and not self._full

    def holds(self, identity: str) -> bool:
        """Whether there may be anything of a backbone; cheap where there is not."""
        return self._home(identity).is_dir()

    def get(self, identity: str, key: str) -> Kept | None:
        """An embedding, None if it is not there or damaged."""
        path = self._path(identity, key)
        try:
            kept = read_entry(path, key)
        except OSError:
            return None
        except Exception:
            # Whatever is wrong with a file, its content can be computed anew.
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # a shared folder may be read-only
            os.utime(path)
        return kept

    def put(self, identity: str, name: str, key: str, kept: Kept) -> bool:
        """Keep an embedding if there is room; says whether it was kept.

        A disk that is full or cannot be written to ends the keeping, with one warning.

        Parameters
        ----------
        identity, name
            Of the backbone.
        key
            Of the content, hexadecimal.
        """
        with self._lock:
            if not self.keeps():
                return False
            try:
                if not self._has_room(sum(level.nbytes for level in kept.levels) + OVERHEAD):
                    return False
                self._introduce(identity, name)
                size = write_entry(self._path(identity, key), key, kept)
            except FileNotFoundError:
                return False  # cleared at this moment
            except OSError as error:
                self._give_up(
                    f"{error.strerror or error}. Make room or give yourself access to "
                    f"{self.folder}, or set {CACHE_VARIABLE} to another folder."
                )
                return False
            self._in_use = (self._in_use or 0) + size
            self._uncounted += size
            return True

    def look_up(self, identity: str, name: str) -> list[str] | None:
        """The keys that were noted under a name."""
        path = self._path(identity, name, NOTE)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        with suppress(OSError):
            os.utime(path)
        return keys_in(text)

    def note(self, identity: str, name: str, keys: list[str]) -> None:
        """Write down the keys of what is made from something, such as the tiles of a plane."""
        if self.keeps() and self.holds(identity):
            with suppress(OSError):
                write_text(self._path(identity, name, NOTE), note_text(keys))

    def shares(self) -> list[Share]:
        """What is kept for each backbone."""
        found = []
        for home in self._homes():
            files = list(files_below(home))
            nbytes = sum(file.nbytes for file in files)
            entries = sum(file.path.name.endswith(SUFFIX) for file in files)
            found.append(Share(name_in(home), home.name, entries, nbytes))
        return found

    def verify(self) -> Iterator[bool]:
        """Read every embedding; yields whether it is sound. Damaged ones are removed."""
        for file in list(self._files()):
            if not file.path.name.endswith(SUFFIX):
                continue
            try:
                read_entry(file.path, file.path.name.removesuffix(SUFFIX))
            except FileNotFoundError:
                continue  # it made room in the meantime
            except Exception:
                with suppress(OSError):
                    file.path.unlink()
                yield False
            else:
                yield True

    def clear(self, backbone: str | None = None) -> list[Share]:
        """Remove what is kept, of one backbone or of all; returns what that was.

        Parameters
        ----------
        backbone
            Its name, or how its identity begins.
        """
        removed = []
        for share in self.shares():
            if backbone in (None, share.backbone) or share.identity.startswith(str(backbone)):
                shutil.rmtree(self._home(share.identity), ignore_errors=True)
                removed.append(share)
        self._in_use = None
        return removed

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes have a place, after what is unused for longest has gone."""
        limit = self._counted_limit()
        if free_bytes(self._root) < RESERVE + size:
            self._give_up(
                f"less than {size_text(RESERVE)} of disk space are free. Make room, or set "
                f"{CACHE_VARIABLE} to a folder on another disk."
            )
            return False
        if (self._in_use or 0) + size > limit:
            self._make_room(int(limit * FILLED_AGAIN_TO) - size)
        if (self._in_use or 0) + size <= limit:
            return True
        if limit == 0:
            self.writes = False
            return False
        self._full = True
        warnings.warn(
            f"The cache of embeddings has reached its limit of {size_text(limit)} with what is "
            f"in use now; further ones are not kept. {LIMIT_VARIABLE} sets another limit.",
            stacklevel=4,
        )
        return False

    def _counted_limit(self) -> int:
        """The limit; what is in use is counted first if that is not known."""
        known = self._in_use is not None
        if not known or self._uncounted > COUNTED_AGAIN_AFTER * self._counted:
            self._in_use, self._uncounted = self._tidied(), 0
            given = self._given
            self._counted = allowed_bytes(self._root, self._in_use) if given is None else given
        return self._counted

    def _tidied(self) -> int:
        """Bytes in use, without what writers that were killed have left."""
        total, now = 0, time.time()
        for file in self._files():
            if file.path.name.endswith(UNFINISHED) and now - file.used > STALE_SECONDS:
                with suppress(OSError):
                    file.path.unlink()
            else:
                total += file.nbytes
        return total

    def _make_room(self, target: int) -> None:
        """Remove what is unused for longest, until no more than `target` bytes are in use."""
        with suppress(Timeout), FileLock(self._root / ".room.lock", timeout=LOCK_SECONDS):
            total = self._tidied()
            complete = (f for f in self._files() if not f.path.name.endswith(UNFINISHED))
            for file in sorted(complete, key=lambda f: f.used):
                if total <= target or file.used >= self._began:
                    break
                with suppress(OSError):  # on Windows, while another process reads it
                    file.path.unlink()
                    total -= file.nbytes
            self._in_use, self._uncounted = total, 0

    def _introduce(self, identity: str, name: str) -> None:
        """Write down what a backbone is called."""
        about = self._home(identity) / ABOUT
        if not about.is_file():
            write_text(about, json.dumps({"name": name}))

    def _give_up(self, why: str) -> None:
        self.writes = False
        warnings.warn(
            f"Embeddings are not kept from here on, the work goes on without: {why}", stacklevel=4
        )

    def _home(self, identity: str) -> Path:
        return self._root / identity

    def _path(self, identity: str, key: str, suffix: str = SUFFIX) -> Path:
        return self._home(identity) / key[:2] / f"{key}{suffix}"

    def _homes(self) -> list[Path]:
        return sorted(p for p in self._root.iterdir() if p.is_dir()) if self._root.is_dir() else []

    def _files(self) -> Iterator[File]:
        for home in self._homes():
            yield from files_below(home)
