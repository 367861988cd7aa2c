"""SAMed: low-rank changes of the image encoder, and the whole mask decoder trained.

Source: Zhang and Liu, "Customized Segment Anything Model for medical image segmentation",
arXiv 2304.13785; counted as in table 1 of the PTSAM paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from napari_ptsam.backbones.backbone import DEFAULT_MASK_INDEX, Backbone, Embedding
from napari_ptsam.errors import InputError
from napari_ptsam.methods.base import Method, check_mask_index, no_prompts
from napari_ptsam.methods.lora import LowRank, encoder_projections
from napari_ptsam.methods.overlay import Adapted, by_name, own_copies


@dataclass(frozen=True)
class SamedSettings:
    """Size of the encoder's changes, and the output.

    Attributes
    ----------
    rank
        r of the changes of queries and values; 4 in SAMed.
    mask_index
        Which of SAM's four masks is the output.
    """

    rank: int = 4
    mask_index: int = DEFAULT_MASK_INDEX

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 256:
            raise InputError(f"SAMed takes a rank of 1 to 256, not {self.rank}; 4 is usual.")
        check_mask_index(self.mask_index)


class Samed(Method):
    """LoRA in the encoder; mask decoder and prompt encoder are copies that are trained.

    Parameters
    ----------
    settings
        Rank and output.
    backbone
        Whose decoder training starts from.
    seed
        Of the random initialisation.
    """

    name: ClassVar[str] = "samed"
    title: ClassVar[str] = "SAMed (LoRA and whole mask decoder)"
    settings_type: ClassVar[type[Any]] = SamedSettings
    settings: SamedSettings

    def __init__(self, settings: SamedSettings, backbone: Backbone, seed: int = 0) -> None:
        super().__init__(settings)
        self.encoder = LowRank(list(encoder_projections(backbone)), settings.rank, seed)
        parts = ("mask_decoder.", "prompt_encoder.")
        names = (n for n, _ in backbone.sam.named_parameters() if n.startswith(parts))
        self.weights = own_copies(backbone.sam, names)
        self.freeze_idle()

    @property
    def works_on_embeddings(self) -> bool:
        """False: the encoder is changed."""
        return False

    @property
    def learning_rate(self) -> float:
        """SAMed's own."""
        return 5e-3

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

    def encode(self, backbone: Backbone, images: Tensor) -> Embedding:
        """Embedding with the changed encoder."""
        return Adapted(backbone, self.encoder.weights(backbone.sam)).encode(images)

    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Logits of the chosen mask from the trained decoder, without any prompt."""
        twin = Adapted(backbone, by_name(self.weights))
        return twin.decode(embedding, no_prompts(backbone), self.settings.mask_index)
