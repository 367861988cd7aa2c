"""What a mask file says about each pixel, whatever it was saved as."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.planes import Planes

_LARGEST = 2**53
"""Beyond this, not every whole number is a float."""

_MOST_COLOURS = 256


def read_labels(masks: Planes, index: int, *, numbered: bool = False) -> NDArray[np.int64]:
    """Read a plane of labels.

    Parameters
    ----------
    masks
        The masks or label images.
    index
        Which of them.
    numbered
        Whether the label numbers themselves matter. Else a picture in colours is accepted,
        where black is the background.

    Returns
    -------
    HxW int64, 0 where there is no label.

    Raises
    ------
    InputError
        If the values are not labels, with the file and what to do.
    """
    where = masks.describe(index)
    labels = masks.read_labels(index)
    if labels.ndim == 3:
        labels = _without_colour(labels, where, numbered=numbered)
    path = masks.path_of(index)
    if path is not None and path.suffix.lower() in (".jpg", ".jpeg"):
        labels = _from_jpeg(labels, where)
    if labels.dtype.kind == "f":
        labels = _whole(labels, where)
    if labels.dtype.kind == "u" and labels.dtype.itemsize == 8 and labels.max() > _LARGEST:
        raise InputError(f"The mask {where} has labels beyond {_LARGEST}. Number them anew.")
    return labels.astype(np.int64)


def _without_colour(picture: NDArray[Any], where: str, *, numbered: bool) -> NDArray[Any]:
    """Take a picture as labels: HxWxC to HxW."""
    if picture.shape[2] in (2, 4):
        picture = picture[..., :-1]
    if (picture == picture[..., :1]).all():
        return np.asarray(picture[..., 0])
    if picture.dtype.kind != "u" or picture.dtype.itemsize > 2:
        raise InputError(
            f"The mask {where} has {picture.shape[2]} channels that differ. Save it as a grey "
            "image whose values are labels."
        )
    if numbered:
        raise InputError(
            f"The mask {where} is in colours, which have no label numbers. Save it as a grey "
            "image whose values are labels, or leave the choice of a label away."
        )
    codes = picture.astype(np.int64) @ np.array([1 << 32, 1 << 16, 1])
    colours, numbers = np.unique(codes, return_inverse=True)
    if len(colours) > _MOST_COLOURS or colours[0] != 0:
        raise InputError(
            f"The mask {where} is a picture in {len(colours)} colours"
            f"{' without black as background' if colours[0] != 0 else ''}. Save it as a grey "
            "image that is 0 outside the objects."
        )
    return numbers.reshape(codes.shape)


def _from_jpeg(grey: NDArray[Any], where: str) -> NDArray[np.bool_]:
    """Undo what lossy compression did to a black and white mask."""
    if np.mean((grey > 63) & (grey < 192)) > 0.02:
        raise InputError(
            f"The mask {where} is a JPEG, which changes values, and not plainly black and "
            "white. Save masks as PNG or TIFF."
        )
    return np.asarray(grey > 127)


def _whole(values: NDArray[Any], where: str) -> NDArray[Any]:
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise InputError(
            f"The mask {where} has values that are not whole numbers, so they are no labels. If "
            "they are probabilities, cut them at 0.5 and save 0 and 1."
        )
    if np.abs(values.astype(np.float64)).max() > _LARGEST:
        raise InputError(f"The mask {where} has labels beyond {_LARGEST}. Number them anew.")
    return values
