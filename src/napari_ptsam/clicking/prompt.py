"""What a user points at: clicks and a box, in pixels of a plane."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.errors import InputError


@dataclass(frozen=True)
class Click:
    """A point inside the object that is wanted, or on something that does not belong to it.

    Attributes
    ----------
    y, x
        Row and column; 0 is the centre of the first pixel.
    positive
        Whether the point belongs to the object.
    """

    y: float
    x: float
    positive: bool = True


@dataclass(frozen=True)
class Box:
    """A box around the object: rows and columns of its outermost pixels' centres."""

    top: float
    left: float
    bottom: float
    right: float

    @classmethod
    def around(cls, mask: NDArray[np.bool_]) -> Box:
        """The smallest box around an HxW mask that is not empty."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        return cls(float(rows[0]), float(columns[0]), float(rows[-1]), float(columns[-1]))


@dataclass(frozen=True)
class ClickPrompt:
    """All that is said about one object.

    Raises
    ------
    InputError
        If nothing says where the object is, a number is none, or the box is turned inside out.
    """

    clicks: tuple[Click, ...] = ()
    box: Box | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "clicks", tuple(self.clicks))
        numbers = [n for click in self.clicks for n in (click.y, click.x)]
        if self.box is not None:
            box = self.box
            numbers += [box.top, box.left, box.bottom, box.right]
            if box.top > box.bottom or box.left > box.right:
                raise InputError(
                    f"The box from row {box.top:g} to {box.bottom:g} and from column "
                    f"{box.left:g} to {box.right:g} ends before it begins. Give the upper left "
                    "corner first."
                )
        if not all(map(math.isfinite, numbers)):
            raise InputError("A click or a corner of the box is not a number of pixels.")
        if self.box is None and not self.positive:
            what = "only says what does not belong to it" if self.clicks else "is empty"
            raise InputError(
                f"The prompt {what}, so it is unknown which object is wanted. Click on the object "
                "first, or draw a box around it; then take away what is too much."
            )

    @property
    def positive(self) -> tuple[Click, ...]:
        """The clicks on the object."""
        return tuple(click for click in self.clicks if click.positive)

    @property
    def points(self) -> list[tuple[float, float]]:
        """Rows and columns of all that must be seen: clicks on the object, corners of the box."""
        points = [(click.y, click.x) for click in self.positive]
        if self.box is not None:
            box = self.box
            points += [(box.top, box.left), (box.bottom, box.right)]
        return points

    def checked_for(self, shape: tuple[int, int]) -> ClickPrompt:
        """The same prompt for a plane of HxW pixels, with a box cut to the plane.

        Raises
        ------
        InputError
            If a click is outside of the plane, or all of the box.
        """
        height, width = shape
        for click in self.clicks:
            if not (-0.5 <= click.y < height - 0.5 and -0.5 <= click.x < width - 0.5):
                raise InputError(
                    f"The click at row {click.y:g}, column {click.x:g} is outside of the image, "
                    f"which has {height} rows and {width} columns. Click inside of the image."
                )
        if self.box is None:
            return self
        box = Box(
            max(self.box.top, 0.0),
            max(self.box.left, 0.0),
            min(self.box.bottom, height - 1.0),
            min(self.box.right, width - 1.0),
        )
        if box.top > box.bottom or box.left > box.right:
            raise InputError(
                f"The box from row {self.box.top:g}, column {self.box.left:g} is outside of the "
                f"image, which has {height} rows and {width} columns. Draw it on the image."
            )
        return ClickPrompt(self.clicks, box)


def well_inside(mask: NDArray[np.bool_]) -> Click:
    """A click where an HxW mask that is not empty is deepest: farthest from its border."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(depth)), mask.shape)
    return Click(float(y), float(x))
