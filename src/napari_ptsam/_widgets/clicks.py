"""The dock in which one clicks on objects: click, go through the stack, train."""

from __future__ import annotations

from types import MappingProxyType

from napari_ptsam._widgets.clicks_state import ClickState
from napari_ptsam._widgets.dock import StepsDock


class ClickDock(StepsDock):
    """Click on objects, carry them to neighbouring planes, train a click specialist."""

    STEPS = MappingProxyType(
        {
            "click": ("Click", "clicks_section:ClickSection"),
            "neighbours": ("Neighbouring planes", "clicks_neighbours:NeighboursSection"),
            "train": ("Train a click specialist", "clicks_train:ClickTrainSection"),
        }
    )
    STATE = ClickState
    state: ClickState
