"""What each command does: gather values, call the library, say what came of it.

The engine is imported inside the commands, so that `--help`, `info` and
`evaluate` answer without loading torch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ptsam.cache import DiskCache
from napari_ptsam.cli.segmenting import refuse_losses, segment_one
from napari_ptsam.cli.targets import plan_targets
from napari_ptsam.cli.usage import PROGRAM, UsageError
from napari_ptsam.progress import Progress

if TYPE_CHECKING:
    from napari_ptsam.ahead import PlaneEmbedded
    from napari_ptsam.specialist import Specialist
    from napari_ptsam.training.steps import TrainStep

_PHASES = {"embed": "encoding", "train": "training", "refit": "training on all"}


def train(args: argparse.Namespace) -> None:
    """Learn a specialist and write its prompt file."""
    from napari_ptsam.embeddings import Embeddings
    from napari_ptsam.normalize import Normalization
    from napari_ptsam.promptfile import prompt_path
    from napari_ptsam.specialist import Specialist

    # Before the training, so that a wrong name does not cost one.
    output = prompt_path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with Progress(sys.stderr) as progress:
        specialist = Specialist.train(
            args.images,
            args.masks,
            planes=args.planes,
            limit=args.limit,
            label=args.label,
            ignore_label=args.ignore_label,
            normalization=Normalization(per=args.normalize),
            backbone=args.backbone,
            encoder_prompts=args.encoder_prompts,
            method=args.method,
            method_settings=dict(args.method_setting),
            preset=args.preset,
            steps=args.steps,
            seed=args.seed,
            device=args.device,
            class_name=args.class_name,
            classes=args.classes,
            scale=args.scale,
            axes=args.axes,
            channel=args.channel,
            checkpoint=args.checkpoint,
            augmentation_picture=args.augmentation_picture,
            on_step=_train_reporter(progress),
            command=args.command_line,
            # What a second training can use again is kept without being asked for: it is small.
            embeddings=Embeddings(limit=0, disk=DiskCache(writes=True)),
        )
    specialist.save(output)
    _say_trained(specialist, output)


def _train_reporter(progress: Progress) -> Any:
    """A function that shows each `TrainStep`."""
    held_out: float | None = None

    def show(step: TrainStep) -> None:
        nonlocal held_out
        held_out = held_out if step.held_out_dice is None else step.held_out_dice
        notes = [] if step.phase == "embed" else [f"loss {step.loss:.3f}"]
        if held_out is not None:
            notes.append(f"held-out Dice {held_out:.3f}")
        phase = _PHASES.get(step.phase, step.phase)
        progress.update(phase, step.step, step.steps, ", ".join(notes))

    return show


def _say_trained(specialist: Specialist, path: Path) -> None:
    size = path.stat().st_size / 1000
    print(
        f"Wrote {path}: {specialist.trainable_parameters:,} trained numbers, {size:.1f} kB, "
        f"for the backbone {specialist.metadata.backbone_name}."
    )
    dice = specialist.metadata.training.get("held_out_dice")
    if dice is not None:
        print(f"Dice on masks held out from training: {dice:.3f}.")
    print(f"Use it: {PROGRAM} segment {path} IMAGES -o RESULTS")


def segment(args: argparse.Namespace) -> None:
    """Segment each input with a specialist."""
    from napari_ptsam.embeddings import Embeddings
    from napari_ptsam.promptfile import read_prompt_metadata
    from napari_ptsam.specialist import Specialist
    from napari_ptsam.tiling import Scaling

    taught = read_prompt_metadata(args.prompt_file).channels
    targets = plan_targets(
        args.inputs, args.output, axes=args.axes, channel=args.channel, taught=taught
    )
    specialist = Specialist.load(args.prompt_file, backbone=args.backbone, device=args.device)
    if args.object is not None:
        specialist = specialist.of(args.object)
    if args.threshold is not None:
        specialist.threshold = args.threshold
    if args.rotations is not None:
        specialist.rotations = args.rotations
    if args.scale is not None:
        specialist.scaling = Scaling(None if args.scale == "fit" else args.scale)
    if args.cache:
        specialist.embeddings = Embeddings(limit=0, disk=DiskCache(writes=True))
    if len(targets) > 1:
        refuse_losses(specialist, targets, args)
    for source, output in targets:
        segment_one(specialist, source, output, args)


def train_clicks(args: argparse.Namespace) -> None:
    """Learn a click specialist and write its prompt file."""
    from napari_ptsam.cli.clicking import train

    train(args)


def click(args: argparse.Namespace) -> None:
    """Segment the object that is pointed at."""
    from napari_ptsam.cli.clicking import click

    click(args)


def embed(args: argparse.Namespace) -> None:
    """Encode images and keep what comes of it.

    Raises
    ------
    UsageError
        If a specialist is named together with a working scale.
    """
    if args.specialist is not None and args.scale is not None:
        raise UsageError("the specialist has a working scale of its own; leave --scale away")
    encode = _encoder(args)
    for source in args.inputs:
        plane = None
        with Progress(sys.stderr) as progress, closing(encode(source)) as work:
            for plane in work:
                progress.update(f"encoding {source.name}", plane.done, plane.total)
        if plane is not None:
            print(
                f"{source}: {plane.done} plane{'' if plane.done == 1 else 's'}; tiles: "
                f"{plane.encoded} encoded, {plane.recalled} found, in {plane.seconds:.1f} s."
            )


def _encoder(args: argparse.Namespace) -> Callable[[Path], Generator[PlaneEmbedded, None, None]]:
    """What encodes one input: as a specialist will look at it, or as the options say."""
    from napari_ptsam.ahead import embed_planes
    from napari_ptsam.backbones import load_backbone
    from napari_ptsam.devices import choose_device
    from napari_ptsam.embeddings import Embeddings
    from napari_ptsam.normalize import Normalization
    from napari_ptsam.planes import open_planes
    from napari_ptsam.specialist import Specialist
    from napari_ptsam.tiling import Scaling

    if args.specialist is not None:
        learned = Specialist.load(args.specialist, backbone=args.backbone, device=args.device)
        return lambda source: learned.embed(
            source, planes=args.planes, axes=args.axes, channel=args.channel
        )
    backbone = load_backbone(args.backbone or "embedded", device=choose_device(args.device))
    embeddings = Embeddings(limit=0, disk=DiskCache(writes=True))
    scaling = Scaling(None if args.scale in (None, "fit") else args.scale)

    def encode(source: Path) -> Generator[PlaneEmbedded, None, None]:
        images = open_planes(source, axes=args.axes, channel=args.channel)
        images = images if args.planes is None else images.subset(args.planes)
        return embed_planes(backbone, images, embeddings, Normalization(), scaling)

    return encode


def evaluate(args: argparse.Namespace) -> None:
    """Score a segmentation against masks."""
    from napari_ptsam.metrics import score_planes
    from napari_ptsam.planes import open_planes

    scores = score_planes(
        open_planes(args.predicted),
        open_planes(args.masks),
        planes=args.planes,
        label=args.label,
        ignore_label=args.ignore_label,
    ).to_dict()
    if args.json:
        print(json.dumps(scores))
        return
    print(f"planes compared          {scores['n']}")
    print(f"Dice, mean over planes   {scores['dice_mean']:.4f} (SD {scores['dice_sd']:.4f})")
    print(f"Dice, all pixels pooled  {scores['dice_pooled']:.4f}")
    print(f"IoU, mean over planes    {scores['iou_mean']:.4f}")


def info(args: argparse.Namespace) -> None:
    """Say what a prompt file holds."""
    from napari_ptsam.promptfile import read_prompt_file

    facts = read_prompt_file(args.prompt_file).info_dict()
    if args.json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = json.dumps(value) if isinstance(value, dict | list) else value
        print(f"{name.replace('_', ' '):22}  {shown}")


def backbones(_: argparse.Namespace) -> None:
    """List the frozen SAMs that are known by name."""
    from napari_ptsam.backbones.download import cache_folder, local_file
    from napari_ptsam.backbones.registry import list_backbones

    for spec in list_backbones():
        state = "ready" if local_file(spec).is_file() else "not here yet"
        print(f"{spec.name:20}  {state:12}  {spec.title} ({spec.licence})")
    print(f"Get one with '{PROGRAM} backbones download NAME'; files go to {cache_folder()}.")


def download(args: argparse.Namespace) -> None:
    """Download and verify one backbone's weights."""
    from napari_ptsam.backbones.download import fetch
    from napari_ptsam.backbones.registry import BackboneSpec, find

    spec = find(args.name)
    if not isinstance(spec, BackboneSpec):
        raise UsageError(f"{args.name} is a file already; '{PROGRAM} backbones' lists the names")
    with Progress(sys.stderr) as progress:

        def show(done: int, total: int | None) -> None:
            whole = None if total is None else round(total / 1e6)
            progress.update(f"downloading {spec.name}, MB", round(done / 1e6), whole)

        path = fetch(spec, show)
    print(f"{path}: complete and verified. Use it with --backbone {spec.name}.")


def demo(args: argparse.Namespace) -> None:
    """Run the main job on real images."""
    from napari_ptsam.demo import run_demo

    run_demo(args.output)


def benchmark(args: argparse.Namespace) -> None:
    """Compare methods as a study's file says."""
    from napari_ptsam.cli.benchmarking import run

    run(args)
