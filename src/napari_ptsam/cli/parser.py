"""The command line's grammar: commands, options and their help."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_ptsam import __version__
from napari_ptsam.cli import caching, commands
from napari_ptsam.cli.usage import PROGRAM
from napari_ptsam.errors import InputError
from napari_ptsam.planes import parse_plane_ranges

Commands = Any
"""What `add_subparsers` returns; argparse keeps its type private."""

_DEVICES = ("auto", "cpu", "cuda", "mps")
_PRESETS = ("quick", "standard", "paper")

_DEBUG_HELP = "show the traceback of an error"

_OVERVIEW = """\
Sixteen painted masks make a specialist of 2,048 numbers; the specialist
segments the rest.
"""

_EXAMPLES = f"""\
examples:
  {PROGRAM} demo
  {PROGRAM} train --images images/ --masks masks/ -o nuclei.ptsam.safetensors
  {PROGRAM} segment nuclei.ptsam.safetensors more-images/ -o segmented/
  {PROGRAM} evaluate segmented/ --masks more-masks/

exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted
'{PROGRAM} COMMAND --help' says more about one command.
"""

_TRAIN_EXAMPLES = f"""\
examples:
  folders, paired by file name:
    {PROGRAM} train --images images/ --masks masks/ -o nuclei.ptsam.safetensors
  a stack of which planes 0 to 15 are annotated:
    {PROGRAM} train --images em.tif --masks labels.tif --planes 0-15 -o membranes.ptsam.safetensors
  label 3 of several, prompts in the encoder too, on a GPU:
    {PROGRAM} train --images raw.zarr --masks labels.zarr --label 3 --encoder-prompts \\
        --device cuda -o mitochondria.ptsam.safetensors
"""

_SEGMENT_EXAMPLES = f"""\
A folder gives a folder with the same file names (.tif), a stack gives a stack.
Several inputs give a folder with one result for each. A result in .zarr can be
interrupted: the same command goes on where it was. Files of a folder that are
done are not done again, and one that fails does not stop the others.

examples:
  {PROGRAM} segment nuclei.ptsam.safetensors images/ -o masks/
  {PROGRAM} segment membranes.ptsam.safetensors em.tif --planes 20-29 -o membranes.tif
  {PROGRAM} segment nuclei.ptsam.safetensors monday/ tuesday/ -o masks/ --probability
  {PROGRAM} segment cells.ptsam.safetensors volume.zarr -o cells.zarr --objects --z-smooth 1
  {PROGRAM} segment cells.ptsam.safetensors volume.zarr -o cells.zarr --scheduler local:4
"""

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

_EVALUATE_EXAMPLES = f"""\
Folders are paired by file name, stacks plane by plane. A prediction that holds
only the planes named by --planes is paired with them in order.

examples:
  {PROGRAM} evaluate masks/ --masks truth/
  {PROGRAM} evaluate membranes.tif --masks labels.tif --planes 20-29 --json
"""


_EMBED_EXAMPLES = f"""\
Training and segmenting find what is encoded here, whatever the files are called.
Another working scale needs embeddings of its own; --specialist takes its scale.

examples:
  {PROGRAM} embed em.zarr
  {PROGRAM} embed em.zarr --specialist membranes.ptsam.safetensors
  {PROGRAM} embed images/ --backbone vit_b --scale 0.5
"""

_CACHE_EXAMPLES = f"""\
examples:
  {PROGRAM} cache
  {PROGRAM} cache verify
  {PROGRAM} cache clear --backbone vit_b

NAPARI_PTSAM_CACHE names another folder, NAPARI_PTSAM_CACHE_LIMIT another limit
('50 GB'; 0 keeps nothing new).
"""

_BENCHMARK_EXAMPLES = f"""\
A run that was stopped goes on with what is missing. DIR gets report.md, results.csv, plots and
one JSON file for each training.

