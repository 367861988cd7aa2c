"""What a training will cost on this machine, told before it starts.

Encoder and decoder are timed once for each backbone and device; the rest is arithmetic on the
training plan.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.backbones import Backbone, Embedding
from napari_ptsam.backbones.backbone import resize_logits
from napari_ptsam.devices import computing
from napari_ptsam.methods import Method, build_method
from napari_ptsam.predict import TILES_AT_ONCE, view_tensors
from napari_ptsam.training.augment import Augmentation, random_view
from napari_ptsam.training.loop import LOSS_SIZE
from napari_ptsam.training.losses import ptsam_loss
from napari_ptsam.training.presets import TrainingPlan
from napari_ptsam.training.scale import FOLDS, TRIED
from napari_ptsam.training.start import RAISED_TILES
from napari_ptsam.views import View

SHORT = 0.3
"""Seconds; what takes less is timed more than once."""

_TIMED_SIDE = 512
"""Side in pixels of the plane that is made up for timing; drawing a view costs little else."""


@dataclass(frozen=True)
class Speed:
    """What the parts of a training take on one device.

    Attributes
    ----------
    view
        Seconds to draw one augmented view.
    encode, decode
        Seconds for one view, without learning.
    step
        Seconds to learn from one view: through the decoder, and through the encoder too where
        it has prompts.
    weights
        Bytes of the backbone.
    kept
        Bytes of a view that is kept.
    working
        Bytes at most in use beside the weights while one view is worked on; None where this
        machine cannot tell.
    task_encoder
        Whether training starts by looking at each image.
    learned
        How many numbers are learned.
    """

    view: float
    encode: float
    decode: float
    step: float
    weights: int
    kept: int
    working: int | None
    task_encoder: bool
    learned: int


@dataclass(frozen=True)
class Estimate:
    """What a training will cost.

    Attributes
    ----------
    seconds
        If it uses all its steps; it ends earlier where it gets no better.
    memory
        Bytes on the device, None where this machine cannot tell.
    """

    seconds: float
    memory: int | None


class Speeds:
    """Measures each backbone once per device and way of training, and remembers it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], Speed] = {}

    def known(
        self, backbone: Backbone, method: str = "ptsam", settings: Mapping[str, Any] | None = None
    ) -> Speed | None:
        """What was measured before, None if nothing was."""
        return self._known.get(_key(backbone, method, settings))

    def of(
        self,
        backbone: Backbone,
        method: str = "ptsam",
        settings: Mapping[str, Any] | None = None,
        *,
        encoder_prompts: bool = False,
    ) -> Speed:
        """The speed of a backbone on its device; measured the first time.

        A few calls of the encoder: under a second for the embedded backbone, some ten for a
        ViT-B on a CPU.

        Parameters
        ----------
        method
            How it is trained, see `napari_ptsam.methods`.
        settings
            Those that are not to be the method's own.
        encoder_prompts
            Short for PTSAM with eight prompts in each encoder block.

        Raises
        ------
        OutOfMemoryError
            If not even one view fits.
        PromptFileError
            If there is no such method, or it has no such settings.
        """
        settings = {"encoder_prompts": 8} if encoder_prompts else dict(settings or {})
        key = _key(backbone, method, settings)
        if key not in self._known:
            self._known[key] = _measure(backbone, build_method(method, settings, backbone))
        return self._known[key]


