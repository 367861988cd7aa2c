"""PTSAM: learned prompts in SAM's mask decoder, and optionally in its encoder.

Source: "Prompt-Tuning SAM: From Generalist to Specialist with only 2048
Parameters and 16 Training Images", section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_ptsam.backbones.backbone import DEFAULT_MASK_INDEX, Backbone, Embedding
from napari_ptsam.backbones.embedded import READOUT_GAIN
from napari_ptsam.errors import InputError
from napari_ptsam.methods.base import Method, check_mask_index, no_prompts

PATCH_SIDE = 16
"""Patch side in the initialisation of visual prompt tuning, whatever the backbone."""

DECODER_RATE, ENCODER_RATE = 0.05, 0.01
"""Learning rates with decoder prompts alone, and with encoder prompts."""


@dataclass(frozen=True)
class PtsamSettings:
    """How many prompts, and which of SAM's masks is the output.

    Attributes
    ----------
    decoder_prompts
        n_md; 8 in the paper.
    encoder_prompts
        n_ie in each encoder block; 8 in the paper, 0 leaves the encoder alone.
    mask_index
        Which of SAM's four mask tokens is the output; 1 is the first of the
        three multimask outputs.
    """

    decoder_prompts: int = 8
    encoder_prompts: int = 0
    mask_index: int = DEFAULT_MASK_INDEX

    def __post_init__(self) -> None:
        if not (0 <= self.decoder_prompts <= 4096 and 0 <= self.encoder_prompts <= 4096):
            raise InputError(
                f"PTSAM takes 0 to 4096 prompts, got {self.decoder_prompts} in the decoder and "
                f"{self.encoder_prompts} in each encoder block. The paper uses 8 and 8."
            )
        if self.decoder_prompts + self.encoder_prompts == 0:
            raise InputError("PTSAM without any prompt has nothing to learn; 8 is usual.")
        check_mask_index(self.mask_index)


class Ptsam(Method):
    """Learned prompts; every weight of the backbone stays as it is.

    Parameters
    ----------
    settings
        Counts and mask index.
    decoder_width
        256 in every SAM.
    encoder_depth, encoder_width
        12 and 768 for ViT-B.
    seed
        Of the random initialisation.
    """

    name: ClassVar[str] = "ptsam"
    title: ClassVar[str] = "PTSAM (learned prompts)"
    settings_type: ClassVar[type[Any]] = PtsamSettings
    settings: PtsamSettings
    starts_from_prompts: ClassVar[bool] = True

    def __init__(
        self,
        settings: PtsamSettings,
        decoder_width: int,
        encoder_depth: int,
        encoder_width: int,
        seed: int = 0,
    ) -> None:
        super().__init__(settings)
        generator = torch.Generator().manual_seed(seed)
        self.decoder_prompts: nn.Parameter | None = None
        self.encoder_prompts: nn.Parameter | None = None
        if settings.decoder_prompts:
            self.decoder_prompts = _uniform((settings.decoder_prompts, decoder_width), generator)
        if settings.encoder_prompts:
            self.encoder_prompts = _uniform(
                (encoder_depth, settings.encoder_prompts, encoder_width), generator
            )

    @classmethod
    def build(cls, settings: dict[str, Any], backbone: Backbone, seed: int) -> Ptsam:
        """From settings as a prompt file stores them."""
        return cls(
            PtsamSettings(**settings),
            backbone.decoder_width,
            backbone.encoder_depth,
            backbone.encoder_width,
            seed,
        )

    @property
    def works_on_embeddings(self) -> bool:
        """True without encoder prompts: then an image's embedding never changes."""
        return self.encoder_prompts is None

    @property
    def learning_rate(self) -> float:
        """The paper's (section 4.1.3)."""
        return DECODER_RATE if self.works_on_embeddings else ENCODER_RATE

    def encode(self, backbone: Backbone, images: Tensor) -> Embedding:
        """Embedding with the encoder prompts as extra keys and values in every block."""
        return backbone.encode(images, self.encoder_prompts)

    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Logits of the chosen mask, with the prompts appended to SAM's output tokens."""
        prompts = no_prompts(backbone) if self.decoder_prompts is None else self.decoder_prompts
        return backbone.decode(embedding, prompts, self.settings.mask_index)

    @torch.no_grad()
    def start_from(self, prompts: Tensor) -> None:
        """Take given decoder prompts, such as a task encoder makes, as the start.

        With fewer prompts of our own the first are taken; further ones keep their random
        start.
        """
        if self.decoder_prompts is not None:
            count = min(len(prompts), len(self.decoder_prompts))
            self.decoder_prompts[:count] = prompts[:count].to(self.decoder_prompts.device)

    @property
    def raises_logits(self) -> bool:
        """With two prompts or more: the second holds the readout's constant."""
        return self.settings.decoder_prompts > 1

    @torch.no_grad()
    def raise_logits(self, by: float) -> None:
        """Add to the logits of all pixels, by the readout's constant."""
        if self.decoder_prompts is not None:
            self.decoder_prompts[1, -1] += by / READOUT_GAIN


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> nn.Parameter:
    """Uniform within sqrt(6 / (3 * 16^2 + d)), as visual prompt tuning starts; never equal rows."""
    bound = sqrt(6.0 / (3 * PATCH_SIDE**2 + shape[-1]))
    return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) * bound)
