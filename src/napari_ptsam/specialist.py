"""The specialist: a frozen SAM, what was learned for one task, and how to apply it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.devices import choose_device
from napari_ptsam.errors import InputError, PromptFileError
from napari_ptsam.examples import Example, data_hash, load_examples
from napari_ptsam.methods import Method, build_method
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import Planes, open_planes
from napari_ptsam.predict import predict_plane
from napari_ptsam.promptfile import (
    PromptFile,
    PromptMetadata,
    read_prompt_file,
    write_prompt_file,
)
from napari_ptsam.tiling import Scaling, choose_scaling
from napari_ptsam.training.augment import random_view
from napari_ptsam.training.loop import TrainResult, TrainStep, train
from napari_ptsam.training.picture import contact_sheet
from napari_ptsam.training.presets import TrainingPlan, training_plan
from napari_ptsam.views import prefilter
from napari_ptsam.writing import open_output

__all__ = ["PlaneDone", "Prediction", "Specialist", "TrainStep", "working_scale"]

PACKAGES = ("napari-ptsam", "torch", "segment-anything", "numpy", "scipy", "scikit-image")


@dataclass(frozen=True)
class Prediction:
    """What a specialist says of one plane.

    Attributes
    ----------
    probability
        HxW float32, 0..1.
    mask
        HxW bool, probability at or above the specialist's threshold.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class PlaneDone:
    """One plane was segmented and written.

    Attributes
    ----------
    index, key
        Which plane of the source.
    done, total
        How many of the planes asked for are done.
    seconds
        Since the start.
    """

    index: int
    key: str
    done: int
    total: int
    seconds: float


