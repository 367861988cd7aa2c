"""Options that several commands share, and what their values are read as."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from napari_ptsam.errors import InputError
from napari_ptsam.planes import parse_plane_ranges

Commands = Any
"""What `add_subparsers` returns; argparse keeps its type private."""

_DEVICES = ("auto", "cpu", "cuda", "mps")
DEBUG_HELP = "show the traceback of an error"

SCALE_HELP = (
    "model pixels per image pixel: auto (from the objects' sizes), fit (whole image) or a number"
)


def command(
    subparsers: Commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    epilog: str | None = None,
    interrupted: str = "",
) -> argparse.ArgumentParser:
    """Add a command; `interrupted` is what to tell someone who stops it."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # SUPPRESS keeps a --debug that was given before the command.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG_HELP)
    parser.set_defaults(run=run, interrupted=interrupted)
    return parser


def add_planes(parser: argparse.ArgumentParser, text: str) -> None:
    """Which planes."""
    parser.add_argument("--planes", type=planes, metavar="0-15", help=text)


def add_normalize(parser: argparse.ArgumentParser) -> None:
    """How brightness is measured."""
    parser.add_argument(
        "--normalize",
        choices=("image", "stack"),
        default="image",
        help="measure brightness on each image, or once on all of them (%(default)s)",
    )


def add_label(parser: argparse.ArgumentParser) -> None:
    """Which mask value is the object."""
    parser.add_argument(
        "--label", type=int, metavar="N", help="mask value of the object (default: any above 0)"
    )


def add_ignore_label(parser: argparse.ArgumentParser) -> None:
    """Which mask value does not count."""
    parser.add_argument(
        "--ignore-label",
        type=int,
        metavar="N",
        help="mask value of pixels that nobody has decided on",
    )


def add_axes(parser: argparse.ArgumentParser) -> None:
    """How the images are read."""
    parser.add_argument("--axes", metavar="AXES", help="names of the axes, for instance ZCYX")
    parser.add_argument("--channel", type=channel, metavar="N|NAME", help="use one channel only")


def add_json(parser: argparse.ArgumentParser, default: object = False) -> None:
    """Output for programs."""
    parser.add_argument(
        "--json", action="store_true", default=default, help="print one JSON object"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where to compute."""
    parser.add_argument("--device", choices=_DEVICES, default="auto", help="(%(default)s)")


def planes(text: str) -> list[int]:
    """Planes given as 0-2,7."""
    try:
        return parse_plane_ranges(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def classes(text: str) -> dict[str, int]:
    """Mask values by the object's name, given as NAME=N,..."""
    found = {}
    for part in text.split(","):
        name, _, label = part.partition("=")
        if not name.strip() or not label.strip().isdecimal():
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form NAME=N")
        found[name.strip()] = int(label)
    return found


def setting(text: str) -> tuple[str, Any]:
    """A setting by name; its value is JSON, or else a text."""
    name, separator, value = text.partition("=")
    if not (separator and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def fraction(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    value = number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 1")
    return value


def scale(text: str) -> float | str:
    """A working scale, or how to choose it."""
    return text if text == "auto" else fixed_scale(text)


def fixed_scale(text: str) -> float | str:
    """A working scale, or ``fit``."""
    if text == "fit":
        return text
    value = number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def sigma(text: str) -> float:
    """The SD of a smoothing, planes."""
    value = number(text)
    if not 0 <= value <= 50:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 50")
    return value


def number(text: str) -> float:
    """Any number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def channel(text: str) -> int | str:
    """A channel by number or name."""
    return int(text) if text.isdecimal() else text
