"""SAM's networks from the `segment_anything` package, without torchvision.

`segment_anything/__init__.py` imports torchvision for its predictor; PyPI has
no build of torchvision that loads beside a CPU build of torch, and the networks
do not need it. This module therefore gives itself the installed package's
folder as `__path__` and imports the two parts it needs as submodules of its
own. Nothing is registered under the name ``segment_anything``, so that another
plugin can import the real package before or after, whole.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from napari_ptsam.errors import BackboneError


def _package_folders() -> list[str]:
    loaded = sys.modules.get("segment_anything")
    if loaded is not None and hasattr(loaded, "__path__"):  # its __spec__ may be None
        return list(loaded.__path__)
    spec = find_spec("segment_anything")
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(
            "The package segment-anything is not installed, which holds SAM's networks. "
            "Install it with: pip install segment-anything (torchvision is not needed)."
        )
    return list(spec.submodule_search_locations)


if TYPE_CHECKING:
    from segment_anything.build_sam import _build_sam
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )
    from segment_anything.modeling.common import (
        LayerNorm2d,
        MLPBlock,
    )
    from segment_anything.modeling.image_encoder import (
        Attention,
        Block,
        add_decomposed_rel_pos,
        get_rel_pos,
        window_partition,
        window_unpartition,
    )
else:
    __path__ = _package_folders()

    from napari_ptsam.backbones._sam.build_sam import _build_sam
    from napari_ptsam.backbones._sam.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )
    from napari_ptsam.backbones._sam.modeling.common import LayerNorm2d, MLPBlock
    from napari_ptsam.backbones._sam.modeling.image_encoder import (
        Attention,
        Block,
        add_decomposed_rel_pos,
        get_rel_pos,
        window_partition,
        window_unpartition,
    )

build_sam = _build_sam
"""`segment_anything`'s own constructor, parametric in the encoder's sizes."""

__all__ = [
    "Attention",
    "Block",
    "ImageEncoderViT",
    "LayerNorm2d",
    "MLPBlock",
    "MaskDecoder",
    "PromptEncoder",
    "Sam",
    "TwoWayTransformer",
    "add_decomposed_rel_pos",
    "build_sam",
    "get_rel_pos",
    "window_partition",
    "window_unpartition",
]
