"""Interactive segmentation: clicks and boxes in, the mask of one object out.

Prompts can be made and checked without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ptsam._lazy import loader

if TYPE_CHECKING:
    from napari_ptsam.clicking.clicker import ClickAnswer, Clicker
    from napari_ptsam.clicking.plane import EmbeddedPlane
    from napari_ptsam.clicking.prompt import Box, Click, ClickPrompt
else:
    __getattr__ = loader(
        __name__,
        {
            "Box": "prompt",
            "Click": "prompt",
            "ClickAnswer": "clicker",
            "ClickPrompt": "prompt",
            "Clicker": "clicker",
            "EmbeddedPlane": "plane",
        },
    )

__all__ = ["Box", "Click", "ClickAnswer", "ClickPrompt", "Clicker", "EmbeddedPlane"]
