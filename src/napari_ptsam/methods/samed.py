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
from napari_ptsam.methods.base import check_mask_index
from napari_ptsam.methods.decoder import WholeDecoder
from napari_ptsam.methods.lora import LowRank, encoder_projections
from napari_ptsam.methods.overlay import Adapted


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


class Samed(WholeDecoder):
    """LoRA in the encoder beside a mask decoder that is trained whole.

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
        super().__init__(settings, backbone)
        self.encoder = LowRank(list(encoder_projections(backbone)), settings.rank, seed)

    @property
    def works_on_embeddings(self) -> bool:
        """False: the encoder is changed."""
        return False

    @property
    def learning_rate(self) -> float:
        """SAMed's own."""
        return 5e-3

    def encode(self, backbone: Backbone, images: Tensor) -> Embedding:
        """Embedding with the changed encoder."""
        return Adapted(backbone, self.encoder.weights(backbone.sam)).encode(images)
