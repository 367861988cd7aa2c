"""The family of adaptation methods, by name.

A new method is one file with a settings dataclass and a `Method` subclass, and
one entry here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from napari_ptsam.backbones.backbone import Backbone
from napari_ptsam.errors import InputError, PromptFileError
from napari_ptsam.methods.autosam import AutoSam
from napari_ptsam.methods.base import Method
from napari_ptsam.methods.decoder import WholeDecoder
from napari_ptsam.methods.lora import Lora
from napari_ptsam.methods.plm import Plm
from napari_ptsam.methods.ptsam import Ptsam
from napari_ptsam.methods.samed import Samed
from napari_ptsam.methods.ssam import Ssam

METHODS: dict[str, type[Method]] = {
    m.name: m for m in (Ptsam, Lora, AutoSam, Samed, Ssam, WholeDecoder)
}

Kind = TypeVar("Kind", bound=Method)

CLICK_METHODS: dict[str, type[Plm]] = {Plm.name: Plm}
"""Those that answer clicks; see `napari_ptsam.clicking`."""


def build_method(name: str, settings: dict[str, Any], backbone: Backbone, seed: int = 0) -> Method:
    """A method with fresh parameters, from what a prompt file says of it.

    Raises
    ------
    PromptFileError
        If this version does not know the method or its settings, or it answers clicks.
    """
    if name in CLICK_METHODS:
        raise PromptFileError(
            f"The method '{name}' learned to answer clicks, and segments nothing without one. "
            "Open it in the Click dock, or use it with 'napari-ptsam click'; to segment all "
            "objects of a kind, train a specialist with 'napari-ptsam train'."
        )
    return _built(METHODS, name, settings, backbone, seed)


def build_click_method(
    name: str, settings: dict[str, Any], backbone: Backbone, seed: int = 0
) -> Plm:
    """As `build_method`, for one that answers clicks."""
    return _built(CLICK_METHODS, name, settings, backbone, seed)


def _built(
    kinds: Mapping[str, type[Kind]],
    name: str,
    settings: dict[str, Any],
    backbone: Backbone,
    seed: int,
) -> Kind:
    if name not in kinds:
        raise PromptFileError(
            f"The method '{name}' is not known to this version; known are: "
            f"{', '.join(sorted(kinds))}. A newer napari-ptsam may read the file."
        )
    try:
        # Each class builds its own kind.
        return cast(Kind, kinds[name].build(settings, backbone, seed))
    except TypeError as error:
        raise PromptFileError(
            f"The settings {settings} are not those of '{name}' in this version ({error}). "
            "A newer napari-ptsam may read the file."
        ) from error


def new_method(
    name: str,
    settings: dict[str, Any],
    backbone: Backbone,
    seed: int = 0,
    labels: Sequence[str] = ("object",),
) -> Method:
    """A method to be trained, from what a user asks for.

    Parameters
    ----------
    settings
        Those that are not to be the method's own.
    labels
        Names of the objects. Most methods know one, whatever it is called; to others the names
        are a setting.

    Raises
    ------
    InputError
        If there is no such method, or it has no such settings.
    PtsamError
        If it cannot get what it needs for training.
    """
    if name not in METHODS:
        raise InputError(f"There is no method '{name}'; choose one of {', '.join(METHODS)}.")
    if METHODS[name].knows_names:
        settings = {"labels": list(labels), **settings}
    elif len(labels) > 1:
        able = ", ".join(f"'{n}'" for n, kind in METHODS.items() if kind.knows_names)
        raise InputError(
            f"The method '{name}' learns one object, not {', '.join(labels)} at once. Train a "
            f"specialist for each, or choose the method {able}."
        )
    try:
        method = METHODS[name].build(settings, backbone, seed)
    except TypeError as error:
        known = [f.name for f in fields(METHODS[name].settings_type)]
        raise InputError(
            f"The method '{name}' cannot be set to {settings} ({error}). Its settings are: "
            f"{', '.join(known) or 'none'}."
        ) from error
    method.prepare()
    return method


__all__ = [
    "CLICK_METHODS",
    "METHODS",
    "AutoSam",
    "Lora",
    "Method",
    "Plm",
    "Ptsam",
    "Samed",
    "Ssam",
    "build_click_method",
    "build_method",
    "new_method",
]
