"""Frozen SAMs: by name, from a file, or the small one inside the package.

What is known by name can be listed without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ptsam._lazy import loader

if TYPE_CHECKING:
    from napari_ptsam.backbones.backbone import Backbone, Embedding
    from napari_ptsam.backbones.download import fetch
    from napari_ptsam.backbones.loading import load_backbone
    from napari_ptsam.backbones.registry import BackboneSpec, find, list_backbones
else:
    __getattr__ = loader(
        __name__,
        {
            "Backbone": "backbone",
            "BackboneSpec": "registry",
            "Embedding": "backbone",
            "fetch": "download",
            "find": "registry",
            "list_backbones": "registry",
            "load_backbone": "loading",
        },
    )

__all__ = [
    "Backbone",
    "BackboneSpec",
    "Embedding",
    "fetch",
    "find",
    "list_backbones",
    "load_backbone",
]
