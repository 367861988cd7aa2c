"""S-SAM: the encoder's singular values are tuned, and label names are the prompts.

Source: Paranjape et al., "S-SAM: SVD-based fine-tuning of Segment Anything Model for medical
image segmentation", arXiv 2408.06447. Ours differs in that SAM keeps its windows and relative
positions, that the text layer has LayerNorm where the paper has BatchNorm (which has nothing
to normalise over with one label), and that the position embedding is trained only on demand:
at 1024 pixels it would be nine tenths of all that is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from napari_ptsam.backbones.backbone import DEFAULT_MASK_INDEX, Backbone, Embedding
from napari_ptsam.backbones.overlay import by_name, own_copies
from napari_ptsam.errors import InputError
from napari_ptsam.methods.base import Method, check_mask_index
from napari_ptsam.methods.label_text import CLIP, TEXT_WIDTH, embed_labels
from napari_ptsam.methods.overlay import Adapted
from napari_ptsam.methods.spectra import Spectra

LEARNED = "learned"
"""In place of a text encoder: the labels' embeddings are trained, and know no language."""

ENCODER = "image_encoder."
POSITIONS = f"{ENCODER}pos_embed"


@dataclass(frozen=True)
class SsamSettings:
    """What is segmented, and what is trained beside the singular values.

    Attributes
    ----------
    labels
        Names of the objects, such as ``nuclei`` and ``cytoplasm``: one or several.
    text_encoder
        A CLIP on the Hugging Face hub, a folder that holds one, or ``learned`` for embeddings
        that are trained instead (a fallback, which is not S-SAM's).
    positions
        Train the encoder's position embedding too, as the paper does at 256 pixels.
    mask_index
        Which of SAM's four masks is the output.
    """

    labels: tuple[str, ...] = ("object",)
    text_encoder: str = CLIP
    positions: bool = False
    mask_index: int = DEFAULT_MASK_INDEX

    def __post_init__(self) -> None:
        if isinstance(self.labels, str):
            raise InputError(f"S-SAM's labels are a list of names, not the text '{self.labels}'.")
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.labels or len(set(self.labels)) < len(self.labels) or not all(self.labels):
            raise InputError(
                f"S-SAM takes one or more different label names, not {list(self.labels)}."
            )
        check_mask_index(self.mask_index)


class Ssam(Method):
    """Singular values and norms of the encoder, norms of the decoder, and a text layer.

    Parameters
    ----------
    settings
        Labels, text encoder and extent.
    backbone
        Whose weights are decomposed, at the first call.
    seed
        Of the random initialisation of the text layer.
    """

    name: ClassVar[str] = "ssam"
    title: ClassVar[str] = "S-SAM (singular values, named objects)"
    settings_type: ClassVar[type[Any]] = SsamSettings
    settings: SsamSettings
    knows_names: ClassVar[bool] = True

    def __init__(self, settings: SsamSettings, backbone: Backbone, seed: int = 0) -> None:
        super().__init__(settings)
        self.output = settings.labels[0]
        self.spectra = Spectra(backbone.sam, _matrices(backbone))
        self.encoder = own_copies(backbone.sam, _encoder_extras(backbone, settings.positions))
        self.decoder = own_copies(backbone.sam, _decoder_norms(backbone))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text_layer = nn.Sequential(
                nn.Linear(TEXT_WIDTH, backbone.decoder_width),
                nn.ReLU(),
                nn.LayerNorm(backbone.decoder_width),
            )
            start = nn.functional.normalize(torch.randn(len(settings.labels), TEXT_WIDTH), dim=-1)
        if settings.text_encoder == LEARNED:
            self.learned_labels = nn.Parameter(start)
        else:
            # Zero until `prepare`; kept in the prompt file, so that using one needs no CLIP.
            self.register_buffer("frozen_labels", torch.zeros_like(start))

    @property
    def works_on_embeddings(self) -> bool:
        """False: the encoder is changed."""
        return False

    @property
    def learning_rate(self) -> float:
        """S-SAM's own."""
        return 1e-3

    def prepare(self) -> None:
        """Let CLIP embed the label names, once."""
        if self.settings.text_encoder != LEARNED:
            embedded = embed_labels(self.settings.labels, self.settings.text_encoder)
            self.get_buffer("frozen_labels").copy_(embedded)

    def encode(self, backbone: Backbone, images: Tensor) -> Embedding:
        """Embedding with the changed encoder."""
        changed = self.spectra.weights(backbone.sam) | by_name(self.encoder)
        return Adapted(backbone, changed).encode(images)

    def decode(self, backbone: Backbone, embedding: Embedding) -> Tensor:
        """Logits of one object: that of `of`, else of the first label."""
        return self.decode_named(backbone, embedding, [self.output])

    def decode_named(
        self, backbone: Backbone, embedding: Embedding, names: Sequence[str]
    ) -> Tensor:
        """Logits, Bx1xhxw, of the object that is named for each image, or for all of them."""
        numbers = [self._number(name) for name in names]
        learned = self.settings.text_encoder == LEARNED
        vectors = self.learned_labels if learned else self.get_buffer("frozen_labels")
        prompts = self.text_layer(vectors[numbers])[:, None].expand(len(embedding[0]), -1, -1)
        twin = Adapted(backbone, by_name(self.decoder))
        return twin.decode(embedding, prompts, self.settings.mask_index)

    def of(self, name: str) -> Ssam:
        """The same learned numbers with the object of that name as the output."""
        twin = copy.copy(self)
        twin.output = self.settings.labels[self._number(name)]
        return twin

    def _number(self, name: str) -> int:
        """Place of a name among the labels; the first where there is none."""
        name = name or self.settings.labels[0]
        if name not in self.settings.labels:
            known = ", ".join(f"'{label}'" for label in self.settings.labels)
            raise InputError(f"This specialist does not know '{name}'; it was taught {known}.")
        return self.settings.labels.index(name)


def _matrices(backbone: Backbone) -> list[str]:
    """Four weights of each block, and the two convolutions that follow the transformer."""
    kinds = ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2")
    names = [f"blocks.{i}.{kind}" for i in range(backbone.encoder_depth) for kind in kinds]
    encoder = backbone.sam.image_encoder
    names += ["context"] if hasattr(encoder, "context") else []  # the embedded SAM's 1x1
    parts = encoder.neck.named_children()
    names += [f"neck.{number}" for number, part in parts if isinstance(part, nn.Conv2d)]
    return [f"{ENCODER}{name}.weight" for name in names]


def _encoder_extras(backbone: Backbone, positions: bool) -> list[str]:
    """The blocks' norms, and the position embedding if it is to be trained."""
    names = (name for name, _ in backbone.sam.named_parameters())
    norms = [n for n in names if n.startswith(f"{ENCODER}blocks.") and ".norm" in n]
    return [*norms, POSITIONS] if positions else norms


def _decoder_norms(backbone: Backbone) -> list[str]:
    """The norms of the decoder's transformer."""
    start = "mask_decoder.transformer."
    names = (name for name, _ in backbone.sam.named_parameters())
    return [n for n in names if n.startswith(start) and ".norm" in n]
