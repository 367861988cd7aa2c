"""Objects measured in physical units: a table, and its CSV file."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.normalize import without_alpha
from napari_ptsam.objects import checked_spacing

Column = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """One row for each object.

    Attributes
    ----------
    columns
        Values by name, all of one length.
    units
        Unit of a column, for those that have one.
    """

    columns: Mapping[str, Column]
    units: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def headings(self) -> list[str]:
        """Names of the columns with their units, such as ``area (µm²)``."""
        return [
            f"{name} ({self.units[name]})" if self.units.get(name) else name
            for name in self.columns
        ]

    def write_csv(self, path: str | Path) -> Path:
        """Write the table as comma-separated values; it appears complete or not at all.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        path = Path(path).expanduser()
        if path.suffix.lower() != ".csv":
            path = path.with_name(f"{path.name}.csv")
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            # With a byte order mark, without which spreadsheets garble "µm²".
            with part.open("x", newline="", encoding="utf-8-sig") as file:
                writer = csv.writer(file)
                writer.writerow(self.headings())
                writer.writerows(zip(*map(_texts, self.columns.values()), strict=True))
            part.replace(path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror or error}. Choose a folder that "
                "exists, that you may write to, and that has room."
            ) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return path


def _texts(column: Column) -> list[str]:
    if column.dtype.kind == "f":
        return ["" if np.isnan(value) else f"{value:.7g}" for value in column]
    return [str(value) for value in column.tolist()]


def join_tables(tables: Sequence[ObjectTable]) -> ObjectTable:
    """The rows of tables of the same columns under each other; empty without any table."""
    if not tables:
        return ObjectTable({})
    names = tables[0].columns
    columns = {name: np.concatenate([t.columns[name] for t in tables]) for name in names}
    return ObjectTable(columns, tables[0].units)


def measure_objects(
    labels: NDArray[Any],
    intensity: NDArray[Any] | None = None,
    *,
    spacing: Sequence[float] | None = None,
    origin: Sequence[float] | None = None,
    unit: str = "pixel",
    where: Mapping[str, int] | None = None,
) -> ObjectTable:
    """Measure each numbered object.

    Parameters
    ----------
    labels
        HxW or ZxHxW, 0 outside the objects.
    intensity
        The image in the same shape, with one more axis at the end for colours; alpha, the last
        of two or four, is left out.
    spacing
        Size of a pixel along each axis, in `unit`; 1 if None.
    origin
        Position of the first pixel's centre, in `unit`; 0 if None.
    unit
        Name of the unit of length.
    where
        More columns that are the same for all objects, such as the plane: after ``label``.

    Returns
    -------
    ObjectTable
        ``label``, what `where` says, ``pixels`` (or ``voxels``), ``area`` (or ``volume``),
        the centroid, the bounding box in pixels (the last one included),
        ``equivalent_diameter``, ``major_axis``; in 2D also ``minor_axis``, ``eccentricity``
        and ``solidity``; with `intensity` its mean, minimum and maximum.

    Raises
    ------
    InputError
        If intensity or spacing do not fit the labels.
    """
    from skimage.measure import regionprops_table

    labels = np.asarray(labels)
    sizes = checked_spacing(spacing, labels.ndim)
    if intensity is not None and intensity.shape[: labels.ndim] != labels.shape:
        raise InputError(
            f"The image is {intensity.shape} and the objects are {labels.shape}; they must cover "
            "the same pixels."
        )
    if intensity is not None and intensity.ndim > labels.ndim:
        intensity = without_alpha(intensity)
    names = _PROPERTIES[labels.ndim] + (_INTENSITIES if intensity is not None else ())
    if not labels.any():
        labels, empty = _one_object(labels), True
    else:
        empty = False
    found = regionprops_table(labels, intensity, properties=names, spacing=sizes)
    if empty:
        found = {name: values[:0] for name, values in found.items()}
    if origin is None:
        origin = (0.0,) * labels.ndim
    columns = _columns(found, labels.ndim, origin, where or {})
    return ObjectTable(columns, _units(columns, labels.ndim, unit))


