"""PLM: what a user points at is moved to where the task's objects are understood.

Source: "Task-Specific Adaptation of Segmentation Foundation Model via Prompt Learning"
(arXiv 2403.09199), section 4.1: self-attention over the prompt's tokens, attention from the
prompt to the image, an MLP, and the result is added to the prompt; SAM itself stays frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_ptsam.backbones.backbone import Backbone, Embedding
from napari_ptsam.backbones.embedded import READOUT_PROMPTS
from napari_ptsam.errors import InputError
from napari_ptsam.methods.base import FrozenEncoder, check_mask_index, no_prompts

READOUT_SHARE = 0.6
"""Of a prompt-free specialist's readout, that a click specialist begins with: it says what the
kind of object looks like, and where one object ends is left to SAM. Our choice."""

LEARNING_RATE = 1e-4
"""Of AdamW; our choice, as the paper gives none."""


@dataclass(frozen=True)
class PlmSettings:
    """Sizes of the module, and which of SAM's masks answers.

    Attributes
    ----------
    heads
        Of both attentions; our choice, as in SAM's own decoder.
    hidden
        Width of the MLP; 2,048 agrees with the paper's 1.6 M numbers.
    mask_index
        Which of SAM's four masks is the answer; 0 is the one for prompts that leave no doubt.
    tokens
        Learned tokens that stand in for a prompt when all objects are asked for at once
        (automatic mode); our extension, 0 in the paper.
    readout
        Whether four more learned tokens say directly which pixels are of the kind, as on the
        embedded backbone those of prompt-free specialists do (`read_out`). Our extension; other
        backbones have none.
    """

    heads: int = 8
    hidden: int = 2048
    mask_index: int = 0
    tokens: int = 0
    readout: bool = True

    def __post_init__(self) -> None:
        if self.heads < 1 or self.hidden < 1 or not 0 <= self.tokens <= 4096:
            raise InputError(
                f"The PLM takes at least one head and one hidden number and 0 to 4096 tokens, not "
                f"{self.heads}, {self.hidden} and {self.tokens}; 8, 2048 and 0 or 8 are usual."
            )
        check_mask_index(self.mask_index)


class Attention(nn.Module):
    """Multi-head attention of tokens to B sources, or to one that all of them share."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """BxNxC tokens, and BxMxC or 1xMxC keys and values, to BxNxC."""
        query = self._split(self.query(tokens))
        # Projected before they are shared out: an image has many tokens, and many prompts.
        key, value = (
            self._split(projected).expand(len(tokens), -1, -1, -1)
            for projected in (self.key(keys), self.value(values))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)


class Plm(FrozenEncoder):
    """The Prompt Learning Module; every weight of the backbone stays as it is.

    The last layer starts at zero, so that an untrained module changes nothing.

    Parameters
    ----------
    settings
        Sizes and mask index.
    backbone
        Whose prompt tokens it moves.
    seed
        Of the random initialisation.
    """

    name: ClassVar[str] = "plm"
    title: ClassVar[str] = "PLM (learned from clicks)"
    settings_type: ClassVar[type[Any]] = PlmSettings
    settings: PlmSettings
    starts_from_prompts: ClassVar[bool] = True

    def __init__(self, settings: PlmSettings, backbone: Backbone, seed: int = 0) -> None:
        super().__init__(settings)
        width = backbone.decoder_width
        if width % settings.heads:
            raise InputError(
                f"The PLM cannot share a width of {width} among {settings.heads} heads; 8 is usual."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
            self.among = Attention(width, settings.heads)
            self.to_image = Attention(width, settings.heads)
            self.first = nn.Linear(width, settings.hidden)
            self.last = nn.Linear(settings.hidden, width)
            self.tokens: nn.Parameter | None = None
            if settings.tokens:
                self.tokens = nn.Parameter(0.1 * torch.randn(settings.tokens, width))
            self.readout: nn.Parameter | None = None
            if settings.readout and backbone.is_embedded:
                self.readout = nn.Parameter(torch.zeros(READOUT_PROMPTS, width))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @property
    def learning_rate(self) -> float:
        """Not in the paper; ours, see docs/clicks.md."""
        return LEARNING_RATE

    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Logits of all objects at once: the learned tokens, moved, take the place of a prompt."""
        tokens = no_prompts(backbone) if self.tokens is None else self.tokens
        moved = self.move(backbone, embedding, tokens.expand(len(embedding[0]), -1, -1))
        # A task and no click: what answers is the decoder that prompt-free specialists have.
        return backbone.decode(embedding, moved)

    @torch.no_grad()
    def start_from(self, prompts: Tensor) -> None:
        """Take the tokens that a task encoder makes of examples as the start."""
        if self.readout is not None:
            self.readout.copy_(READOUT_SHARE * prompts[:READOUT_PROMPTS])
        if self.tokens is not None:
            count = min(len(prompts), len(self.tokens))
            self.tokens[:count] = prompts[:count].to(self.tokens.device)

    def move(self, backbone: Backbone, embedding: Embedding, tokens: Tensor) -> Tensor:
        """Prompt tokens with what was learned of the task added to them.

        Parameters
        ----------
        embedding
            Of B images, or of one that all prompts are for.
        tokens
            BxNx256, from SAM's prompt encoder.

        Returns
        -------
        Tensor
            BxNx256.
        """
        image = embedding[0].flatten(2).transpose(1, 2)
        height, width = embedding[0].shape[-2:]
        where = backbone.clicking.prompt_encoder.pe_layer((height, width)).flatten(1).t()
        normed = self.norms[0](tokens)
        mixed = tokens + self.among(normed, normed, normed)
        # As in SAM's decoder, positions help to find and are no part of what is found.
        mixed = mixed + self.to_image(self.norms[1](mixed), image + where, image)
        offset = self.last(functional.gelu(self.first(self.norms[2](mixed))))
        moved: Tensor = tokens + offset
        return moved
