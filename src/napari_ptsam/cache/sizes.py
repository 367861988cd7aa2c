"""Bytes in words, and how many the cache may take."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from napari_ptsam.errors import InputError

LIMIT_VARIABLE = "NAPARI_PTSAM_CACHE_LIMIT"

MOST = 20 * 10**9
SHARE_OF_DISK = 0.1
"""Of what is free, at most, unless the user sets a limit."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_size(text: str) -> int:
    """Bytes behind a text such as ``50 GB``, ``500M`` or ``0``.

    Raises
    ------
    InputError
        If it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if found is None:
        raise InputError(
            f"'{text}' is no size. Give bytes, or a number with KB, MB, GB or TB, such as '50 GB'."
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])


def size_text(nbytes: int) -> str:
    """Bytes in the unit that suits them."""
    value, unit = float(nbytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def allowed_bytes(folder: Path, in_use: int) -> int:
    """How much a cache in a folder may take: what the user says, or a share of the disk.

    Parameters
    ----------
    in_use
        Bytes that it takes already: they would be free without it.
    """
    named = os.environ.get(LIMIT_VARIABLE)
    if named:
        return parse_size(named)
    return min(MOST, int(SHARE_OF_DISK * (free_bytes(folder) + in_use)))


def free_bytes(folder: Path) -> int:
    """Free space of the disk where a folder is, or will be."""
    there = next((f for f in (folder, *folder.parents) if f.is_dir()), Path("/"))
    return shutil.disk_usage(there).free
