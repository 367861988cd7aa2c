"""Prompt-tuned SAM specialists: from sixteen painted masks to a segmented stack.

Importing this package is light: torch and the engine load when one of the
names below is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ptsam._lazy import loader

__version__ = "0.1.0"

if TYPE_CHECKING:
    from napari_ptsam.backbones import list_backbones, load_backbone
    from napari_ptsam.errors import (
        BackboneError,
        DownloadError,
        InputError,
        OutOfMemoryError,
        PromptFileError,
        PtsamError,
        TrainingError,
    )
    from napari_ptsam.normalize import Normalization
    from napari_ptsam.planes import Planes, open_planes
    from napari_ptsam.promptfile import read_prompt_file, write_prompt_file
    from napari_ptsam.specialist import Specialist
else:
    __getattr__ = loader(
        __name__,
        {
            "Specialist": "specialist",
            "Planes": "planes",
            "open_planes": "planes",
            "Normalization": "normalize",
            "load_backbone": "backbones",
            "list_backbones": "backbones",
            "read_prompt_file": "promptfile",
            "write_prompt_file": "promptfile",
            "PtsamError": "errors",
            "InputError": "errors",
            "BackboneError": "errors",
            "DownloadError": "errors",
            "PromptFileError": "errors",
            "TrainingError": "errors",
            "OutOfMemoryError": "errors",
        },
    )

__all__ = [
    "Specialist",
    "Planes",
    "open_planes",
    "Normalization",
    "load_backbone",
    "list_backbones",
    "read_prompt_file",
    "write_prompt_file",
    "PtsamError",
    "InputError",
    "BackboneError",
    "DownloadError",
    "PromptFileError",
    "TrainingError",
    "OutOfMemoryError",
    "__version__",
]


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
