"""AutoSAM: SAM's mask decoder, with one multimask output, trained as a whole.

Source: Hu et al., "How to efficiently adapt large segmentation model (SAM) to medical images",
arXiv 2306.13731; counted as in table 1 of the PTSAM paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from napari_ptsam.backbones.backbone import Backbone, Embedding
from napari_ptsam.backbones.overlay import by_name, own_copies
from napari_ptsam.methods.base import FrozenEncoder, no_prompts
from napari_ptsam.methods.overlay import Adapted

MASKS = 2
"""Mask tokens: SAM's single-mask output, which stays unused, and one multimask output."""

TOKENS = "mask_decoder.mask_tokens.weight"


@dataclass(frozen=True)
class AutoSamSettings:
    """There is nothing to choose."""


class AutoSam(FrozenEncoder):
    """The mask decoder's transformer, upscaling, two mask tokens and their heads are trained.

    SAM's token and head for the predicted quality stay frozen.

    Parameters
    ----------
    settings
        None to choose.
    backbone
        Whose decoder training starts from.
    seed
        Without effect: nothing is random.
    """

    name: ClassVar[str] = "autosam"
    title: ClassVar[str] = "AutoSAM (whole mask decoder)"
    settings_type: ClassVar[type[Any]] = AutoSamSettings

    def __init__(self, settings: AutoSamSettings, backbone: Backbone, seed: int = 0) -> None:  # noqa: ARG002
        super().__init__(settings)
        self.weights = own_copies(backbone.sam, _trained(backbone))
        tokens = backbone.sam.get_parameter(TOKENS).detach()[:MASKS]
        self.mask_tokens = nn.Parameter(tokens.clone())
        self.freeze_idle()

    @property
    def learning_rate(self) -> float:
        """AutoSAM's own."""
        return 5e-4

    @property
    def idle(self) -> frozenset[str]:
        """The head of the single-mask output."""
        return frozenset(
            f"weights.{name}"
            for name in self.weights
            if name.startswith("mask_decoder/output_hypernetworks_mlps/0/")
        )

    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Logits of the multimask output."""
        twin = Adapted(backbone, by_name(self.weights) | {TOKENS: self.mask_tokens})
        # The decoder is this call's own copy, since tensors in it were exchanged.
        decoder = twin.mask_decoder
        decoder.num_mask_tokens = MASKS
        decoder.output_hypernetworks_mlps = decoder.output_hypernetworks_mlps[:MASKS]
        return twin.decode(embedding, no_prompts(backbone), MASKS - 1)


def _trained(backbone: Backbone) -> list[str]:
    """Names of all parameters of the decoder that are trained, but for the mask tokens."""
    heads = tuple(f"output_hypernetworks_mlps.{i}." for i in range(MASKS))
    kept = ("transformer.", "output_upscaling.", *heads)
    names = (name for name, _ in backbone.mask_decoder.named_parameters())
    return [f"mask_decoder.{name}" for name in names if name.startswith(kept)]
