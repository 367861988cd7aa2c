"""The commands `train-clicks` and `click`: learn what a click means, and segment by clicks."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.cache import DiskCache
from napari_ptsam.cli.usage import PROGRAM, UsageError
from napari_ptsam.clicking import (
    Box,
    Click,
    ClickAnswer,
    Clicker,
    ClickPrompt,
    click_plan,
    train_clicks,
)
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.methods.plm import PlmSettings
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import Planes, open_planes
from napari_ptsam.progress import Progress
from napari_ptsam.promptfile import prompt_path
from napari_ptsam.tiling import Scaling
from napari_ptsam.writing import open_output

AUTOMATIC_TOKENS = 8
"""As many as a specialist's decoder prompts have."""


def train(args: argparse.Namespace) -> None:
    """Learn a click specialist and write its prompt file."""
    # Before the training, so that a wrong name does not cost one.
    output = prompt_path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    chosen = {} if args.steps is None else {"steps": args.steps}
    run = train_clicks(
        args.images,
        args.masks,
        plan=click_plan(seed=args.seed, point_matching=args.point_matching, **chosen),
        settings=PlmSettings(tokens=AUTOMATIC_TOKENS if args.automatic else 0),
        planes=args.planes,
        limit=args.limit,
        axes=args.axes,
        channel=args.channel,
        normalization=Normalization(per=args.normalize),
        backbone=args.backbone,
        device=args.device,
        scale=args.scale,
        class_name=args.class_name,
        command=args.command_line,
        embeddings=Embeddings(disk=DiskCache(writes=True)),
    )
    clicker = _trained(run)
    clicker.save(output)
    size = output.stat().st_size / 1e6
    numbers = 0 if clicker.method is None else clicker.method.trainable_parameters
    print(f"Wrote {output}: {numbers:,} trained numbers, {size:.1f} MB.")
    iou = clicker.metadata.training["held_out_iou"]
    if iou is not None:
        print(f"IoU of single clicks on objects held out from training: {iou:.3f}.")
    print(f"Use it: {PROGRAM} click IMAGE --specialist {output} --at Y,X -o MASK.tif")


def _trained(run: Any) -> Clicker:
    """Go through a run, showing each step."""
    held_out: float | None = None
    with Progress(sys.stderr) as progress, closing(run):
        while True:
            try:
                step = next(run)
            except StopIteration as end:
                clicker: Clicker = end.value
                return clicker
            held_out = held_out if step.held_out_iou is None else step.held_out_iou
            notes = [] if step.phase == "embed" else [f"loss {step.loss:.3f}"]
            if held_out is not None:
                notes.append(f"held-out IoU {held_out:.3f}")
            phase = "encoding" if step.phase == "embed" else "training"
            progress.update(phase, step.step, step.steps, ", ".join(notes))


def click(args: argparse.Namespace) -> None:
    """Segment the object that is pointed at, in one plane or followed through a stack."""
    clicks = [Click(y, x) for y, x in args.at] + [Click(y, x, False) for y, x in args.not_at]
    prompt = ClickPrompt(tuple(clicks), None if args.box is None else Box(*args.box))
    clicker, taught = _clicker(args)
    images = open_planes(args.image, axes=args.axes, channel=args.channel, taught=taught)
    if args.plane is None and len(images) > 1:
        raise UsageError(
            f"{args.image} has {len(images)} planes; say with --plane N (from 0 on) which one the "
            "clicks are on"
        )
    start = args.plane or 0
    images.check(start)
    embedded = clicker.embed(images.read(start))
    answer = clicker.answer(embedded, prompt)
    _say(answer, start)
    if not args.follow:
        part = images.subset([start])
        with open_output(args.output, part, overwrite=args.overwrite) as writer:
            writer.write(0, answer.mask)
    else:
        found = _followed(clicker, images, start, answer)
        with open_output(args.output, images, overwrite=args.overwrite) as writer:
            for index in range(len(images)):
                empty = np.zeros(images.shape_of(index), bool)
                writer.write(index, found.get(index, empty))
    print(f"Wrote {writer.path}.")


def _clicker(args: argparse.Namespace) -> tuple[Clicker, dict[str, Any]]:
    """Who answers, and which axes and channel it was taught."""
    if args.specialist is not None:
        if args.scale is not None:
            raise UsageError("the specialist has a working scale of its own; leave --scale away")
        clicker = Clicker.load(args.specialist, backbone=args.backbone, device=args.device)
    else:
        scaling = Scaling(None if args.scale in (None, "fit") else args.scale)
        clicker = Clicker.plain(args.backbone or "embedded", scaling=scaling, device=args.device)
    return clicker, clicker.metadata.channels


def _followed(
    clicker: Clicker, images: Planes, start: int, first: ClickAnswer
) -> dict[int, NDArray[np.bool_]]:
    """Masks by plane, up and down the stack until nothing of the object is left."""
    found = {start: first.mask}
    for numbers in (range(start + 1, len(images)), range(start - 1, -1, -1)):
        mask = first.mask
        for index in numbers:
            answer = clicker.follow(clicker.embed(images.read(index)), mask)
            if answer is None:
                break
            _say(answer, index)
            found[index] = mask = answer.mask
    return found


def _say(answer: ClickAnswer, plane: int) -> None:
    count = int(answer.mask.sum())
    if not count:
        print(f"Plane {plane}: nothing was found there.")
        return
    print(
        f"Plane {plane}: {count:,} pixels, expected IoU {answer.score:.2f}, "
        f"{1000 * answer.seconds:.0f} ms."
    )
