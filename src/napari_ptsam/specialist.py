"""The specialist: a frozen SAM, what was learned for one task, and how to apply it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from napari_ptsam.ahead import PlaneEmbedded, embed_planes
from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.cache import DiskCache
from napari_ptsam.devices import choose_device
from napari_ptsam.embeddings import Embeddings, recalling
from napari_ptsam.errors import InputError, PromptFileError
from napari_ptsam.examples import load_named_examples
from napari_ptsam.methods import Method, build_method, new_method
from napari_ptsam.normalize import Normalization
from napari_ptsam.objects import without_small
from napari_ptsam.planes import Planes, open_planes
from napari_ptsam.predict import predict_plane
from napari_ptsam.promptfile import (
    PromptFile,
    PromptMetadata,
    read_prompt_file,
    write_prompt_file,
)
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.again import check_start, names_of, object_name, origin_of
from napari_ptsam.training.loop import train
from napari_ptsam.training.picture import draw_augmentations
from napari_ptsam.training.presets import continued, training_plan
from napari_ptsam.training.record import Circumstances, training_record
from napari_ptsam.training.scale import search_scaling, search_steps, working_scale
from napari_ptsam.training.steps import RunContext, TrainResult, TrainStep
from napari_ptsam.training.views import WarmStart
from napari_ptsam.writing import open_output

__all__ = [
    "PlaneDone",
    "Prediction",
    "Specialist",
    "TrainStep",
    "backbone_of",
]


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

    Attributes
    ----------
    path
        The prompt file that it was read from or last saved to, if there is one.
    embeddings
        Where to find what was encoded before: by default on disk, where nothing is left; with
        ``Embeddings(limit=0, disk=DiskCache(writes=True))`` what is encoded is left there too.
    """

    def __init__(self, method: Method, backbone: Backbone, metadata: PromptMetadata) -> None:
        self.method = method.to(backbone.device).eval()
        self.backbone = backbone
        self.metadata = metadata
        self.normalization = Normalization.from_dict(metadata.normalization)
        self.scaling = Scaling.from_dict(metadata.working_scale)
        self.path: Path | None = None
        self.embeddings = Embeddings(limit=0, disk=DiskCache())
        self._continuation: WarmStart | None = None

    @property
    def recalling(self) -> Backbone:
        """The backbone to look at images through: it looks in `embeddings` before it encodes."""
        return recalling(self.method, self.backbone, self.embeddings)

    @property
    def continuation(self) -> WarmStart:
        """Where another training goes on from.

        Right after a training these are the numbers that held-out images have no part in;
        they are not stored in the prompt file.
        """
        if self._continuation is not None:
            return self._continuation
        seen = self.metadata.training.get("learned_from") or ()
        return WarmStart(self.method.tensors(), frozenset(map(str, seen)))

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

    @property
    def rotations(self) -> int:
        """In how many positions, a quarter turn apart, each image is looked at: 1, 2 or 4."""
        return self.metadata.rotations

    @rotations.setter
    def rotations(self, value: int) -> None:
        self.metadata = replace(self.metadata, rotations=value)

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
        backbone: str | Path | Backbone | None = None,
        encoder_prompts: bool = False,
        method: str | None = None,
        method_settings: Mapping[str, Any] | None = None,
        learning_rate: float | None = None,
        classes: Mapping[str, int] | None = None,
        start_from: Specialist | None = None,
        preset: str = "standard",
        steps: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        device: str = "auto",
        scale: float | Literal["auto", "fit"] = "auto",
        class_name: str | None = None,
        checkpoint: str | Path | None = None,
        augmentation_picture: str | Path | None = None,
        command: str = "",
        embeddings: Embeddings | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[TrainStep, None, Specialist]:
        """Train a specialist step by step, by default of PTSAM.

        Parameters
        ----------
        images, masks
            Folder, file or array, see `open_planes`.
        planes, limit, label, ignore_label, normalization
            Which planes and which of their labels to learn from, see `load_examples`.
        axes, channel
            Names of the images' axes and the channel to use, see `open_planes`.
        backbone
            Name from `list_backbones`, checkpoint file, or a loaded one; by default the
            embedded one.
        encoder_prompts
            Also train eight prompts in every encoder block: better where images differ from
            what the backbone knows, and slower. Of PTSAM; other methods have settings for it.
        method
            A key of `napari_ptsam.methods.METHODS`, such as ``lora``.
        method_settings
            What to change of the method's own settings, such as ``{"encoder": True}`` of ``lora``.
        learning_rate
            Instead of the method's own.
        classes
            Several objects to learn at once, each with its label in the masks, such as
            ``{"nuclei": 1, "cytoplasm": 2}``. Only `ssam` knows several; the specialist
            predicts the first, and the others by `of`. To go on from one that knows several, all
            of them are given; it predicts the same one as before, or `class_name`.
        start_from
            A specialist to go on from. Its backbone, method, normalisation and working scale
            are used again, and the learning rate is lower. Images that it learned from are
            not held out, so that the held-out Dice stays an honest one; if all are known to
            it, there is none. Where its method knows the objects by name, they keep their names.
        preset
            ``quick``, ``standard`` or ``paper``.
        steps
            Instead of the preset's number of steps.
        batch_size
            Instead of two images in each step; one takes less memory.
        scale
            Model pixels per image pixel, ``fit`` for whole images, ``auto`` to choose from
            the size of the annotated objects.
        class_name
            What the object is called, if it has no name in `classes`; by default as in
            `start_from`, else ``object``.
        checkpoint
            File to save the run to and to go on from after it was killed.
        augmentation_picture
            Where to write a picture of 16 augmented training samples.
        command
            What to store as the command that reproduces the run.
        embeddings
            Where to find what was encoded before, and to leave what is encoded now.
        should_stop
            Asked between steps; once it says True the run ends and gives the best so far. The
            record in the prompt file says that it was stopped.

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
        class_name = object_name(start_from, class_name, classes)
        if start_from is not None:
            check_start(start_from, backbone, encoder_prompts, method, method_settings)
            backbone = start_from.backbone
            encoder_prompts = not start_from.method.works_on_embeddings
            normalization = normalization or replace(start_from.normalization, range=None)
            scale = scale if scale != "auto" else start_from.scaling.factor or "fit"
        plan = training_plan(preset, encoder_prompts=encoder_prompts, seed=seed, steps=steps)
        plan = plan if batch_size is None else replace(plan, batch_size=batch_size)
        examples, fitted = load_named_examples(
            open_planes(images, axes=axes, channel=channel),
            open_planes(masks),
            {"": label} if classes is None else classes,
            planes=planes,
            limit=limit,
            ignore_label=ignore_label,
            normalization=normalization or Normalization(),
        )
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(backbone or "embedded", device=choose_device(device))
        scaling = working_scale(scale, examples, backbone)
        if start_from is not None:
            trained = start_from.method
            trainee = build_method(trained.name, trained.settings_dict, backbone, seed)
            trainee = trainee.of(class_name)
        else:
            settings = _settings(method, method_settings, encoder_prompts)
            labels = [class_name] if classes is None else list(classes)
            trainee = new_method(method or "ptsam", settings, backbone, seed, labels)
        plan = replace(plan, learning_rate=trainee.learning_rate)
        plan = plan if start_from is None else continued(plan)
        plan = plan if learning_rate is None else replace(plan, learning_rate=learning_rate)
        started = time.perf_counter()
        if scale == "auto" and plan.search_scale:
            search = search_scaling(backbone, examples, scaling, embeddings, should_stop)
            scaling = yield from search_steps(search)
        if augmentation_picture is not None:
            draw_augmentations(Path(augmentation_picture), examples, backbone, scaling, plan)
        path = None if checkpoint is None else Path(checkpoint)
        metadata = PromptMetadata(
            backbone_name=backbone.name,
            backbone_identity=backbone.identity,
            backbone_architecture=backbone.architecture,
            method=trainee.name,
            method_settings=trainee.settings_dict,
            normalization=fitted.to_dict(),
            channels={"axes": axes, "channel": channel},
            working_scale=scaling.to_dict(),
            rotations=plan.rotations,
            class_name=class_name,
        )
        specialist = cls(trainee, backbone, metadata)
        start = None if start_from is None else start_from.continuation
        specialist.embeddings = specialist.embeddings if embeddings is None else embeddings
        context = RunContext(start, specialist.embeddings, should_stop)
        run = train(trainee, backbone, examples, plan, scaling, path, context)
        result = yield from _with_preview(run, specialist)
        # Whoever keeps them decides how long.
        specialist.embeddings = Embeddings(limit=0, disk=DiskCache())
        around = Circumstances(
            seconds=time.perf_counter() - started,
            command=command,
            started_from=None if start_from is None else origin_of(start_from),
        )
        record = training_record(examples, plan, result, around)
        specialist.metadata = replace(metadata, training=record)
        specialist._continuation = result.continuation
        if path is not None:
            path.unlink(missing_ok=True)
        return specialist

    def of(self, name: str) -> Specialist:
        """The specialist for one of the several objects that it learned.

        Parameters
        ----------
        name
            As in `classes` of `train_steps`.

        Returns
        -------
        Specialist
            With the same learned numbers, which are stored once; its predictions are those of
            the object named.

        Raises
        ------
        InputError
            If it did not learn this object.
        """
        learned = names_of(self.method)
        if name not in (*learned, self.metadata.class_name):
            known = ", ".join(f"'{n}'" for n in learned or (self.metadata.class_name,))
            raise InputError(f"This specialist does not know '{name}'; it was taught {known}.")
        named = replace(self.metadata, class_name=name)
        other = Specialist(self.method.of(name), self.backbone, named)
        other.embeddings = self.embeddings
        return other

    def applied(
        self, *, threshold: float | None = None, rotations: int | None = None
    ) -> Specialist:
        """The same learned numbers with other settings; this specialist stays as it is."""
        metadata = replace(
            self.metadata,
            threshold=self.threshold if threshold is None else float(threshold),
            rotations=self.rotations if rotations is None else rotations,
        )
        other = Specialist(self.method, self.backbone, metadata)
        other.embeddings = self.embeddings
        return other

    def predict(self, image: NDArray[Any]) -> Prediction:
        """Segment one plane, HxW or HxWxC of any real dtype."""
        pixels = self.normalization.apply(np.asarray(image))
        probability = predict_plane(
            self.method, self.recalling, pixels, self.scaling, self.rotations
        )
        return Prediction(probability, probability >= self.threshold)

    def segment(
        self,
        source: Any,
        output: str | Path,
        *,
        planes: Sequence[int] | None = None,
        minimum_size: int = 0,
        probability: bool = False,
        axes: str | None = None,
        channel: int | str | None = None,
        overwrite: bool = False,
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
        minimum_size
            Leave out objects of fewer pixels in a plane.
        probability
            Write the probability as well.
        axes, channel
            When None, as in training: unless axes of that number do not fit, or there is but one
            channel.
        overwrite
            Replace also files that this program did not write.

        Yields
        ------
        PlaneDone
            After each plane.

        Raises
        ------
        InputError
            If something cannot be read or written, or would be lost.
        """
        images = self._opened(source, planes, axes, channel)
        started = time.perf_counter()
        with ExitStack() as outputs:
            masks = outputs.enter_context(open_output(output, images, overwrite=overwrite))
            extra = probability and outputs.enter_context(
                open_output(output, images, probability=True, overwrite=overwrite)
            )
            for number in range(len(images)):
                predicted = self.predict(images.read(number))
                masks.write(number, without_small(predicted.mask, minimum_size))
                if extra:
                    extra.write(number, predicted.probability)
                index = number if planes is None else planes[number]
                elapsed = time.perf_counter() - started
                yield PlaneDone(index, images.keys[number], number + 1, len(images), elapsed)
        return masks.path

    def embed(
        self,
        source: Any,
        *,
        planes: Sequence[int] | None = None,
        axes: str | None = None,
        channel: int | str | None = None,
        cache: DiskCache | None = None,
    ) -> Generator[PlaneEmbedded, None, None]:
        """Encode a folder, stack or image now, so that segmenting it later needs no encoder.

        It may be stopped after any plane, and goes on from there when it is run again. With
        encoder prompts, or another method that changes the encoder, there is nothing to keep.

        Parameters
        ----------
        source, planes, axes, channel
            As for `segment`.
        cache
            Where to leave the embeddings; by default the user's cache on disk.

        Yields
        ------
        PlaneEmbedded
            After each plane.

        Raises
        ------
        InputError
            If the specialist's encoder is one of its own.
        """
        if not self.method.works_on_embeddings:
            raise InputError(
                f"This specialist ({self.method.title}) changes the encoder, so that embeddings "
                "kept for it would serve nobody else. Segment with it directly, or train one "
                "without encoder prompts."
            )
        images = self._opened(source, planes, axes, channel)
        embeddings = Embeddings(limit=0, disk=cache or DiskCache(writes=True))
        yield from embed_planes(
            self.backbone, images, embeddings, self.normalization, self.scaling, self.rotations
        )

    def _opened(
        self,
        source: Any,
        planes: Sequence[int] | None,
        axes: str | None,
        channel: int | str | None,
    ) -> Planes:
        """Planes to look at, read as in training where that fits and nothing else is said."""
        images = open_planes(source, axes=axes, channel=channel, taught=self.metadata.channels)
        return images if planes is None else images.subset(planes)

    def save(self, path: str | Path) -> Path:
        """Write the prompt file; returns its path, with the suffix completed."""
        tensors = {k: v.numpy() for k, v in self.method.tensors().items()}
        self.path = write_prompt_file(path, PromptFile(tensors, self.metadata))
        return self.path

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
        backbone = backbone_of(metadata, path, backbone, device)
        method = build_method(metadata.method, metadata.method_settings, backbone)
        method.load_tensors({k: torch.from_numpy(v) for k, v in file.tensors.items()})
        specialist = cls(method, backbone, metadata)
        specialist.path = Path(path)
        return specialist