class Specialist:
    """A trained method on its backbone, with everything needed to apply it alike.

    Make one with `train` or `load`.
    """

    def __init__(self, method: Method, backbone: Backbone, metadata: PromptMetadata) -> None:
        self.method = method.to(backbone.device).eval()
        self.backbone = backbone
        self.metadata = metadata
        self.normalization = Normalization.from_dict(metadata.normalization)
        self.scaling = Scaling.from_dict(metadata.working_scale)

    @property
    def trainable_parameters(self) -> int:
        """How many numbers were learned (2,048 for eight decoder prompts)."""
        return self.method.trainable_parameters

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is object."""
        return self.metadata.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.metadata = replace(self.metadata, threshold=float(value))

    @classmethod
    def train(
        cls,
        images: Any,
        masks: Any,
        *,
        on_step: Callable[[TrainStep], None] | None = None,
        **options: Any,
    ) -> Specialist:
        """Train and wait: `train_steps` run to its end.

        Parameters
        ----------
        on_step
            Called with each `TrainStep`.
        **options
            See `train_steps`.
        """
        run = cls.train_steps(images, masks, **options)
        while True:
            try:
                step = next(run)
            except StopIteration as end:
                specialist: Specialist = end.value
                return specialist
            if on_step is not None:
                on_step(step)

    @classmethod
    def train_steps(  # noqa: PLR0913 (each is an option that a user may set)
        cls,
        images: Any,
        masks: Any,
        *,
        planes: Sequence[int] | None = None,
        limit: int | None = None,
        label: int | None = None,
        ignore_label: int | None = None,
        axes: str | None = None,
        channel: int | str | None = None,
        normalization: Normalization | None = None,
        backbone: str | Path | Backbone = "embedded",
        encoder_prompts: bool = False,
        preset: str = "standard",
        steps: int | None = None,
        seed: int = 0,
        device: str = "auto",
        scale: float | Literal["auto", "fit"] = "auto",
        class_name: str = "object",
        checkpoint: str | Path | None = None,
        augmentation_picture: str | Path | None = None,
        command: str = "",
    ) -> Generator[TrainStep, None, Specialist]:
        """Train a PTSAM specialist step by step.

        Parameters
        ----------
        images, masks
            Folder, file or array, see `open_planes`.
        planes, limit, label, ignore_label, normalization
            Which planes and which of their labels to learn from, see `load_examples`.
        axes, channel
            Names of the images' axes and the channel to use, see `open_planes`.
        backbone
            Name from `list_backbones`, checkpoint file, or a loaded one.
        encoder_prompts
            Also train eight prompts in every encoder block: better where images differ from
            what the backbone knows, and slower.
        preset
            ``quick``, ``standard`` or ``paper``.
        steps
            Instead of the preset's number of steps.
        scale
            Model pixels per image pixel, ``fit`` for whole images, ``auto`` to choose from
            the size of the annotated objects.
        checkpoint
            File to save the run to and to go on from after it was killed.
        augmentation_picture
            Where to write a picture of 16 augmented training samples.
        command
            What to store as the command that reproduces the run.

        Yields
        ------
        TrainStep
            After each step.

        Returns
        -------
        Specialist
            As the generator's value.

        Raises
        ------
        InputError, BackboneError, TrainingError, OutOfMemoryError
            In words.
        """
        plan = training_plan(preset, encoder_prompts=encoder_prompts, seed=seed, steps=steps)
        examples, fitted = load_examples(
            open_planes(images, axes=axes, channel=channel),
            open_planes(masks),
            planes=planes,
            limit=limit,
            label=label,
            ignore_label=ignore_label,
            normalization=normalization or Normalization(),
        )
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(backbone, device=choose_device(device))
        scaling = working_scale(scale, examples, backbone)
        if augmentation_picture is not None:
            _draw_augmentations(Path(augmentation_picture), examples, backbone, scaling, plan)
        settings = {"encoder_prompts": 8 if encoder_prompts else 0}
        method = build_method("ptsam", settings, backbone, seed)
        path = None if checkpoint is None else Path(checkpoint)
        metadata = PromptMetadata(
            backbone_name=backbone.name,
            backbone_identity=backbone.identity,
            backbone_architecture=backbone.architecture,
            method=method.name,
            method_settings=method.settings_dict,
            normalization=fitted.to_dict(),
            channels={"axes": axes, "channel": channel},
            working_scale=scaling.to_dict(),
            class_name=class_name,
        )
        specialist = cls(method, backbone, metadata)
        started = time.perf_counter()
        run = train(method, backbone, examples, plan, scaling, path)
        result = yield from _with_preview(run, specialist)
        record = _record(examples, plan, result, time.perf_counter() - started, command)
        specialist.metadata = replace(metadata, training=record)
        if path is not None:
            path.unlink(missing_ok=True)
        return specialist

    def predict(self, image: NDArray[Any]) -> Prediction:
        """Segment one plane, HxW or HxWxC of any real dtype."""
        pixels = self.normalization.apply(np.asarray(image))
        probability = predict_plane(self.method, self.backbone, pixels, self.scaling)
        return Prediction(probability, probability >= self.threshold)

    def segment(
        self,
        source: Any,
        output: str | Path,
        *,
        planes: Sequence[int] | None = None,
        probability: bool = False,
        axes: str | None = None,
        channel: int | str | None = None,
    ) -> Generator[PlaneDone, None, Path]:
        """Segment a folder, stack or image plane by plane, into files.

        Parameters
        ----------
        source
            Folder, file or array; only one plane is held at a time.
        output
            Folder for a folder, else a ``.tif`` or ``.zarr`` file.
        planes
            Which planes; None for all.
        probability
            Write the probability as well.
        axes, channel
            As in training when None.

        Yields
        ------
        PlaneDone
            After each plane.
        """
        stored = self.metadata.channels
        images = (
            source
            if isinstance(source, Planes)
            else open_planes(
                source,
                axes=axes if axes is not None else stored.get("axes"),
                channel=channel if channel is not None else stored.get("channel"),
            )
        )
        if planes is not None:
            images = images.subset(planes)
        started = time.perf_counter()
        with ExitStack() as outputs:
            masks = outputs.enter_context(open_output(output, images))
            extra = probability and outputs.enter_context(
                open_output(output, images, probability=True)
            )
            for number in range(len(images)):
                predicted = self.predict(images.read(number))
                masks.write(number, predicted.mask)
                if extra:
                    extra.write(number, predicted.probability)
                index = number if planes is None else planes[number]
                elapsed = time.perf_counter() - started
                yield PlaneDone(index, images.keys[number], number + 1, len(images), elapsed)
        return masks.path

    def save(self, path: str | Path) -> Path:
        """Write the prompt file; returns its path, with the suffix completed."""
        tensors = {k: v.numpy() for k, v in self.method.tensors().items()}
        return write_prompt_file(path, PromptFile(tensors, self.metadata))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        backbone: str | Path | Backbone | None = None,
        device: str = "auto",
    ) -> Specialist:
        """Read a prompt file and put it on its backbone.

        Parameters
        ----------
        backbone
            The backbone if it is not one that is known by name: a checkpoint file, or a loaded
            one. It must be the one that the prompts were learned on.

        Raises
        ------
        PromptFileError
            If the file is damaged or was learned on another backbone.
        BackboneError
            If the backbone cannot be had.
        """
        file = read_prompt_file(path)
        metadata = file.metadata
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(
                backbone or metadata.backbone_name, device=choose_device(device)
            )
        if backbone.identity != metadata.backbone_identity:
            raise PromptFileError(
                f"{Path(path).name} was learned on the backbone '{metadata.backbone_name}' "
                f"(identity {metadata.backbone_identity[:12]}), not on '{backbone.name}' "
                f"(identity {backbone.identity[:12]}). Learned prompts work on their own backbone "
                f"alone: load '{metadata.backbone_name}', or train again on '{backbone.name}'."
            )
        method = build_method(metadata.method, metadata.method_settings, backbone)
        method.load_tensors({k: torch.from_numpy(v) for k, v in file.tensors.items()})
        return cls(method, backbone, metadata)


def _with_preview(
    run: Generator[TrainStep, None, TrainResult], specialist: Specialist
) -> Generator[TrainStep, None, TrainResult]:
    """The run's steps, each with the means to look at what was learned by then."""
    with closing(run):
        while True:
            try:
                step = next(run)
            except StopIteration as end:
                result: TrainResult = end.value
                return result
            yield replace(step, preview=specialist.predict)


