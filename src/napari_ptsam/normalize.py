"""Percentile normalisation of any image to the 0..255 colours that a SAM expects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.planes import Planes

# Half a million values put a percentile within a fraction of a grey level.
_SAMPLE_PIXELS = 1 << 18
_SAMPLE_PLANES = 16


@dataclass(frozen=True)
class Normalization:
    """How grey values become 0..255.

    Attributes
    ----------
    low, high
        Percentiles, between 0 and 100, that become 0 and 255. All channels of a colour
        image share them, so that colours stay.
    per
        Whether they are measured on each image, or once on the whole stack (which keeps
        the differences in brightness between its planes).
    range
        The two grey values, when they were measured on a stack.
    """

    low: float = 0.5
    high: float = 99.5
    per: Literal["image", "stack"] = "image"
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise InputError(
                f"The percentiles {self.low} and {self.high} cannot be used for normalisation. "
                "Give two numbers from 0 to 100, the lower one first; 0.5 and 99.5 suit most "
                "images."
            )
        if self.per not in ("image", "stack"):
            raise InputError(
                f"Normalisation per {self.per!r} does not exist. Valid are 'image' and 'stack'."
            )
        if self.range is not None and not (
            all(math.isfinite(value) for value in self.range) and self.range[0] <= self.range[1]
        ):
            raise InputError(
                f"The grey values {self.range} cannot be used for normalisation. Give two finite "
                "numbers, the lower one first."
            )

    def fitted(self, planes: Planes, indices: Sequence[int]) -> Normalization:
        """Measure the range of a stack on a sample of its planes.

        Parameters
        ----------
        planes
            The images.
        indices
            Which of them to measure; at most 16 evenly spaced ones are read.

        Returns
        -------
        A normalisation with `range`; itself if it works per image or has a range already.
        """
        if self.per == "image" or self.range is not None:
            return self
        if not indices:
            raise InputError(f"No plane of {planes.name} was given to measure grey values on.")
        count = min(len(indices), _SAMPLE_PLANES)
        chosen = np.linspace(0, len(indices) - 1, count).round().astype(int)

        def pixels() -> Iterator[NDArray[Any]]:
            return (_colours(planes.read(indices[number])) for number in chosen)

        samples = [_finite_sample(plane, _SAMPLE_PIXELS // count).ravel() for plane in pixels()]
        return replace(self, range=self._limits(np.concatenate(samples), pixels))

    def measured(self, planes: Planes, index: int, side: int = 4096) -> Normalization:
        """A normalisation with the grey values of one plane, which is read window by window.

        Parameters
        ----------
        planes, index
            The plane; `apply` would measure the same on the whole of it.
        side
            Height and width of the windows, at most.

        Returns
        -------
        A normalisation with `range`, to apply to any part of the plane; itself if it has one.
        """
        if self.range is not None:
            return self
        height, width = planes.shape_of(index)
        step = _sample_step(height * width, _SAMPLE_PIXELS)

        def windows() -> Iterator[tuple[int, int, NDArray[Any]]]:
            for top in range(0, height, side):
                for left in range(0, width, side):
                    rows = slice(top, min(top + side, height))
                    columns = slice(left, min(left + side, width))
                    yield top, left, _colours(planes.read_window(index, rows, columns))

        # The grid goes on where the window before ended. Copies, as views would keep all windows.
        parts = [
            pixels[-top % step :: step, -left % step :: step].copy()
            for top, left, pixels in windows()
        ]
        sample = np.concatenate([_finite(part).ravel() for part in parts])
        limits = self._limits(sample, lambda: (pixels for _, _, pixels in windows()))
        return replace(self, per="stack", range=limits)

    def apply(self, plane: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise one plane.

        Parameters
        ----------
        plane
            HxW or HxWxC of any real type; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
            Alpha is dropped.

        Returns
        -------
        HxWx3 float32, 0..255. NaN becomes 0, infinities 0 and 255, a constant image 0.

        Raises
        ------
        InputError
            If the plane has other channels, or the range of the stack was not measured.
        """
        pixels = _colours(plane)
        if self.per == "image":
            low, high = self._limits(_finite_sample(pixels, _SAMPLE_PIXELS), lambda: [pixels])
        elif self.range is None:
            raise InputError(
                "Normalisation per stack needs the grey values of the stack: call 'fitted' with "
                "its planes first, or normalise per image."
            )
        else:
            low, high = self.range
        grey = _stretch(_real(pixels), low, high)
        return grey if grey.shape[2] == 3 else grey.repeat(3, axis=2)

    def _limits(
        self, sample: NDArray[Any], whole: Callable[[], Iterable[NDArray[Any]]]
    ) -> tuple[float, float]:
        """The two grey values, from a sample; `whole` gives all pixels, piece by piece."""
        if sample.size == 0:
            return 0.0, 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = _percentiles(sample, self.low, self.high)
        if low < high:
            return low, high
        # A few bright spots on an even ground lie beyond the percentiles, and must not vanish.
        pieces = (_finite(pixels) for pixels in whole())
        ends = [(float(piece.min()), float(piece.max())) for piece in pieces if piece.size]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as plain values, for a text file."""
        return {**asdict(self), "range": None if self.range is None else list(self.range)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Normalization:
        """Read what `to_dict` gave.

        Raises
        ------
        InputError
            If a setting is unknown, or has a value that cannot be used.
        """
        unknown = sorted(set(settings) - {"low", "high", "per", "range"})
        if unknown:
            raise InputError(
                f"Unknown settings of the normalisation: {', '.join(unknown)}. Valid are low, "
                "high, per and range."
            )
        try:
            values = dict(settings)
            for name in values.keys() & {"low", "high"}:
                values[name] = float(values[name])
            if values.get("range") is not None:
                low, high = values["range"]
                values["range"] = (float(low), float(high))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The normalisation {dict(settings)} cannot be used: low and high are numbers, "
                "range is two numbers or empty."
            ) from error
        return cls(**values)


def _colours(plane: NDArray[Any]) -> NDArray[Any]:
    """The colours as HxWx1 or HxWx3, without alpha."""
    pixels = plane[..., np.newaxis] if plane.ndim == 2 else plane
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise InputError(
            f"An image of shape {plane.shape} cannot be shown to the model. Valid are HxW, and "
            "HxWxC with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels."
        )
    return without_alpha(pixels)


def without_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    """Colours (...xC) without alpha, which is the last of two or four."""
    return pixels[..., :-1] if pixels.shape[-1] in (2, 4) else pixels


def _real(pixels: NDArray[Any]) -> NDArray[Any]:
    """The same in float32, or float64 where that would round values."""
    exact = np.result_type(pixels.dtype, np.float32)
    return pixels.astype(np.float64 if exact.itemsize > 4 else np.float32)


def _percentiles(sample: NDArray[Any], *percent: float) -> tuple[float, ...]:
    if sample.dtype not in (np.uint8, np.uint16):
        return tuple(float(value) for value in np.percentile(_real(sample), percent))
    # Counting grey values is five times as fast as sorting them.
    below = np.bincount(sample.ravel()).cumsum()
    found = []
    for share in percent:
        place = (sample.size - 1) * share / 100
        first = int(place)
        low, high = np.searchsorted(below, (first, min(first + 1, sample.size - 1)), side="right")
        found.append(float(low + (high - low) * (place - first)))
    return tuple(found)


def _finite_sample(pixels: NDArray[Any], most: int) -> NDArray[Any]:
    """Draw finite values from an even grid of about `most` pixels."""
    step = _sample_step(pixels[..., 0].size, most)
    return _finite(pixels[::step, ::step])


def _finite(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.dtype.kind in "biu" else pixels[np.isfinite(pixels)]


def _sample_step(pixels: int, most: int) -> int:
    return max(1, math.ceil(math.sqrt(pixels / most)))


def _stretch(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    if not low < high:
        return np.zeros(pixels.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (pixels - low) / (high - low) * 255
    np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0)
    return scaled.clip(0, 255).astype(np.float32, copy=False)
