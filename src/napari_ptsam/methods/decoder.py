"""Fine-tuning of the whole mask decoder: what users do without any of the methods here.

Source: micro-sam's fine-tuning with a frozen image encoder (Archit et al., Nature Methods 2025),
without its interactive prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from napari_ptsam.backbones.backbone import DEFAULT_MASK_INDEX, Backbone, Embedding
from napari_ptsam.backbones.overlay import by_name, own_copies
from napari_ptsam.methods.base import FrozenEncoder, check_mask_index, no_prompts
from napari_ptsam.methods.overlay import Adapted


@dataclass(frozen=True)
class DecoderSettings:
    """The output.

    Attributes
    ----------
    mask_index
        Which of SAM's four masks is the output.
    """

    mask_index: int = DEFAULT_MASK_INDEX

    def __post_init__(self) -> None:
        check_mask_index(self.mask_index)


class WholeDecoder(FrozenEncoder):
    """Mask decoder and prompt encoder are copies that are trained; the encoder is frozen.

    Parameters
    ----------
    settings
        The output.
    backbone
        Whose decoder training starts from.
    seed
        Without effect: nothing is drawn.
    """

    name: ClassVar[str] = "decoder"
    title: ClassVar[str] = "Whole mask decoder"
    settings_type: ClassVar[type[Any]] = DecoderSettings

    def __init__(
        self,
        settings: Any,
        backbone: Backbone,
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        super().__init__(settings)
        parts = ("mask_decoder.", "prompt_encoder.")
        names = (n for n, _ in backbone.sam.named_parameters() if n.startswith(parts))
        self.weights = own_copies(backbone.sam, names)
        self.freeze_idle()

    @property
    def learning_rate(self) -> float:
        """A tenth of the rate of prompts, which are far fewer."""
        return 1e-3

    @property
    def idle(self) -> frozenset[str]:
        """The heads of the other masks and of the quality, and all that encodes user prompts."""
        heads = "mask_decoder/output_hypernetworks_mlps/"
        used = (
            "mask_decoder/transformer/",
            "mask_decoder/output_upscaling/",
            "mask_decoder/iou_token/",
            "mask_decoder/mask_tokens/",
            f"{heads}{self.settings.mask_index}/",
            "prompt_encoder/no_mask_embed/",
        )
        return frozenset(f"weights.{name}" for name in self.weights if not name.startswith(used))

    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Logits of the chosen mask from the trained decoder, without any prompt."""
        twin = Adapted(backbone, by_name(self.weights))
        return twin.decode(embedding, no_prompts(backbone), self.settings.mask_index)
