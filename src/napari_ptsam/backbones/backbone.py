"""A frozen SAM as the rest of the project sees it: encode, decode, identity."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_ptsam.backbones._sam import ImageEncoderViT, MaskDecoder, Sam
from napari_ptsam.backbones.attention import encode_vit
from napari_ptsam.backbones.clicks import ClickDecoder
from napari_ptsam.backbones.embedded import EmbeddedEncoder, TaskEncoder, read_out
from napari_ptsam.devices import half_precision

Embedding = tuple[Tensor, ...]
"""BxDxhxw image embedding, then feature maps at 2 and 4 times its resolution
where the backbone has them. What decoder prompts work on, and what is kept."""

DEFAULT_MASK_INDEX = 1
"""SAM's first of three multimask outputs (token 0 is the single-mask output)."""


OBJECT_MASK_PIXELS = 5.0
"""Objects narrower than this many mask pixels lose their shape."""


class Backbone:
    """A frozen SAM with a name and an identity computed from its tensors.

    Parameters
    ----------
    sam
        The network. It is put in evaluation mode and frozen.
    name
        Registry name, or the file's name.
    identity
        Digest of all tensors, see `napari_ptsam.backbones.checkpoint`.
    architecture
        For instance ``vit_b`` or ``embedded``.
    """

    def __init__(self, sam: Sam, name: str, identity: str, architecture: str) -> None:
        self.sam = sam.eval().requires_grad_(False)
        self.name = name
        self.identity = identity
        self.architecture = architecture

    @property
    def input_size(self) -> int:
        """Side of the square model input in pixels (1024 for SAM's own)."""
        return int(self.sam.image_encoder.img_size)

    @property
    def decoder_width(self) -> int:
        """Width of a decoder prompt (256)."""
        return int(self.mask_decoder.transformer_dim)

    @property
    def encoder_width(self) -> int:
        """Width of an encoder prompt (768 for ViT-B)."""
        return int(self.sam.image_encoder.pos_embed.shape[-1])

    @property
    def encoder_depth(self) -> int:
        """Number of encoder blocks, each with prompts of its own (12 for ViT-B)."""
        return len(self.sam.image_encoder.blocks)

    @property
    def is_embedded(self) -> bool:
        """Whether it is of the small kind that ships with the package."""
        return isinstance(self.sam.image_encoder, EmbeddedEncoder)

    @property
    def mask_stride(self) -> int:
        """Side of a mask pixel in model pixels (4 for SAM's own, 2 for the embedded one)."""
        return 2 if self.is_embedded else 4

    @property
    def embedding_count(self) -> int:
        """How many numbers the embedding of one input has, all levels together."""
        height, width = self.sam.prompt_encoder.image_embedding_size
        # Twice the resolution has a quarter of the channels, four times an eighth.
        levels = 1 + 1 + 2 if self.is_embedded else 1
        return self.decoder_width * int(height) * int(width) * levels

    @property
    def wanted_object_width(self) -> float:
        """Width in model pixels that objects should have; below it, planes are tiled."""
        return OBJECT_MASK_PIXELS * self.mask_stride

    @property
    def mask_decoder(self) -> MaskDecoder:
        """SAM's mask decoder."""
        return self.sam.mask_decoder

    @property
    def click_decoder(self) -> ClickDecoder | None:
        """What answers clicks where the mask decoder itself does not."""
        return cast("ClickDecoder | None", getattr(self.sam, "click_decoder", None))

    @cached_property
    def clicking(self) -> Sam:
        """The SAM that answers clicks and boxes: its prompt encoder and mask decoder."""
        if self.click_decoder is None:
            return self.sam
        # Gradients pass through it later, also if a prediction was the first to need it.
        with torch.inference_mode(mode=False), torch.no_grad():
            return self.click_decoder.applied_to(self.sam)

    def prompted(self, embedding: Embedding, points: Tensor, kinds: Tensor) -> Embedding:
        """Embedding for `clicking` to answer prompts on.

        Parameters
        ----------
        embedding
            Of N images, or of one that all prompts are for.
        points, kinds
            NxPx2 model pixels (x, y) and NxP SAM labels: 1 object, 0 background, 2 and 3 a box's
            corners, -1 none.
        """
        if self.click_decoder is None:
            return embedding
        return self.click_decoder.prompted(embedding, points, kinds)

    @property
    def task_encoder(self) -> TaskEncoder | None:
        """Maps examples to a starting point for decoder prompts, where there is one."""
        return cast("TaskEncoder | None", getattr(self.sam, "task_encoder", None))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(torch.device, self.sam.pixel_mean.device)

    def to(self, device: torch.device | str) -> Backbone:
        """Move the weights; returns itself."""
        self.sam.to(device)
        self.__dict__.pop("clicking", None)
        return self

    def normalise_input(self, images: Tensor, contents: Sequence[tuple[int, int]]) -> Tensor:
        """SAM's mean and SD; the padding becomes 0 after them, as in SAM.

        Parameters
        ----------
        images
            Bx3xSxS, 0..255.
        contents
            For each image the rows and columns, from the top left, that it fills.
        """
        images = (images.to(self.device) - self.sam.pixel_mean) / self.sam.pixel_std
        for image, (rows, columns) in zip(images, contents, strict=True):
            image[:, rows:] = 0
            image[:, :, columns:] = 0
        return images

    def encode(self, images: Tensor, prompts: Tensor | None = None) -> Embedding:
        """Image embedding of Bx3xSxS inputs from `normalise_input`.

        Parameters
        ----------
        prompts
            Encoder prompts, depth x n x width (PTSAM, section 3.2), or None.
        """
        if len(images) > 1 and self.device.type == "cpu" and not torch.is_grad_enabled():
            # No quicker together on a processor, where the last digits of an embedding would
            # depend on what it was encoded with: kept ones would not be those of another time.
            each = [self._encode(image, prompts) for image in images.split(1)]
            return tuple(torch.cat(level) for level in zip(*each, strict=True))
        return self._encode(images, prompts)

    def _encode(self, images: Tensor, prompts: Tensor | None) -> Embedding:
        encoder = self.sam.image_encoder
        kind = half_precision(self.device)
        # Gradients of half-precision floats vanish without scaling; bfloat16's range is float32's.
        usable = kind is not None and not (kind == torch.float16 and torch.is_grad_enabled())
        with torch.autocast(self.device.type, kind, enabled=usable):
            if isinstance(encoder, EmbeddedEncoder):
                # The order in which convolutions of 16-bit numbers are quickest.
                order = torch.channels_last if usable else torch.contiguous_format
                if kind is not None and usable and not torch.is_grad_enabled():
                    encoder = encoder.in_half(kind)
                levels = encoder(images.contiguous(memory_format=order), prompts)
            else:
                levels = (encode_vit(cast(ImageEncoderViT, encoder), images, prompts),)
        return tuple(level.float().contiguous() for level in levels)

    def decode(
        self, embedding: Embedding, prompts: Tensor, mask_index: int = DEFAULT_MASK_INDEX
    ) -> Tensor:
        """Mask logits Bx1xhxw for decoder prompts, nx256 or Bxnx256.

        The "no-prompt" dense embedding is added as SAM does without a mask.
        """
        masks, _ = decode_masks(self.sam, embedding, prompts)
        return masks[:, mask_index : mask_index + 1]


