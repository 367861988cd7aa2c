"""Puts the commands' own `--help` into the pages, so that the two cannot differ."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any

from napari_ptsam.cli.parser import build_parser

_PLACE = re.compile(r"^\{\{ help(?: (?P<command>[\w-]+))? \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each line ``{{ help COMMAND }}`` by the help text of the command."""
    return _PLACE.sub(lambda match: f"```text\n{_help(match['command'])}```", markdown)


def _help(command: str | None) -> str:
    os.environ["COLUMNS"] = "88"  # argparse wraps to the terminal's width otherwise
    parser = build_parser()
    if command is None:
        return parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return str(action.choices[command].format_help())
    raise KeyError(command)
