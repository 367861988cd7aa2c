"""A frozen backbone with some tensors exchanged, for methods that change weights.

LoRA, singular values or a retrained decoder are computed anew for each call, and the call runs
on a shallow copy, see `napari_ptsam.backbones.overlay`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from napari_ptsam.backbones.backbone import Backbone
from napari_ptsam.backbones.overlay import overlay


class Adapted(Backbone):
    """A backbone with other tensors in some places, for one call.

    It computes all that it is asked for: what another kind of backbone remembers of the frozen
    network does not hold for this one.

    Parameters
    ----------
    backbone
        It shares all other tensors; modules that hold exchanged ones are its own.
    tensors
        By their names in the SAM, such as ``image_encoder.blocks.0.attn.qkv.weight``. Gradients
        flow into them.
    """

    def __init__(self, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
        # Without the base's, which would freeze what gradients are to flow through.
        self.sam = overlay(backbone.sam, tensors)
        self.name = backbone.name
        self.identity = f"{backbone.identity} adapted"
        self.architecture = backbone.architecture
