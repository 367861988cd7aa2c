"""Probabilities of planes, kept small and exact for the thresholds that can be chosen."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.writing import in_words

KEPT_IN_MEMORY = 2**30
"""Bytes of kept probabilities from which on further planes go to a temporary folder."""

_GRID = tuple(percent / 100 for percent in range(1, 100))


class KeptProbabilities:
    """Probabilities of planes in one byte each, for all thresholds that can be chosen.

    What is kept is how many of `levels` a probability reaches. So the mask at any of these
    thresholds is exactly that of the full probability, which rounding could not promise.

    Parameters
    ----------
    count
        Number of planes of the layer.
    own_threshold
        The specialist's, one of the thresholds that can be chosen.
    limit
        Bytes to keep in memory; what is beyond goes to a temporary folder.

    Attributes
    ----------
    levels
        The thresholds that can be chosen, ascending.
    """

    def __init__(self, count: int, own_threshold: float, limit: int = KEPT_IN_MEMORY) -> None:
        self.levels = tuple(sorted({*_GRID, own_threshold}))
        self._steps = np.asarray(self.levels, np.float32)
        self._count = count
        self._limit = limit
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._disk: Any = None
        self._on_disk: set[int] = set()

    def __contains__(self, index: int) -> bool:
        return index in self._memory or index in self._on_disk

    def put(self, index: int, probability: NDArray[np.float32]) -> None:
        """Keep the probability of a plane, HxW float32.

        Raises
        ------
        InputError
            If the temporary folder does not take it.
        """
        reached = np.searchsorted(self._steps, probability, side="right").astype(np.uint8)
        used = sum(plane.nbytes for number, plane in self._memory.items() if number != index)
        if used + reached.nbytes <= self._limit:
            self._memory[index] = reached
            return
        self._memory.pop(index, None)
        with in_words(Path(tempfile.gettempdir())):
            if self._disk is None:
                self._disk = self._temporary(reached.shape)
            self._disk[index] = reached
        self._on_disk.add(index)

    def forget(self, index: int) -> None:
        """Keep a plane no longer."""
        self._memory.pop(index, None)
        self._on_disk.discard(index)

    def mask(self, index: int, threshold: float) -> NDArray[np.bool_]:
        """Where the probability of a kept plane reaches a threshold, HxW.

        Raises
        ------
        InputError
            If the plane was not kept, or the threshold is none of `levels`.
        """
        if index not in self or threshold not in self.levels:
            raise InputError(
                f"Plane {index} at a threshold of {threshold} cannot be shown: it has to be "
                "segmented first, and thresholds are whole percents."
            )
        kept = self._memory.get(index)
        reached = self._disk[index] if kept is None else kept
        return np.asarray(reached > self.levels.index(threshold))

    def _temporary(self, plane: tuple[int, ...]) -> Any:
        import zarr

        folder = tempfile.mkdtemp(prefix="napari-ptsam-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return zarr.create_array(
            folder, shape=(self._count, *plane), chunks=(1, *plane), dtype=np.uint8
        )
