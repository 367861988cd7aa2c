"""Interactive segmentation: clicks and boxes in, the mask of one object out.

Prompts can be made and checked without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ptsam._lazy import loader

if TYPE_CHECKING:
    from napari_ptsam.clicking.answers import ClickAnswer
    from napari_ptsam.clicking.clicker import Clicker
    from napari_ptsam.clicking.plan import ClickPlan, ClickStep
    from napari_ptsam.clicking.plane import EmbeddedPlane
    from napari_ptsam.clicking.prompt import Box, Click, ClickPrompt
    from napari_ptsam.clicking.training import click_plan, train_clicks
else:
    __getattr__ = loader(
        __name__,
        {
            "Box": "prompt",
            "Click": "prompt",
            "ClickAnswer": "answers",
            "ClickPlan": "plan",
            "ClickPrompt": "prompt",
            "ClickStep": "plan",
            "Clicker": "clicker",
            "EmbeddedPlane": "plane",
            "click_plan": "training",
            "train_clicks": "training",
        },
    )

__all__ = [
    "Box",
    "Click",
    "ClickAnswer",
    "ClickPlan",
    "ClickPrompt",
    "ClickStep",
    "Clicker",
    "EmbeddedPlane",
    "click_plan",
    "train_clicks",
]