examples:
  {PROGRAM} benchmark benchmarks/reduced.toml --dry-run
  {PROGRAM} benchmark benchmarks/reduced.toml --only 'dsb2018/*' --hours 2
  {PROGRAM} benchmark benchmarks/paper.toml -o paper
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line.

    Each command sets `run`, a function that takes the parsed arguments.
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=_OVERVIEW,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("--debug", action="store_true", help=_DEBUG_HELP)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_train(subparsers)
    _add_segment(subparsers)
    _add_evaluate(subparsers)
    _add_train_clicks(subparsers)
    _add_click(subparsers)
    _add_embed(subparsers)
    _add_cache(subparsers)
    _add_info(subparsers)
    _add_backbones(subparsers)
    _add_benchmark(subparsers)
    _add_demo(subparsers)
    return parser


def _command(
    subparsers: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    epilog: str | None = None,
    interrupted: str = "",
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # SUPPRESS keeps a --debug that was given before the command.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG_HELP)
    parser.set_defaults(run=run, interrupted=interrupted)
    return parser


def _add_train(subparsers: Commands) -> None:
    parser = _command(
        subparsers,
        "train",
        commands.train,
        "learn a specialist from images and masks",
        _TRAIN_EXAMPLES,
        "no prompt file was written; with --checkpoint FILE a run goes on from where it was",
    )
    add = parser.add_argument
    add("--images", required=True, type=Path, metavar="DIR|STACK", help="folder, stack or image")
    add("--masks", required=True, type=Path, metavar="DIR|STACK", help="masks of the same names")
    add("-o", "--output", required=True, type=Path, metavar="NAME.ptsam.safetensors")
    _add_planes(parser, "the annotated planes, inclusive; by default those with any paint")
    add("--limit", type=_positive, metavar="N", help="use at most N annotated planes")
    _add_label(parser)
    add(
        "--ignore-label",
        type=int,
        metavar="N",
        help="mask value of pixels that nobody has decided on",
    )
    _add_normalize(parser)
    add("--class-name", default="object", metavar="NAME", help="what the object is called")
    add(
        "--classes",
        type=_classes,
        metavar="NAME=N,...",
        help="several objects and their mask values, for --method ssam: nuclei=1,cytoplasm=2",
    )
    add("--backbone", default="embedded", metavar="NAME|FILE", help="frozen SAM (%(default)s)")
    add("--encoder-prompts", action="store_true", help="learn prompts in the encoder too (slower)")
    add(
        "--method",
        metavar="NAME",
        help="ptsam (default), or to compare: lora (CellSeg1), autosam, samed, ssam, decoder",
    )
    add(
        "--method-setting",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help="of the method, such as encoder=true for lora; may be repeated",
    )
    add("--preset", choices=_PRESETS, default="standard", help="schedule (%(default)s)")
    add("--steps", type=_positive, metavar="N", help="training steps, instead of the preset's")
    add("--scale", type=_scale, default="auto", metavar="auto|fit|X", help=_SCALE_HELP)
    _add_axes(parser)
    add("--seed", type=int, default=0, metavar="N", help="random seed (%(default)s)")
    _add_device(parser)
    add("--checkpoint", type=Path, metavar="FILE", help="keep the state here; resume from it")
    add(
        "--augmentation-picture",
        type=Path,
        metavar="FILE",
        help="write a picture of 16 augmented samples",
    )


_SCALE_HELP = (
    "model pixels per image pixel: auto (from the objects' sizes), fit (whole image) or a number"
)


def _add_segment(subparsers: Commands) -> None:
    parser = _command(
        subparsers,
        "segment",
        commands.segment,
        "segment images with a specialist",
        _SEGMENT_EXAMPLES,
        "files that were complete are kept; what goes to .zarr goes on with the same command",
    )
    add = parser.add_argument
    add("prompt_file", type=Path, metavar="NAME.ptsam.safetensors")
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="folder, stack or image")
    add("-o", "--output", required=True, type=Path, metavar="OUT", help="folder or file to write")
    _add_planes(parser, "only these planes, inclusive")
    add("--probability", action="store_true", help="write probabilities too")
    add("--threshold", type=_fraction, metavar="P", help="instead of the specialist's own")
    add(
        "--rotations",
        type=int,
        choices=(1, 2, 4),
        help="look at each image in so many positions and average, instead of the specialist's "
        "own number: slower by as much, often a little more accurate",
    )
    add(
        "--minimum-size",
        type=_positive,
        default=1,
        metavar="N",
        help="leave out objects of fewer pixels in a plane",
    )
    add(
        "--objects", action="store_true", help="number and measure objects too, in 3D if there is Z"
    )
    _add_volumes(parser)
    add("--scale", type=_fixed_scale, metavar="fit|X", help="instead of the specialist's own")
    add("--object", metavar="NAME", help="which one, if the specialist knows several (--classes)")
    add("--backbone", metavar="NAME|FILE", help="where its backbone is, if not found by name")
    add("--cache", action="store_true", help="keep embeddings for the next time, see 'embed'")
    _add_axes(parser)
    _add_device(parser)


