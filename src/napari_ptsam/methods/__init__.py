"""The family of adaptation methods, by name.

A new method is one file with a settings dataclass and a `Method` subclass, and
one entry here.
"""

from __future__ import annotations

from typing import Any

from napari_ptsam.backbones.backbone import Backbone
from napari_ptsam.errors import PromptFileError
from napari_ptsam.methods.base import Method
from napari_ptsam.methods.ptsam import Ptsam

METHODS: dict[str, type[Method]] = {Ptsam.name: Ptsam}


def build_method(name: str, settings: dict[str, Any], backbone: Backbone, seed: int = 0) -> Method:
    """A method with fresh parameters, from what a prompt file says of it.

    Raises
    ------
    PromptFileError
        If this version does not know the method or its settings.
    """
    if name not in METHODS:
        raise PromptFileError(
            f"The method '{name}' is not known to this version; known are: "
            f"{', '.join(sorted(METHODS))}. A newer napari-ptsam may read the file."
        )
    try:
        return METHODS[name].build(settings, backbone, seed)
    except TypeError as error:
        raise PromptFileError(
            f"The settings {settings} are not those of '{name}' in this version ({error}). "
            "A newer napari-ptsam may read the file."
        ) from error


__all__ = ["METHODS", "Method", "Ptsam", "build_method"]
