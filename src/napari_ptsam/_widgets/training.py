"""What a training does in the background: load, train, look at the plane in view."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_ptsam._widgets.preview import PlaneInView, Previews
from napari_ptsam.errors import OutOfMemoryError, TrainingError

if TYPE_CHECKING:
    from napari_ptsam.backbones import Backbone
    from napari_ptsam.clicking.plan import ClickStep
    from napari_ptsam.embeddings import Embeddings
    from napari_ptsam.estimates import Estimate, Speeds
    from napari_ptsam.specialist import Specialist, TrainStep

SHOWN_EVERY = 0.25
"""Seconds between two messages to the window, at least: each has it drawn anew."""

LOOKED_AT = 4
"""Annotated planes that an estimate looks at to find the working scale."""

ENCODER_PROMPTS = 8
"""In each block, where the encoder has prompts."""

Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Request:
    """What the user asked to be trained.

    Attributes
    ----------
    examples
        From `Annotations.examples_input`.
    backbone, device, encoder_prompts, preset, seed, class_name
        As in `Specialist.train_steps`.
    start_from
        The specialist to go on from, None to start anew; its method is used again.
    method, method_settings
        As in `Specialist.train_steps`.
    """

    examples: Mapping[str, Any]
    backbone: str = "embedded"
    device: str = "auto"
    encoder_prompts: bool = False
    preset: str = "quick"
    seed: int = 0
    class_name: str = "object"
    start_from: Specialist | None = None
    method: str = "ptsam"
    method_settings: Mapping[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Keyword arguments for `Specialist.train_steps`, but for the backbone."""
        named = ["preset", "seed", "class_name", "start_from"]
        if self.start_from is None:
            named += ["encoder_prompts", "method"]
            named += ["method_settings"] if self.method_settings else []
        return {**self.examples, **{name: getattr(self, name) for name in named}}

    def trained(self) -> tuple[str, dict[str, Any]]:
        """Name and settings of the method."""
        if self.start_from is not None:
            return self.start_from.method.name, self.start_from.method.settings_dict
        if self.encoder_prompts:
            return self.method, {"encoder_prompts": ENCODER_PROMPTS}
        return self.method, dict(self.method_settings)


@dataclass(frozen=True)
class Progress:
    """What happened since the last one.

    Attributes
    ----------
    phase, step, steps
        As in `TrainStep`; the phase ``load`` comes before.
    losses, dice
        Points of the curve: number of the step, counted through all phases, and value 0..1;
        Dice, or what else held-out images are scored by.
    preview
        What the specialist of this moment says, if it was asked: of the plane in view a
        `PreviewedPlane`, or what a click gives.
    note
        Something to tell the user.
    """

    phase: str
    step: int = 0
    steps: int = 0
    losses: Points = ()
    dice: Points = ()
    preview: Any = None
    note: str = ""


@dataclass(frozen=True)
class Expected:
    """What a training would cost, or the size of the download that it needs first.

    Attributes
    ----------
    learned
        How many numbers are learned.
    """

    estimate: Estimate | None
    download: int | None = None
    device: str = "cpu"
    learned: int | None = None