def _add_train_clicks(subparsers: Commands) -> None:
    parser = _command(
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
    _add_planes(parser, "the annotated planes, inclusive; by default those with any paint")
    add("--limit", type=_positive, metavar="N", help="use at most N annotated planes")
    _add_normalize(parser)
    add("--class-name", default="object", metavar="NAME", help="what the object is called")
    add("--backbone", default="embedded", metavar="NAME|FILE", help="frozen SAM (%(default)s)")
    add("--steps", type=_positive, metavar="N", help="training steps")
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
    add("--scale", type=_scale, default="auto", metavar="auto|fit|X", help=_SCALE_HELP)
    _add_axes(parser)
    add("--seed", type=int, default=0, metavar="N", help="random seed (%(default)s)")
    _add_device(parser)


def _add_click(subparsers: Commands) -> None:
    parser = _command(
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
    add("--scale", type=_fixed_scale, metavar="fit|X", help="model pixels per image pixel (fit)")
    add("--plane", type=int, metavar="N", help="plane of a stack that the clicks are on")
    add("--follow", action="store_true", help="follow the object through the stack")
    _add_axes(parser)
    _add_device(parser)


def _add_embed(subparsers: Commands) -> None:
    parser = _command(
        subparsers,
        "embed",
        commands.embed,
        "encode images now, so that training and segmenting need no encoder",
        _EMBED_EXAMPLES,
        "what was encoded is kept; the same command goes on from there",
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="folder, stack or image")
    add(
        "--specialist",
        type=Path,
        metavar="NAME.ptsam.safetensors",
        help="encode as it will look at them: backbone, scale, brightness, axes and channel",
    )
    add("--backbone", metavar="NAME|FILE", help="frozen SAM (embedded)")
    add("--scale", type=_fixed_scale, metavar="fit|X", help="model pixels per image pixel (fit)")
    _add_planes(parser, "only these planes, inclusive")
    _add_axes(parser)
    _add_device(parser)


def _add_cache(subparsers: Commands) -> None:
    parser = _command(
        subparsers,
        "cache",
        caching.show,
        "show, verify or clear the embeddings that are kept on disk",
        _CACHE_EXAMPLES,
    )
    _add_json(parser)
    actions = parser.add_subparsers(metavar="verify|clear")
    verify = _command(actions, "verify", caching.verify, "read all, remove what is damaged")
    clear = _command(actions, "clear", caching.clear, "remove embeddings")
    clear.add_argument("--backbone", metavar="NAME", help="only those of this one")
    for action in (verify, clear):
        # SUPPRESS keeps one that was given before the action.
        _add_json(action, argparse.SUPPRESS)


def _add_volumes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("large inputs and many of them")
    add = group.add_argument
    add(
        "--z-smooth",
        type=_sigma,
        default=0.0,
        metavar="SIGMA",
        help="smooth logits along Z with a Gaussian of so many planes",
    )
    add(
        "--three-axes",
        action="store_true",
        help="segment along Z, Y and X, and average (three times the work)",
    )
    add(
        "--scheduler",
        metavar="local:N|tcp://HOST:PORT",
        help="compute on a Dask cluster: N workers here, or those of a scheduler",
    )
    add(
        "--ome-zarr",
        choices=("0.5", "0.4"),
        default="0.5",
        help="version of the format of .zarr outputs (%(default)s)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace what another job made, and do again what is done",
    )
    add("--dry-run", action="store_true", help="say what would be done, and do nothing")


def _add_evaluate(subparsers: Commands) -> None:
    parser = _command(
        subparsers,
        "evaluate",
        commands.evaluate,
        "score a segmentation against masks",
        _EVALUATE_EXAMPLES,
    )
    add = parser.add_argument
    add("predicted", type=Path, metavar="PREDICTED", help="folder or stack of masks")
    add("--masks", required=True, type=Path, metavar="DIR|STACK", help="the truth")
    _add_planes(parser, "only these planes, inclusive")
    _add_label(parser)
    _add_json(parser)


def _add_info(subparsers: Commands) -> None:
    parser = _command(
        subparsers, "info", commands.info, "say what a prompt file holds and how it was made"
    )
    parser.add_argument("prompt_file", type=Path, metavar="NAME.ptsam.safetensors")
    _add_json(parser)


def _add_backbones(subparsers: Commands) -> None:
    parser = _command(
        subparsers,
        "backbones",
        commands.backbones,
        "list the frozen SAMs, or download one",
        f"examples:\n  {PROGRAM} backbones\n  {PROGRAM} backbones download vit_b\n",
    )
    actions = parser.add_subparsers(metavar="download")
    download = _command(
        actions, "download", commands.download, "download and verify the weights of one"
    )
    download.add_argument("name", metavar="NAME", help=f"as listed by '{PROGRAM} backbones'")


def _add_benchmark(subparsers: Commands) -> None:
    parser = _command(
        subparsers,
        "benchmark",
        commands.benchmark,
        "compare methods on data sets, as a study's file says",
        _BENCHMARK_EXAMPLES,
        "what was done is kept, and the same command goes on from there",
    )
    add = parser.add_argument
    add("config", type=Path, metavar="STUDY.toml")
    add("-o", "--output", type=Path, metavar="DIR", help="default: output/benchmark/STUDY")
    add("--data", type=Path, metavar="DIR", help="where data sets are, or are downloaded to")
    add(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="of cells, DATA/METHOD/nSIZE-splitK-seedS, such as 'emps/*/n16*'; may be repeated",
    )
    add("--hours", type=_number, metavar="H", help="start no further training after so many")
    add("--retry", action="store_true", help="run again what failed")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run", "--estimate", action="store_true", help="only tell what to do and its hours"
    )
    instead.add_argument("--report-only", action="store_true", help="only write the report")


def _add_demo(subparsers: Commands) -> None:
    parser = _command(
        subparsers,
        "demo",
        commands.demo,
        "train, segment and score on real images, offline, in about a minute",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="where pictures and prompt files go (%(default)s)",
    )


def _add_planes(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--planes", type=_planes, metavar="0-15", help=text)


def _add_normalize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--normalize",
        choices=("image", "stack"),
        default="image",
        help="measure brightness on each image, or once on all of them (%(default)s)",
    )


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label", type=int, metavar="N", help="mask value of the object (default: any above 0)"
    )


def _add_axes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--axes", metavar="AXES", help="names of the axes, for instance ZCYX")
    parser.add_argument("--channel", type=_channel, metavar="N|NAME", help="use one channel only")


def _add_json(parser: argparse.ArgumentParser, default: object = False) -> None:
    parser.add_argument(
        "--json", action="store_true", default=default, help="print one JSON object"
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=_DEVICES, default="auto", help="(%(default)s)")


def _planes(text: str) -> list[int]:
    try:
        return parse_plane_ranges(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


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


def _classes(text: str) -> dict[str, int]:
    classes = {}
    for part in text.split(","):
        name, _, label = part.partition("=")
        if not name.strip() or not label.strip().isdecimal():
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form NAME=N")
        classes[name.strip()] = int(label)
    return classes


def _setting(text: str) -> tuple[str, Any]:
    """A setting by name; its value is JSON, or else a text."""
    name, separator, value = text.partition("=")
    if not (separator and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _fraction(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 1")
    return value


def _scale(text: str) -> float | str:
    return text if text == "auto" else _fixed_scale(text)


def _fixed_scale(text: str) -> float | str:
    if text == "fit":
        return text
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _sigma(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 50:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 50")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _channel(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