def working_scale(scale: float | str, examples: Sequence[Example], backbone: Backbone) -> Scaling:
    """The working scale behind a number, ``fit`` or ``auto``.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if scale == "auto":
        return choose_scaling(examples, backbone.input_size, backbone.wanted_object_width)
    if scale == "fit":
        return Scaling(None)
    try:
        return Scaling(float(scale))
    except ValueError as error:
        raise InputError(
            f"The working scale is 'auto', 'fit' or a number, not '{scale}'."
        ) from error


def _draw_augmentations(
    path: Path,
    examples: Sequence[Example],
    backbone: Backbone,
    scaling: Scaling,
    plan: TrainingPlan,
) -> None:
    rng = np.random.default_rng([plan.seed, 3])
    views = []
    for number in range(16):
        example = examples[number % len(examples)]
        scale = scaling.scale_for(example.image.shape, backbone.input_size)
        smooth = replace(example, image=prefilter(example.image, scale))
        views.append(random_view(smooth, backbone.input_size, scale, plan.augmentation, rng))
    contact_sheet(views, path)


def _record(
    examples: Sequence[Example],
    plan: TrainingPlan,
    result: TrainResult,
    seconds: float,
    command: str,
) -> dict[str, Any]:
    """What the prompt file tells of its training."""
    return {
        "data_hash": data_hash(examples),
        "images": len(examples),
        "plan": asdict(plan),
        "seed": plan.seed,
        "steps": result.steps,
        "held_out": list(result.held_out),
        "held_out_dice": result.held_out_dice,
        "final_loss": result.final_loss,
        "seconds": round(seconds, 1),
        "packages": {p: _version(p) for p in PACKAGES},
        "python": platform.python_version(),
        "date": _today().isoformat(),
        "command": command,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _today() -> datetime.date:
    """Today, or the day that SOURCE_DATE_EPOCH names, so that a file can be made again."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is not None:
        return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).date()
    return datetime.datetime.now(datetime.UTC).date()
