"""CellSeg1: low-rank changes (LoRA) of SAM's query and value projections.

Sources: Zhou et al., "CellSeg1: Robust cell segmentation with one training image", 2024;
Hu et al., "LoRA", arXiv 2106.09685. As in the PTSAM paper's comparison (section 4.1.1) SAM
gets no user prompts. Without CellSeg1's dropout, since all methods share one recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ptsam.backbones.backbone import DEFAULT_MASK_INDEX, Backbone, Embedding
from napari_ptsam.errors import InputError
from napari_ptsam.methods.base import Method, check_mask_index, no_prompts
from napari_ptsam.methods.overlay import Adapted

DECODER_ATTENTION = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")


@dataclass(frozen=True)
class LoraSettings:
    """Where SAM is changed, and by how much at most.

    Attributes
    ----------
    rank
        r of each change; 4 in CellSeg1 and SAMed.
    encoder, decoder
        Whether the image encoder and the mask decoder are changed.
    mask_index
        Which of SAM's four masks is the output.
    """

    rank: int = 4
    encoder: bool = False
    decoder: bool = True
    mask_index: int = DEFAULT_MASK_INDEX

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 256:
            raise InputError(f"LoRA takes a rank of 1 to 256, not {self.rank}; 4 is usual.")
        if not (self.encoder or self.decoder):
            raise InputError("LoRA in neither encoder nor decoder has nothing to learn.")
        check_mask_index(self.mask_index)


@dataclass(frozen=True)
class Projection:
    """Some rows of a weight in SAM: those that make the queries, or the values.

    Attributes
    ----------
    name
        Of the projection, without dots.
    weight
        The weight's name in SAM.
    rows
        First row and end.
    columns
        Width of what is projected.
    """

    name: str
    weight: str
    rows: tuple[int, int]
    columns: int


def encoder_projections(backbone: Backbone) -> Iterator[Projection]:
    """Queries and values of all encoder blocks; SAM has them in one matrix, q above k above v."""
    width = backbone.encoder_width
    for i in range(backbone.encoder_depth):
        weight = f"image_encoder.blocks.{i}.attn.qkv.weight"
        yield Projection(f"encoder_{i}_q", weight, (0, width), width)
        yield Projection(f"encoder_{i}_v", weight, (2 * width, 3 * width), width)


def decoder_projections(backbone: Backbone) -> Iterator[Projection]:
    """Queries and values of all attentions of the mask decoder (7 in SAM)."""
    transformer = backbone.mask_decoder.transformer
    places = {
        f"{i}_{kind}": f"layers.{i}.{kind}"
        for i in range(len(transformer.layers))
        for kind in DECODER_ATTENTION
    }
    places["final"] = "final_attn_token_to_image"
    for name, place in places.items():
        for kind in ("q", "v"):
            path = f"mask_decoder.transformer.{place}.{kind}_proj.weight"
            rows, columns = backbone.sam.get_parameter(path).shape
            yield Projection(f"decoder_{name}_{kind}", path, (0, rows), columns)


class LowRank(nn.Module):
    """Changes up @ down of projections, which are zero at the start.

    Parameters
    ----------
    projections
        What is changed.
    rank
        Of each change.
    seed
        Of the random start: `down` as Kaiming's uniform (a = sqrt(5)), `up` zero.
    """

    def __init__(self, projections: Sequence[Projection], rank: int, seed: int) -> None:
        super().__init__()
        self.projections = projections
        generator = torch.Generator().manual_seed(seed)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for p in projections:
            start = torch.rand(rank, p.columns, generator=generator) * 2 - 1
            self.down[p.name] = nn.Parameter(start / sqrt(p.columns))
            self.up[p.name] = nn.Parameter(torch.zeros(p.rows[1] - p.rows[0], rank))

    def weights(self, sam: nn.Module) -> dict[str, Tensor]:
        """The changed weights of a SAM by name."""
        changed: dict[str, Tensor] = {}
        for p in self.projections:
            weight = changed.get(p.weight, sam.get_parameter(p.weight))
            below = len(weight) - p.rows[1]
            change = F.pad(self.up[p.name] @ self.down[p.name], (0, 0, p.rows[0], below))
            changed[p.weight] = weight + change
        return changed


class Lora(Method):
    """LoRA in the mask decoder, the image encoder, or both (CellSeg1).

    Parameters
    ----------
    settings
        Rank and places.
    backbone
        Whose projections are changed.
    seed
        Of the random initialisation.
    """

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "CellSeg1 (LoRA)"
    settings_type: ClassVar[type[Any]] = LoraSettings
    settings: LoraSettings

    def __init__(self, settings: LoraSettings, backbone: Backbone, seed: int = 0) -> None:
        super().__init__(settings)
        self.encoder: LowRank | None = None
        self.decoder: LowRank | None = None
        if settings.encoder:
            self.encoder = LowRank(list(encoder_projections(backbone)), settings.rank, seed)
        if settings.decoder:
            self.decoder = LowRank(list(decoder_projections(backbone)), settings.rank, seed)

    @property
    def works_on_embeddings(self) -> bool:
        """True where the encoder is left alone."""
        return self.encoder is None

    @property
    def learning_rate(self) -> float:
        """CellSeg1's own."""
        return 3e-3

    def encode(self, backbone: Backbone, images: Tensor) -> Embedding:
        """Embedding with the changed encoder."""
        if self.encoder is None:
            return backbone.encode(images)
        return Adapted(backbone, self.encoder.weights(backbone.sam)).encode(images)

    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Logits of the chosen mask from the changed decoder, without any prompt."""
        if self.decoder is not None:
            backbone = Adapted(backbone, self.decoder.weights(backbone.sam))
        return backbone.decode(embedding, no_prompts(backbone), self.settings.mask_index)
