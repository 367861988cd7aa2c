"""Numbers in words."""

from __future__ import annotations


def duration(seconds: float, *, short: bool = False) -> str:
    """A time that a user can plan with: "40 s", "3 min", "2 h".

    Parameters
    ----------
    seconds
        How long.
    short
        To the second below two minutes, for tables; else rounded to what an estimate is worth.
    """
    if seconds < 120:
        step = 1 if short or seconds < 10 else 5
        return f"{max(step * round(seconds / step), 1)} s"
    if seconds < 120 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def size(count: float) -> str:
    """Bytes: "40 MB", "1.3 GB"."""
    if count >= 0.95e9:
        return f"{count / 1e9:.1f} GB"
    return f"{max(round(count / 1e7) * 10, 10)} MB"


def planes(count: int) -> str:
    """How many planes: "1 plane", "3 planes"."""
    return f"{count} plane{'' if count == 1 else 's'}"
