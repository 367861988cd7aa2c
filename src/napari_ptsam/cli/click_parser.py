"""The grammar of the commands `train-clicks` and `click`."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_ptsam.cli import commands
from napari_ptsam.cli.options import (
    SCALE_HELP,
    Commands,
    add_axes,
    add_device,
    add_normalize,
    add_planes,
    command,
    fixed_scale,
    positive,
    scale,
)
from napari_ptsam.cli.usage import PROGRAM

_TRAIN_CLICKS_EXAMPLES = f"""\
examples:
  {PROGRAM} train-clicks --images images/ --masks labels/ -o cells.ptsam.safetensors
  {PROGRAM} train-clicks --images em.tif --masks labels.tif --planes 0-15 --class-name vesicle \\
      -o vesicles.ptsam.safetensors
"""

_CLICK_EXAMPLES = f"""\
examples:
  {PROGRAM} click cells.png --specialist cells.ptsam.safetensors --at 120,84 -o cell.tif
  {PROGRAM} click cells.png --backbone vit_b --at 120,84 --not-at 131,90 -o cell.tif
  {PROGRAM} click em.tif --plane 12 --box 40,60,95,130 --follow -o one.tif
"""


def add_train_clicks(subparsers: Commands) -> None:
    """The command `train-clicks`."""
    parser = command(
        subparsers,
        "train-clicks",
        commands.train_clicks,
        "learn what a click means on one kind of object",
        _TRAIN_CLICKS_EXAMPLES,
        "no prompt file was written",
    )
    add = parser.add_argument
    add("--images", required=True, type=Path, metavar="DIR|STACK", help="folder, stack or image")
    add(
        "--masks",
        required=True,
        type=Path,
        metavar="DIR|STACK",
        help="label images of the same names: each object has a number of its own",
    )
    add("-o", "--output", required=True, type=Path, metavar="NAME.ptsam.safetensors")
    add_planes(parser, "the annotated planes, inclusive; by default those with any paint")
    add("--limit", type=positive, metavar="N", help="use at most N annotated planes")
    add_normalize(parser)
    add("--class-name", default="object", metavar="NAME", help="what the object is called")
    add("--backbone", default="embedded", metavar="NAME|FILE", help="frozen SAM (%(default)s)")
    add("--steps", type=positive, metavar="N", help="training steps")
    add(
        "--no-point-matching",
        dest="point_matching",
        action="store_false",
        help="train without the Point Matching Module",
    )
    add(
        "--automatic",
        action="store_true",
        help="learn to segment all objects without a click as well (our extension)",
    )
    add("--scale", type=scale, default="auto", metavar="auto|fit|X", help=SCALE_HELP)
    add_axes(parser)
    add("--seed", type=int, default=0, metavar="N", help="random seed (%(default)s)")
    add_device(parser)


def add_click(subparsers: Commands) -> None:
    """The command `click`."""
    parser = command(
        subparsers,
        "click",
        commands.click,
        "segment the one object that is pointed at",
        _CLICK_EXAMPLES,
    )
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="image or stack")
    add("-o", "--output", required=True, type=Path, metavar="MASK.tif")
    add(
        "--at",
        action="append",
        default=[],
        type=_point,
        metavar="Y,X",
        help="a pixel of the object, rows first, from 0 on; may be repeated",
    )
    add(
        "--not-at",
        action="append",
        default=[],
        type=_point,
        metavar="Y,X",
        help="a pixel that does not belong to it; may be repeated",
    )
    add("--box", type=_box, metavar="TOP,LEFT,BOTTOM,RIGHT", help="a box around the object")
    add(
        "--specialist",
        type=Path,
        metavar="NAME.ptsam.safetensors",
        help="a click specialist; without one, SAM itself answers",
    )
    add("--backbone", metavar="NAME|FILE", help="frozen SAM (embedded)")
    add("--scale", type=fixed_scale, metavar="fit|X", help="model pixels per image pixel (fit)")
    add("--plane", type=int, metavar="N", help="plane of a stack that the clicks are on")
    add("--follow", action="store_true", help="follow the object through the stack")
    add("--overwrite", action="store_true", help="replace what is there, whoever made it")
    add_axes(parser)
    add_device(parser)


def _point(text: str) -> tuple[float, float]:
    """A position given as Y,X."""
    y, x = _numbers(text, 2, "Y,X")
    return y, x


def _box(text: str) -> tuple[float, float, float, float]:
    """A box given as TOP,LEFT,BOTTOM,RIGHT."""
    top, left, bottom, right = _numbers(text, 4, "TOP,LEFT,BOTTOM,RIGHT")
    return top, left, bottom, right


def _numbers(text: str, count: int, form: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form {form}, in pixels")
    return numbers
