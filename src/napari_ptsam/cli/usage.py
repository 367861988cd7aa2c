"""The command's name, and the error of a command that was used wrongly."""

from __future__ import annotations

PROGRAM = "napari-ptsam"


class UsageError(Exception):
    """Arguments that are fine one by one but not together; exit code 2."""
