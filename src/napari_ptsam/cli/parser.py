"""The command line's grammar: commands, options and their help."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_ptsam import __version__
from napari_ptsam.cli import caching, commands
from napari_ptsam.cli.click_parser import add_click, add_train_clicks
from napari_ptsam.cli.options import (
    DEBUG_HELP,
    SCALE_HELP,
    Commands,
    add_axes,
    add_device,
    add_ignore_label,
    add_json,
    add_label,
    add_normalize,
    add_planes,
    classes,
    command,
    fixed_scale,
    fraction,
    number,
    positive,
    scale,
    setting,
    sigma,
)
from napari_ptsam.cli.usage import PROGRAM
from napari_ptsam.promptfile import ROTATIONS

_PRESETS = ("quick", "standard", "paper")

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
  {PROGRAM} segment nuclei.ptsam.safetensors images/ -o segmented/
  {PROGRAM} segment membranes.ptsam.safetensors em.tif --planes 20-29 -o membranes.tif
  {PROGRAM} segment nuclei.ptsam.safetensors monday/ tuesday/ -o segmented/ --probability
  {PROGRAM} segment cells.ptsam.safetensors volume.zarr -o cells.zarr --objects --z-smooth 1
  {PROGRAM} segment cells.ptsam.safetensors volume.zarr -o cells.zarr --scheduler local:4
"""

_EVALUATE_EXAMPLES = f"""\
Folders are paired by file name, stacks plane by plane. A prediction that holds
only the planes named by --planes is paired with them in order.

examples:
  {PROGRAM} evaluate masks/ --masks truth/
  {PROGRAM} evaluate membranes.tif --masks labels.tif --planes 20-29 --json
  {PROGRAM} evaluate cells.tif --masks labels.tif --label 1 --ignore-label 255
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
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_train(subparsers)
    _add_segment(subparsers)
    _add_evaluate(subparsers)
    add_train_clicks(subparsers)
    add_click(subparsers)
    _add_embed(subparsers)
    _add_cache(subparsers)
    _add_info(subparsers)
    _add_backbones(subparsers)
    _add_benchmark(subparsers)
    _add_demo(subparsers)
    return parser


def _add_train(subparsers: Commands) -> None:
    parser = command(
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
    add_planes(parser, "the annotated planes, inclusive; by default those with any paint")
    add("--limit", type=positive, metavar="N", help="use at most N annotated planes")
    add_label(parser)
    add_ignore_label(parser)
    add_normalize(parser)
    add("--class-name", default="object", metavar="NAME", help="what the object is called")
    add(
        "--classes",
        type=classes,
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
        type=setting,
        metavar="KEY=VALUE",
        help="of the method, such as encoder=true for lora; may be repeated",
    )
    add("--preset", choices=_PRESETS, default="standard", help="schedule (%(default)s)")
    add("--steps", type=positive, metavar="N", help="training steps, instead of the preset's")
    add("--scale", type=scale, default="auto", metavar="auto|fit|X", help=SCALE_HELP)
    add_axes(parser)
    add("--seed", type=int, default=0, metavar="N", help="random seed (%(default)s)")
    add_device(parser)
    add("--checkpoint", type=Path, metavar="FILE", help="keep the state here; resume from it")
    add(
        "--augmentation-picture",
        type=Path,
        metavar="FILE",
        help="write a picture of 16 augmented samples",
    )


def _add_segment(subparsers: Commands) -> None:
    parser = command(
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
    add_planes(parser, "only these planes, inclusive")
    add("--probability", action="store_true", help="write probabilities too")
    add("--threshold", type=fraction, metavar="P", help="instead of the specialist's own")
    add(
        "--rotations",
        type=int,
        choices=ROTATIONS,
        help="look at each image in so many positions and average, instead of the specialist's "
        "own number: slower by as much, often a little more accurate",
    )
    add(
        "--minimum-size",
        type=positive,
        default=1,
        metavar="N",
        help="leave out objects of fewer pixels in a plane",
    )
    add(
        "--objects", action="store_true", help="number and measure objects too, in 3D if there is Z"
    )
    _add_volumes(parser)
    add("--scale", type=fixed_scale, metavar="fit|X", help="instead of the specialist's own")
    add("--object", metavar="NAME", help="which one, if the specialist knows several (--classes)")
    add("--backbone", metavar="NAME|FILE", help="where its backbone is, if not found by name")
    add("--cache", action="store_true", help="keep embeddings for the next time, see 'embed'")
    add_axes(parser)
    add_device(parser)


def _add_embed(subparsers: Commands) -> None:
    parser = command(
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
    add("--scale", type=fixed_scale, metavar="fit|X", help="model pixels per image pixel (fit)")
    add_planes(parser, "only these planes, inclusive")
    add_axes(parser)
    add_device(parser)


def _add_cache(subparsers: Commands) -> None:
    parser = command(
        subparsers,
        "cache",
        caching.show,
        "show, verify or clear the embeddings that are kept on disk",
        _CACHE_EXAMPLES,
    )
    add_json(parser)
    actions = parser.add_subparsers(metavar="verify|clear")
    verify = command(actions, "verify", caching.verify, "read all, remove what is damaged")
    clear = command(actions, "clear", caching.clear, "remove embeddings")
    clear.add_argument("--backbone", metavar="NAME", help="only those of this one")
    for action in (verify, clear):
        # SUPPRESS keeps one that was given before the action.
        add_json(action, argparse.SUPPRESS)


def _add_volumes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("large inputs and many of them")
    add = group.add_argument
    add(
        "--z-smooth",
        type=sigma,
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
        help="replace what is there, whoever made it, and do again what is done",
    )
    add("--dry-run", action="store_true", help="say what would be done, and do nothing")


def _add_evaluate(subparsers: Commands) -> None:
    parser = command(
        subparsers,
        "evaluate",
        commands.evaluate,
        "score a segmentation against masks",
        _EVALUATE_EXAMPLES,
    )
    add = parser.add_argument
    add("predicted", type=Path, metavar="PREDICTED", help="folder or stack of masks")
    add("--masks", required=True, type=Path, metavar="DIR|STACK", help="the truth")
    add_planes(parser, "only these planes, inclusive")
    add_label(parser)
    add_ignore_label(parser)
    add_json(parser)


def _add_info(subparsers: Commands) -> None:
    parser = command(
        subparsers, "info", commands.info, "say what a prompt file holds and how it was made"
    )
    parser.add_argument("prompt_file", type=Path, metavar="NAME.ptsam.safetensors")
    add_json(parser)


def _add_backbones(subparsers: Commands) -> None:
    parser = command(
        subparsers,
        "backbones",
        commands.backbones,
        "list the frozen SAMs, or download one",
        f"examples:\n  {PROGRAM} backbones\n  {PROGRAM} backbones download vit_b\n",
    )
    actions = parser.add_subparsers(metavar="download")
    download = command(
        actions, "download", commands.download, "download and verify the weights of one"
    )
    download.add_argument("name", metavar="NAME", help=f"as listed by '{PROGRAM} backbones'")


def _add_benchmark(subparsers: Commands) -> None:
    parser = command(
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
    add("--hours", type=number, metavar="H", help="start no further training after so many")
    add("--retry", action="store_true", help="run again what failed")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run", "--estimate", action="store_true", help="only tell what to do and its hours"
    )
    instead.add_argument("--report-only", action="store_true", help="only write the report")


def _add_demo(subparsers: Commands) -> None:
    parser = command(
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
