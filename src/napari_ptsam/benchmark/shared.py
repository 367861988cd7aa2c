"""What the cells of a run share, and the clock that keeps it out of their costs."""

from __future__ import annotations

import os
import statistics
import time

import torch

from napari_ptsam.backbones import Backbone
from napari_ptsam.embeddings import Embeddings

KEPT_BYTES = 3 * 2**29
"""Of main memory for embeddings; what no cell has asked for lately makes room."""

TRIALS = 5


def clock(device: torch.device) -> float:
    """Seconds from some point on, for differences.

    On the CPU those that processors worked for this process, and for the ones that it started
    and waited for: other work on the machine does not count. On a GPU the time of day.
    """
    if device.type != "cpu":
        return time.perf_counter()
    return time.process_time() + sum(os.times()[2:4])


class SharedEmbeddings(Embeddings):
    """Embeddings of the frozen encoder, found again by later cells that see the same views.

    Methods that leave the encoder alone are shown the same training views and test images.
    What they find is added to their costs as if they had encoded it.

    Parameters
    ----------
    backbone
        The study's.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(KEPT_BYTES)
        self._each = _seconds_to_encode(backbone)

    @property
    def seconds_saved(self) -> float:
        """Seconds of `clock` that encoding what was found would have taken, since the start."""
        return self.recalled * self._each


def _seconds_to_encode(backbone: Backbone) -> float:
    """For one view; the median of some trials."""
    size, spent = backbone.input_size, []
    image = torch.zeros(1, 3, size, size, device=backbone.device)
    with torch.inference_mode():
        for _ in range(TRIALS):
            started = clock(backbone.device)
            levels = backbone.encode(image)
            float(levels[0].sum())  # waits for a GPU
            spent.append(clock(backbone.device) - started)
    return statistics.median(spent)
