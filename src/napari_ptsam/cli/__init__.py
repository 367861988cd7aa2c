"""The command line: parse, run one command, turn every ending into an exit code."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence

from napari_ptsam.cli.parser import build_parser
from napari_ptsam.cli.usage import PROGRAM, UsageError
from napari_ptsam.errors import PtsamError

OK, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run `napari-ptsam` with these arguments.

    Parameters
    ----------
    argv
        Arguments without the program's name; by default those of this process.

    Returns
    -------
    int
        0 when all went well, 1 when the work failed, 2 when the command was
        used wrongly, 130 when it was interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has printed help or what is wrong
        return int(stop.code or OK)
    args.command_line = shlex.join([PROGRAM, *arguments])
    with warnings.catch_warnings():
        if not args.debug:
            warnings.showwarning = _show_warning
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    """The exit code of the command; errors are words on stderr."""
    try:
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted" + (f"; {args.interrupted}" if args.interrupted else ""))
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`). Python would complain
        # once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        _say(_explain(error))
        return WRONG_USE if isinstance(error, UsageError) else FAILED
    return OK


def _explain(error: Exception) -> str:
    """What went wrong, in words."""
    if isinstance(error, PtsamError | OSError | UsageError):
        return f"error: {error}"
    return (
        f"unexpected error: {type(error).__name__}: {error}\n"
        "This is a fault of the program. Run the same command with --debug and report what it says."
    )


def _say(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _say(f"note: {message}")