class ObjectSums:
    """Measures objects that come in pieces: planes or blocks of a labelled volume.

    Parameters
    ----------
    axes
        ``"zyx"`` or ``"yx"``.
    """

    def __init__(self, axes: str) -> None:
        self._axes = axes
        self._voxels = np.zeros(1, np.int64)
        self._sums = np.zeros((1, len(axes)))
        self._first = np.full((1, len(axes)), np.iinfo(np.int64).max)
        self._last = np.full((1, len(axes)), -1)
        self._frame = np.zeros(1, np.int64)
        self._grey = np.zeros(1)
        self._extremes = np.array([[np.inf, -np.inf]])
        self._measured = False

    def add(
        self,
        labels: NDArray[Any],
        corner: Sequence[int],
        intensity: NDArray[Any] | None = None,
        *,
        frame: int = 0,
    ) -> None:
        """Add a piece, HxW.

        Parameters
        ----------
        labels
            0 outside of objects.
        corner
            Position of the first pixel, one number for each axis.
        intensity
            Grey values, HxW; of colours (HxWxC) the mean counts, without alpha.
        frame
            Time point.
        """
        rows, columns = np.nonzero(labels)
        if not len(rows):
            return
        present, where = np.unique(labels[rows, columns], return_inverse=True)
        self._grow(int(present[-1]) + 1)
        counts = np.bincount(where)
        self._voxels[present] += counts
        self._frame[present] = frame
        at = [rows + corner[-2], columns + corner[-1]]
        if len(self._axes) == 3:
            at.insert(0, np.full(len(rows), corner[0]))
        for axis, position in enumerate(at):
            self._sums[present, axis] += np.bincount(where, position)
            np.minimum.at(self._first[:, axis], present[where], position)
            np.maximum.at(self._last[:, axis], present[where], position)
        if intensity is not None:
            grey = without_alpha(intensity).mean(-1) if intensity.ndim == 3 else intensity
            values = np.asarray(grey[rows, columns], np.float64)
            self._measured = True
            self._grey[present] += np.bincount(where, values)
            np.minimum.at(self._extremes[:, 0], present[where], values)
            np.maximum.at(self._extremes[:, 1], present[where], values)

    def _grow(self, count: int) -> None:
        more = count - len(self._voxels)
        if more <= 0:
            return
        # Twice the room, so that objects that come one by one do not cost their square.
        more = max(more, len(self._voxels))

        def longer(values: NDArray[Any], fill: object) -> NDArray[Any]:
            return np.concatenate([values, np.full((more, *values.shape[1:]), fill, values.dtype)])

        self._voxels, self._frame = longer(self._voxels, 0), longer(self._frame, 0)
        self._sums, self._grey = longer(self._sums, 0), longer(self._grey, 0)
        self._first = longer(self._first, np.iinfo(np.int64).max)
        self._last = longer(self._last, -1)
        self._extremes = longer(self._extremes, [np.inf, -np.inf])

    def table(
        self, *, spacing: Sequence[float] | None = None, unit: str = "pixel", frames: bool = False
    ) -> ObjectTable:
        """The table so far, with the columns of `measure_objects` that pieces can tell.

        Parameters
        ----------
        spacing
            Size of a pixel along each axis, in `unit`; 1 if None.
        frames
            Whether to name the time point of each object, as ``t``.
        """
        axes = len(self._axes)
        sizes = np.array(checked_spacing(spacing, axes))
        present = np.flatnonzero(self._voxels)
        voxels = self._voxels[present]
        volume = voxels * sizes.prod()
        centres = self._sums[present] / voxels[:, None] * sizes
        columns: dict[str, Column] = {"label": present}
        if frames:
            columns["t"] = self._frame[present]
        columns["pixels" if axes == 2 else "voxels"] = voxels
        columns["area" if axes == 2 else "volume"] = volume
        columns |= {f"centroid_{letter}": centres[:, n] for n, letter in enumerate(self._axes)}
        for number, letter in enumerate(self._axes):
            columns[f"first_{letter}"] = self._first[present, number]
            columns[f"last_{letter}"] = self._last[present, number]
        ball = np.pi / 4 if axes == 2 else np.pi / 6
        columns["equivalent_diameter"] = (volume / ball) ** (1 / axes)
        if self._measured:
            columns["intensity_mean"] = self._grey[present] / voxels
            columns["intensity_min"] = self._extremes[present, 0]
            columns["intensity_max"] = self._extremes[present, 1]
        return ObjectTable(columns, _units(columns, axes, unit))


_SHAPE = (
    "label", "num_pixels", "area", "centroid", "bbox", "equivalent_diameter_area",
    "axis_major_length",
)  # fmt: skip
_PROPERTIES = {
    # The others are defined in the plane alone, or slow and unstable on flat objects in 3D.
    2: (*_SHAPE, "axis_minor_length", "eccentricity", "solidity"),
    3: _SHAPE,
}
_INTENSITIES = ("intensity_mean", "intensity_min", "intensity_max")


def _one_object(labels: NDArray[Any]) -> NDArray[Any]:
    """Something to measure, so that an image without objects has the same columns."""
    one = np.zeros(labels.shape, np.int32)
    one.flat[0] = 1
    return one


def _columns(
    found: dict[str, Column], axes: int, origin: Sequence[float], where: Mapping[str, int]
) -> dict[str, Column]:
    letters = "zyx"[-axes:]
    count = len(found["label"])
    columns: dict[str, Column] = {"label": found["label"]}
    columns |= {name: np.full(count, value) for name, value in where.items()}
    columns["pixels" if axes == 2 else "voxels"] = found["num_pixels"].astype(np.int64)
    columns["area" if axes == 2 else "volume"] = found["area"]
    for number, letter in enumerate(letters):
        columns[f"centroid_{letter}"] = found[f"centroid-{number}"] + origin[number]
    for number, letter in enumerate(letters):
        columns[f"first_{letter}"] = found[f"bbox-{number}"]
        columns[f"last_{letter}"] = found[f"bbox-{number + axes}"] - 1
    columns["equivalent_diameter"] = found["equivalent_diameter_area"]
    columns["major_axis"] = found["axis_major_length"]
    if axes == 2:
        columns["minor_axis"] = found["axis_minor_length"]
        columns["eccentricity"] = found["eccentricity"]
        columns["solidity"] = found["solidity"]
    for name, values in found.items():
        if name.startswith("intensity_"):
            columns[name.replace("-", "_")] = values
    return columns


def _units(columns: Mapping[str, Column], axes: int, unit: str) -> dict[str, str]:
    units = {
        name: unit
        for name in columns
        if name.startswith("centroid_") or name.endswith(("_axis", "_diameter"))
    }
    units["area" if axes == 2 else "volume"] = unit + ("²" if axes == 2 else "³")
    units |= {n: "pixel" for n in columns if n.startswith(("first_", "last_"))}
    return units