def decode_masks(sam: Sam, embedding: Embedding, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """All masks and their predicted IoU: one prompt set for each image.

    See `decode_features`, of which these are the first two.
    """
    masks, quality, _ = decode_features(sam, embedding, prompts)
    return masks, quality


def decode_features(
    sam: Sam, embedding: Embedding, prompts: Tensor, chosen: slice = slice(None)
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks, their predicted IoU, and the features that masks are read from.

    SAM's own `predict_masks` serves many prompts on one image and repeats the
    image for each; here images and prompt sets come in pairs.

    Parameters
    ----------
    embedding
        Of B images.
    prompts
        Bxnx256, or nx256 for all images alike. Appended after SAM's five
        output tokens, so that the slice of mask tokens stays.
    chosen
        Which of SAM's four masks; all of them, if not told.

    Returns
    -------
    tuple
        BxKxhxw logits and BxK predicted IoU of K chosen masks, and Bx32xhxw features.
    """
    decoder = cast(MaskDecoder, sam.mask_decoder)
    image, finer = embedding[0], embedding[1:]
    batch, channels, height, width = image.shape
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    if prompts.dim() == 2:
        prompts = prompts.expand(batch, -1, -1)
    tokens = torch.cat([tokens.expand(batch, -1, -1), prompts.to(tokens.dtype)], dim=1)
    no_mask = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).to(image.dtype)
    positions = sam.prompt_encoder.pe_layer((height, width))[None].to(image.dtype)
    # One type throughout: a stray float32 term would promote the whole stream under autocast.
    hidden, source = decoder.transformer(
        image + no_mask, positions.expand(batch, -1, -1, -1), tokens.to(image.dtype)
    )
    mask_tokens = hidden[:, 1 : 1 + decoder.num_mask_tokens]
    upscaled = _upscale(
        decoder, source.transpose(1, 2).reshape(batch, channels, height, width), finer
    )
    numbers = range(decoder.num_mask_tokens)[chosen]
    mlps = decoder.output_hypernetworks_mlps
    weights = torch.stack([mlps[i](mask_tokens[:, i]) for i in numbers], 1)
    masks = torch.einsum("bkc,bchw->bkhw", weights, upscaled)
    # Not on the single mask (0), which answers clicks: those are no weights of a classifier.
    single = int(0 in numbers)
    if finer and single < len(numbers):
        read = masks[:, single:] + read_out(embedding, prompts)
        masks = torch.cat([masks[:, :single], read], 1)
    return masks, decoder.iou_prediction_head(hidden[:, 0])[:, chosen], upscaled


def _upscale(decoder: MaskDecoder, source: Tensor, finer: Embedding) -> Tensor:
    """SAM's upscaling, with finer features added where the backbone has them."""
    if not finer:
        return cast(Tensor, decoder.output_upscaling(source))
    first, norm, activation, second, last_activation = decoder.output_upscaling
    quarter, half = finer
    upscaled = activation(norm(first(source) + quarter))
    # After the activation: a mask can be read off the encoder's finest features directly.
    return cast(Tensor, last_activation(second(upscaled)) + half)


def resize_logits(logits: Tensor, size: int) -> Tensor:
    """Bilinear upsampling of logits to size x size, as SAM does after its decoder."""
    return F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
