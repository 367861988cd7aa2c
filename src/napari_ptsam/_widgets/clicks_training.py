"""What the training of a click specialist does in the background."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ptsam._widgets.preview import PlaneInView, Previews
from napari_ptsam._widgets.training import (
    Engine,
    Gathered,
    Progress,
    release_device_memory,
)
from napari_ptsam.errors import OutOfMemoryError, TrainingError

if TYPE_CHECKING:
    from napari_ptsam.backbones import Backbone
    from napari_ptsam.clicking import ClickAnswer, Clicker, ClickPrompt, EmbeddedPlane
    from napari_ptsam.clicking.plan import ClickStep
    from napari_ptsam.planes import Planes

SMALL_BATCH = 2
"""Objects in a step where the memory did not suffice for more."""


@dataclass(frozen=True)
class ClickRequest:
    """What the user asked to be trained.

    Attributes
    ----------
    examples
        From `Annotations.examples_input`.
    backbone
        Its name, or itself.
    steps, seed, class_name
        As in `click_plan` and `train_clicks`.
    """

    examples: Mapping[str, Any]
    backbone: str | Backbone = "embedded"
    steps: int = 60
    seed: int = 0
    class_name: str = "object"


@dataclass
class Pointer(PlaneInView):
    """Where a click is asked for: set by the window, read by the training."""

    prompt: ClickPrompt | None = None

    def point(self, index: int, prompt: ClickPrompt) -> None:
        """The cursor is here."""
        self.index, self.prompt = index, prompt


@dataclass(frozen=True)
class ClickPreview:
    """What a click at the cursor gives at this moment."""

    index: int
    answer: ClickAnswer


class ClickPreviews(Previews):
    """Asks the specialist of this moment what a click at the cursor gives, every now and then.

    Used in the training's thread.

    Parameters
    ----------
    planes
        Of the image that is learned from.
    pointer
        Where the cursor is.
    """

    def __init__(self, planes: Planes, pointer: Pointer) -> None:
        super().__init__(planes, pointer)
        self._pointer = pointer
        self._embedded: tuple[int, EmbeddedPlane] | None = None

    def _seen(self, look: ClickStep, index: int) -> ClickPreview | None:
        prompt = self._pointer.prompt
        if prompt is None or look.preview is None or look.embed is None:
            return None
        if self._embedded is None or self._embedded[0] != index:
            self._embedded = index, look.embed(self._plane(index))
        return ClickPreview(index, look.preview(self._embedded[1], prompt))


def train_clicker(
    request: ClickRequest, engine: Engine, pointer: Pointer, stop: threading.Event
) -> Generator[Progress, None, Clicker | None]:
    """Train as asked; once `stop` is set, end with the best so far.

    Where the memory does not suffice, it is tried once more with few objects in each step.

    Returns
    -------
    Clicker or None
        None if it was stopped before anything was learned.

    Yields
    ------
    Progress
        At most some four a second.

    Raises
    ------
    PtsamError
        In words.
    """
    yield Progress("load")
    backbone = request.backbone
    try:
        if isinstance(backbone, str):
            backbone = engine.backbone(backbone, "auto", stop.is_set)
        try:
            clicker = yield from _trained(request, backbone, engine, (pointer, stop), {})
        except OutOfMemoryError:
            release_device_memory()
            yield Progress("load", note="The memory was full: trying with few objects at a time.")
            small = {"batch_size": SMALL_BATCH}
            clicker = yield from _trained(request, backbone, engine, (pointer, stop), small)
    except TrainingError:
        if stop.is_set():
            return None
        raise
    finally:
        release_device_memory()
    clicker.embeddings = engine.embeddings
    return clicker


def _trained(
    request: ClickRequest,
    backbone: Backbone,
    engine: Engine,
    window: tuple[Pointer, threading.Event],
    changes: Mapping[str, Any],
) -> Generator[Progress, None, Clicker]:
    from napari_ptsam.clicking.training import click_plan, train_clicks

    pointer, stop = window
    given = request.examples
    looks, gathered = ClickPreviews(given["images"], pointer), Gathered()
    steps = train_clicks(
        **{name: given[name] for name in ("images", "masks", "planes", "channel")},
        plan=click_plan(steps=request.steps, seed=request.seed, **changes),
        backbone=backbone,
        class_name=request.class_name,
        embeddings=engine.embeddings,
        should_stop=stop.is_set,
    )
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                clicker: Clicker = end.value
                return clicker
            gathered.add(step, step.held_out_iou)
            preview = looks.due(step) if step.ready else None
            if preview is not None or gathered.due():
                yield gathered.progress(step, preview)