def _key(backbone: Backbone, method: str, settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    named = json.dumps(settings or {}, sort_keys=True)
    return backbone.identity, str(backbone.device), method, named


def estimate_training(
    speed: Speed,
    plan: TrainingPlan,
    images: int,
    *,
    tiles: int = 1,
    known: int = 0,
    search: bool = False,
) -> Estimate:
    """Cost of a training with kept embeddings.

    Parameters
    ----------
    speed
        Of the backbone, measured for the way of training that is planned.
    plan
        What is planned.
    images
        How many are annotated.
    tiles
        In how many each is cut.
    known
        For how many images the embeddings are there already.
    search
        Whether there is a scale to look for, where the plan wants it; as long as it takes to find
        none that is better.
    """
    held = 0
    if plan.held_out and images >= 3:
        held = min(max(round(images * plan.held_out), 1), images - 1)
    learning, new = images - held, max(images - known, 0) / images
    encodings = 0.0
    if plan.start_from_examples and speed.task_encoder:
        # Of planes of few tiles, the looks for the constant are at what was encoded before.
        again = RAISED_TILES if tiles > RAISED_TILES else 0
        encodings = new * (learning * tiles + images * again)
    if search and plan.search_scale and images >= FOLDS:
        # A tile of each at the first scale, four at the next.
        encodings += 5 * min(images, TRIED)
    views = 0
    if speed.kept and plan.views_per_image is not None:
        drawn = math.ceil(plan.steps * plan.batch_size / learning)
        views = (images if plan.refit else learning) * min(plan.views_per_image, drawn)
        encodings += new * (views + held * tiles)
        each = speed.step
    else:
        each = speed.step + speed.view + (speed.encode if speed.kept else 0)
    look = held * tiles * (speed.decode + (0 if speed.kept else speed.encode))
    steps = plan.steps * (2 if plan.refit and held else 1)
    seconds = encodings * speed.encode + views * speed.view + steps * plan.batch_size * each
    seconds += plan.steps / plan.evaluate_every * look
    memory = None
    if speed.working is not None:
        at_once = max(plan.batch_size, min(tiles, TILES_AT_ONCE))
        memory = speed.weights + at_once * speed.working + views * speed.kept
    return Estimate(seconds, memory)


def _measure(backbone: Backbone, method: Method) -> Speed:
    method.to(backbone.device)
    view, drawing = _drawn_view(backbone)
    images = view_tensors(backbone, [view])
    with computing(backbone.device), _peak_memory(backbone.device) as peak:
        embedding = _encode(method, backbone, images)
        encode = _seconds(lambda: _encode(method, backbone, images), backbone.device)
        # Out of inference mode, as a training step has it.
        kept = tuple(level.clone() for level in embedding)
        decode = _seconds(lambda: _decode(method, backbone, kept), backbone.device)
        step = _seconds(lambda: _learn(method, backbone, images, kept), backbone.device)
    per_view = sum(level.numel() * 2 for level in kept) + view.mask.size // 4
    return Speed(
        view=drawing,
        encode=encode,
        decode=decode,
        step=step,
        weights=sum(p.numel() * p.element_size() for p in backbone.sam.parameters()),
        kept=per_view if method.works_on_embeddings else 0,
        working=peak(),
        task_encoder=method.starts_from_prompts and backbone.task_encoder is not None,
        learned=method.trainable_parameters,
    )


@dataclass(frozen=True)
class _Plane:
    """A made-up plane, half of it object."""

    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    valid: NDArray[np.bool_]

    @classmethod
    def blank(cls) -> _Plane:
        mask = np.zeros((_TIMED_SIDE, _TIMED_SIDE), bool)
        mask[: _TIMED_SIDE // 2] = True
        image = np.full((*mask.shape, 3), 99, np.float32)
        return cls(image, mask, np.ones_like(mask))


def _drawn_view(backbone: Backbone) -> tuple[View, float]:
    """An augmented view, and how many seconds it takes to draw one."""
    plane, rng = _Plane.blank(), np.random.default_rng(0)
    size, augmentation = backbone.input_size, Augmentation.paper()
    taken = []
    for _ in range(6):
        started = time.perf_counter()
        view = random_view(plane, size, size / _TIMED_SIDE, augmentation, rng)
        taken.append(time.perf_counter() - started)
    # The median: views differ in what is done to them, and the first one warms up.
    return view, float(np.median(taken))


def _encode(method: Method, backbone: Backbone, images: Tensor) -> Embedding:
    with torch.inference_mode():
        return method.encode(backbone, images)


def _decode(method: Method, backbone: Backbone, embedding: Embedding) -> None:
    with torch.inference_mode():
        method.decode(backbone, embedding)


def _learn(method: Method, backbone: Backbone, images: Tensor, embedding: Embedding) -> None:
    """Forward and back, through the encoder too where something is learned in it."""
    if not method.works_on_embeddings:
        embedding = method.encode(backbone, images)
    logits = resize_logits(method.decode(backbone, embedding), min(LOSS_SIZE, backbone.input_size))
    ones = torch.ones_like(logits)
    ptsam_loss(logits, ones, ones > 0).backward()
    method.zero_grad(set_to_none=True)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long something takes; the best of three where it is short."""
    best = math.inf
    for _ in range(3):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
        if best > SHORT:
            break
    return best


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """A function that tells, at the end, how many bytes more than before were in use."""
    peak: list[int] = []
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    process = _process_memory()
    if process is None:
        yield lambda: None
        return
    first, done = process(), threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak.append(process())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max([*peak, first]) - first
    finally:
        done.set()
        watcher.join()


def _process_memory() -> Callable[[], int] | None:
    """A function that tells how many bytes this process holds, where one can be had."""
    try:
        psutil = import_module("psutil")
    except ImportError:
        return None
    process = psutil.Process()
    return lambda: int(process.memory_info().rss)