def backbone_of(
    metadata: PromptMetadata,
    path: str | Path,
    backbone: str | Path | Backbone | None,
    device: str,
) -> Backbone:
    """The backbone that a prompt file's numbers were learned on.

    Parameters
    ----------
    metadata, path
        Of the file.
    backbone
        Where it is, if it is not found by its name.

    Raises
    ------
    PromptFileError
        If it is another one.
    BackboneError
        If it cannot be had.
    """
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone or metadata.backbone_name, device=choose_device(device))
    if backbone.identity != metadata.backbone_identity:
        if backbone.name == metadata.backbone_name:
            way_out = (
                f"These are two versions of it: train again on '{backbone.name}' as it is "
                "now, or install the version of napari-ptsam that the file was made with."
            )
        else:
            way_out = f"Load '{metadata.backbone_name}', or train again on '{backbone.name}'."
        raise PromptFileError(
            f"{Path(path).name} was learned on the backbone '{metadata.backbone_name}' "
            f"(identity {metadata.backbone_identity[:12]}), not on '{backbone.name}' "
            f"(identity {backbone.identity[:12]}), and learned prompts work on their own "
            f"backbone alone. {way_out}"
        )
    return backbone


def _settings(
    method: str | None, settings: Mapping[str, Any] | None, encoder_prompts: bool
) -> dict[str, Any]:
    """A method's settings, with what the option `encoder_prompts` says."""
    if not encoder_prompts:
        return dict(settings or {})
    if method not in (None, "ptsam"):
        raise InputError(
            f"Encoder prompts belong to the method 'ptsam', not to '{method}'. Leave them away; "
            "whether 'lora' changes the encoder is its setting 'encoder'."
        )
    return {"encoder_prompts": 8, **(settings or {})}


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
            yield replace(step, preview=specialist.predict if step.ready else None)