@dataclass
class Gathered:
    """Steps of a training that were not shown yet."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    dice: list[tuple[int, float]] = field(default_factory=list)
    before: int = 0
    last: int = 0
    shown_at: float = 0.0

    def add(self, step: TrainStep | ClickStep, score: float | None) -> None:
        """A step was taken; `score` if held-out images were looked at."""
        if step.phase == "embed":
            # The next phase counts on from where this one ended.
            self.before = self.last
            return
        self.last = self.before + step.step
        self.losses.append((self.last, step.loss))
        if score is not None:
            self.dice.append((self.last, score))

    def due(self) -> bool:
        """Whether it is time to show them."""
        return time.perf_counter() - self.shown_at >= SHOWN_EVERY

    def progress(self, step: TrainStep | ClickStep, preview: Any) -> Progress:
        """What to show now."""
        losses, dice = tuple(self.losses), tuple(self.dice)
        self.losses, self.dice = [], []
        self.shown_at = time.perf_counter()
        return Progress(step.phase, step.step, step.steps, losses, dice, preview)


class Engine:
    """What trainings in one window share: the backbone in use, embeddings, timings.

    Its methods are called in background threads.

    Attributes
    ----------
    downloaded
        Bytes of a running download, and how many there will be; None while there is none.
    """

    def __init__(self) -> None:
        self.downloaded: tuple[int, int | None] | None = None
        self._lock = threading.Lock()
        self._backbone: tuple[tuple[str, str], Backbone] | None = None
        self._embeddings: Embeddings | None = None
        self._speeds: Speeds | None = None
        self._known: dict[str, int] = {}

    @property
    def embeddings(self) -> Embeddings:
        """Embeddings of all trainings so far; on disk those of earlier ones, too."""
        from napari_ptsam.cache import DiskCache
        from napari_ptsam.embeddings import Embeddings

        if self._embeddings is None:
            self._embeddings = Embeddings(disk=DiskCache(writes=True))
        return self._embeddings

    def backbone(
        self, name: str, device: str, should_stop: Callable[[], bool] = lambda: False
    ) -> Backbone:
        """A backbone; the last one is kept."""
        from napari_ptsam.backbones import load_backbone
        from napari_ptsam.devices import choose_device

        def note(done: int, total: int | None) -> None:
            if should_stop():
                raise TrainingError("The download was stopped; it goes on from here next time.")
            self.downloaded = done, total

        with self._lock:
            key = (name, str(choose_device(device)))
            if self._backbone is None or self._backbone[0] != key:
                # The old one first: two may not fit.
                self._backbone = None
                try:
                    self._backbone = key, load_backbone(name, choose_device(device), note)
                finally:
                    self.downloaded = None
            return self._backbone[1]

    def expected(self, request: Request) -> Expected:
        """What a training would cost; measures the backbone the first time."""
        from napari_ptsam.backbones import BackboneSpec, find
        from napari_ptsam.backbones.download import local_file
        from napari_ptsam.devices import choose_device
        from napari_ptsam.estimates import Speeds, estimate_training
        from napari_ptsam.training.presets import continued, training_plan

        device, start = str(choose_device(request.device)), request.start_from
        spec = find(request.backbone)
        if start is None and isinstance(spec, BackboneSpec) and not local_file(spec).is_file():
            return Expected(None, spec.size_bytes or 0, device)
        if start is None:
            backbone = self.backbone(request.backbone, request.device)
        else:
            backbone = start.backbone
        with self._lock:
            self._speeds = self._speeds or Speeds()
            speed = self._speeds.of(backbone, *request.trained())
        plan = training_plan(request.preset, encoder_prompts=not speed.kept, seed=request.seed)
        images = len(request.examples["planes"])
        estimate = estimate_training(
            speed,
            plan if start is None else continued(plan),
            images,
            tiles=_tiles(request, backbone),
            known=min(images, self._known.get(backbone.identity, 0)),
            search=start is None and backbone.task_encoder is not None,
        )
        return Expected(estimate, None, backbone.device.type, speed.learned)

    def note_trained(self, backbone: Backbone, images: int) -> None:
        """Say that the embeddings of so many images are there."""
        self._known[backbone.identity] = images

    def clear(self) -> None:
        """Give all memory back."""
        self._backbone = self._embeddings = None
        self._known.clear()
        release_device_memory()


def release_device_memory() -> None:
    """Hand what torch keeps for later use back to the graphics card."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _tiles(request: Request, backbone: Backbone) -> int:
    """In how many tiles a plane is cut."""
    from napari_ptsam.examples import load_examples
    from napari_ptsam.normalize import Normalization
    from napari_ptsam.tiling import tile_count
    from napari_ptsam.training.scale import working_scale

    given = request.examples
    options = {k: given[k] for k in ("planes", "label", "ignore_label")}
    examples, _ = load_examples(
        given["images"], given["masks"], limit=LOOKED_AT, normalization=Normalization(), **options
    )
    start = request.start_from
    scaling = start.scaling if start else working_scale("auto", examples, backbone)
    return tile_count(examples[0].mask.shape, scaling, backbone.input_size)


def run_training(
    request: Request, engine: Engine, plane: PlaneInView, stop: threading.Event
) -> Generator[Progress, None, Specialist | None]:
    """Train as asked; once `stop` is set, end with the best so far.

    Where the memory does not suffice, it is tried once more with one image in each step.

    Returns
    -------
    Specialist or None
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
    window = plane, stop
    try:
        backbone = request.start_from.backbone if request.start_from else None
        backbone = backbone or engine.backbone(request.backbone, request.device, stop.is_set)
        try:
            specialist = yield from _trained(request, backbone, engine, window)
        except OutOfMemoryError:
            release_device_memory()
            yield Progress("load", note="The memory was full: trying with one image at a time.")
            small = replace(request, examples={**request.examples, "batch_size": 1})
            specialist = yield from _trained(small, backbone, engine, window)
    except TrainingError:
        if stop.is_set():
            return None
        raise
    finally:
        release_device_memory()
    engine.note_trained(backbone, int(specialist.metadata.training["images"]))
    return specialist


def _trained(
    request: Request,
    backbone: Backbone,
    engine: Engine,
    window: tuple[PlaneInView, threading.Event],
) -> Generator[Progress, None, Specialist]:
    from napari_ptsam.specialist import Specialist

    plane, stop = window
    looks, gathered = Previews(request.examples["images"], plane), Gathered()
    steps = Specialist.train_steps(
        backbone=backbone,
        embeddings=engine.embeddings,
        should_stop=stop.is_set,
        **request.options(),
    )
    with closing(steps):
        step: TrainStep | None = None
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                specialist: Specialist = end.value
                break
            gathered.add(step, step.held_out_dice)
            preview = looks.due(step.preview)
            if preview is not None or gathered.due():
                yield gathered.progress(step, preview)
    if step is not None:
        # Its preview now has the numbers that are kept.
        yield gathered.progress(step, looks.now(step.preview))
    return specialist
