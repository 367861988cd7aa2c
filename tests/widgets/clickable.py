"""A model that answers clicks at once and without learning: bright regions are objects."""

from __future__ import annotations

import threading
from dataclasses import astuple
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.clicking import Box, Click, ClickPrompt
from napari_ptsam.errors import InputError


class BrightRegions:
    """Stands in for a `Clicker`.

    Attributes
    ----------
    embedded, asked
        What it was given, in order.
    gate
        Embedding waits for it; set at first.
    """

    def __init__(self) -> None:
        self.embedded: list[NDArray[Any]] = []
        self.asked: list[ClickPrompt] = []
        self.gate, self.answers = threading.Event(), threading.Event()
        self.gate.set()
        self.answers.set()
        self.is_specialist = True
        self.metadata = SimpleNamespace(training={}, class_name="disc")
        self.backbone = None

    def embed(self, plane: NDArray[Any]) -> Any:
        self.gate.wait(10)
        if plane.max() == plane.min():
            raise InputError("This plane is blank.")
        self.embedded.append(plane)
        grey = plane if plane.ndim == 2 else plane.mean(-1)
        return SimpleNamespace(grey=grey, shape=grey.shape, is_ready=lambda _: True)

    def answer(self, embedded: Any, prompt: ClickPrompt) -> Any:
        self.answers.wait(10)
        self.asked.append(prompt)
        regions, _ = ndimage.label(embedded.grey > 100)
        mask = np.zeros(embedded.shape, bool)
        for click in prompt.clicks:
            number = regions[round(click.y), round(click.x)]
            if number:
                mask[regions == number] = click.positive
        if prompt.box is not None:
            top, left, bottom, right = map(round, astuple(prompt.box))
            inside = np.zeros_like(mask)
            inside[top : bottom + 1, left : right + 1] = True
            mask |= inside & (regions > 0)
        whole = slice(0, mask.shape[0]), slice(0, mask.shape[1])
        return SimpleNamespace(
            mask=mask, probability=mask.astype(np.float32), score=0.9, seconds=0.0, region=whole
        )

    def follow(self, embedded: Any, mask: NDArray[np.bool_]) -> Any:
        y, x = ndimage.center_of_mass(mask)
        answer = self.answer(embedded, ClickPrompt((Click(y, x),), Box.around(mask)))
        return answer if (answer.mask & mask).any() else None
