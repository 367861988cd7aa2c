"""Trained specialists keep themselves: a crash or a closed window loses none of them.

They are put aside in the user's data folder as they are trained, the newest few of them, until the
user exports those that are worth keeping.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import platformdirs

from napari_ptsam.errors import PtsamError

FOLDER_VARIABLE = "NAPARI_PTSAM_SPECIALISTS"
FILES = "*.ptsam.safetensors"
KEPT = 20
"""Specialists of each kind that stay."""


def specialists_folder(kind: str) -> Path:
    """Folder of specialists put aside: in ``$NAPARI_PTSAM_SPECIALISTS`` or the user's data folder.

    Parameters
    ----------
    kind
        Name of the folder in it.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    base = Path(chosen).expanduser() if chosen else platformdirs.user_data_path("napari-ptsam")
    return base / kind


def numbered(name: str, taken: Collection[str]) -> str:
    """A name with the first number that makes it one of its own, such as "nucleus 2"."""
    return next(n for i in range(1, len(taken) + 2) if (n := f"{name} {i}") not in taken)


class Saveable(Protocol):
    """A specialist of one or the other kind."""

    path: Path | None

    def save(self, path: Path) -> Path:
        """Write its file."""


S = TypeVar("S", bound=Saveable)
Y = TypeVar("Y")


@dataclass(frozen=True)
class Earlier:
    """A specialist that was put aside.

    Attributes
    ----------
    path
        Its file.
    name
        What it finds.
    trained
        When, in local time.
    score
        What it reached on masks held out from training, in words; empty if that is not known.
    """

    path: Path
    name: str
    trained: datetime.datetime
    score: str

    @property
    def title(self) -> str:
        """What tells it from others, in a line as wide as the dock."""
        when = f"{self.name}, {self.trained:%d %b %H:%M}"
        return f"{when}, {self.score}" if self.score else when

    @property
    def tip(self) -> str:
        """The same at length."""
        score = f"\n{self.score} on masks that were kept out" if self.score else ""
        return f"{self.name}\ntrained on {self.trained:%d %B %Y, %H:%M}{score}"


class Shelf:
    """A folder of the newest specialists that were not exported.

    Parameters
    ----------
    folder
        Made when the first is put there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def holds(self, path: Path) -> bool:
        """Whether a file lies here: not one that the user saved."""
        return path.parent == self.folder

    def has(self, path: Path | None) -> bool:
        """Whether a file that was put here is still there: many trainings later it is not."""
        return path is not None and path.is_file()

    def put(self, specialist: Saveable) -> Path | None:
        """Put a specialist aside, and let the oldest go; not for the GUI thread.

        Returns
        -------
        Path or None
            Its file; None where the disk does not take it, which is no reason to lose a training.
        """
        exported = specialist.path
        now = datetime.datetime.now(datetime.UTC)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = specialist.save(self.folder / f"{now:%Y%m%dT%H%M%S.%f}")
        except (OSError, PtsamError):
            return None
        finally:
            # It is the user who says where it belongs.
            specialist.path = exported
        for old in sorted(self.folder.glob(FILES))[:-KEPT]:
            with suppress(OSError):
                old.unlink()
        return path

    def let_go(self, path: Path | None, exported: Path) -> None:
        """Keep a file no longer, now that the user has one."""
        if path is not None and path != exported:
            with suppress(OSError):
                path.unlink()

    def earlier(self) -> list[Earlier]:
        """All that lie here, the newest first; damaged files are passed over.

        Not for the GUI thread.
        """
        found = []
        for path in sorted(self.folder.glob(FILES), reverse=True):
            with suppress(OSError, PtsamError):
                found.append(_described(path))
        return found


def put_aside(
    training: Generator[Y, None, S | None], shelf: Shelf
) -> Generator[Y, None, tuple[S | None, Path | None]]:
    """Run a training and put aside what it came to, which also works when its window is gone.

    Returns
    -------
    tuple
        The specialist, if anything was learned, and its file.
    """
    specialist = yield from training
    return specialist, None if specialist is None else shelf.put(specialist)


def _described(path: Path) -> Earlier:
    from napari_ptsam.promptfile import read_prompt_metadata

    metadata = read_prompt_metadata(path)
    scores = (("Dice", "held_out_dice"), ("IoU", "held_out_iou"))
    values = ((word, metadata.training.get(name)) for word, name in scores)
    score = next((f"{word} {v:.2f}" for word, v in values if isinstance(v, int | float)), "")
    trained = datetime.datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    return Earlier(path, metadata.class_name, trained, score)
