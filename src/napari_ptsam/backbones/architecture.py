"""Sizes of a SAM: read from tensors' shapes, and made into a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from napari_ptsam.backbones._sam import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from napari_ptsam.errors import BackboneError

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class SamArchitecture:
    """Sizes of a SAM with a plain vision transformer as its encoder.

    Attributes
    ----------
    width, depth, heads
        Of the image encoder.
    global_blocks
        Encoder blocks that attend to the whole image, the others to windows.
    window
        Side of the windows, in tokens; 0 if there are none.
    patch_size, image_size
        Side of a token and of the square input, in pixels.
    mlp_width
        Hidden width of the encoder's blocks; 0 means four times `width`.
    decoder_width, decoder_depth, decoder_mlp_width
        Of the mask decoder's transformer, which has 8 heads.
    mask_tokens
        Masks that the decoder gives, the first being the single-mask output.
    iou_head_depth, iou_head_width, mask_channels
        Of the quality prediction and of the encoding of mask prompts.
    """

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14
    patch_size: int = 16
    image_size: int = 1024
    mlp_width: int = 0
    decoder_width: int = 256
    decoder_depth: int = 2
    decoder_mlp_width: int = 2048
    mask_tokens: int = 4
    iou_head_depth: int = 3
    iou_head_width: int = 256
    mask_channels: int = 16

    def __post_init__(self) -> None:
        if not self.mlp_width:
            object.__setattr__(self, "mlp_width", 4 * self.width)

    @property
    def name(self) -> str:
        """``vit_b``, ``vit_l``, ``vit_h`` or ``custom``."""
        return next((name for name, known in ARCHITECTURES.items() if known == self), "custom")


ARCHITECTURES: Mapping[str, SamArchitecture] = {
    "vit_b": SamArchitecture(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": SamArchitecture(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": SamArchitecture(1280, 32, 16, (7, 15, 23, 31)),
}
"""The encoders that SAM was published with (arXiv 2304.02643)."""


def architecture_of(state: Mapping[str, Tensor]) -> SamArchitecture:
    """Read a SAM's sizes from its tensors' shapes.

    Raises
    ------
    BackboneError
        If the tensors are not those of a SAM with a plain vision transformer.
    """
    encoder, decoder = "image_encoder", "mask_decoder"
    try:
        image_grid, width = state[f"{encoder}.pos_embed"].shape[1:][::2]
        patch_size = state[f"{encoder}.patch_embed.proj.weight"].shape[-1]
        relative = [
            state[f"{encoder}.blocks.{i}.attn.rel_pos_h"].shape
            for i in range(_count(state, f"{encoder}.blocks."))
        ]
        lengths = [(shape[0] + 1) // 2 for shape in relative]  # 2 n - 1 distances on n tokens
        iou_head = f"{decoder}.iou_prediction_head.layers."
        layers = f"{decoder}.transformer.layers."
        return SamArchitecture(
            width=width,
            depth=len(relative),
            heads=width // relative[0][1],
            global_blocks=tuple(i for i, n in enumerate(lengths) if n == image_grid),
            window=min((n for n in lengths if n != image_grid), default=0),
            patch_size=patch_size,
            image_size=image_grid * patch_size,
            mlp_width=state[f"{encoder}.blocks.0.mlp.lin1.weight"].shape[0],
            decoder_width=state[f"{decoder}.iou_token.weight"].shape[1],
            decoder_depth=_count(state, layers),
            decoder_mlp_width=state[f"{layers}0.mlp.lin1.weight"].shape[0],
            mask_tokens=state[f"{decoder}.mask_tokens.weight"].shape[0],
            iou_head_depth=_count(state, iou_head),
            iou_head_width=state[f"{iou_head}0.weight"].shape[0],
            mask_channels=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        names = brief(list(state)) if state else "no tensors"
        raise BackboneError(
            f"These tensors are not a SAM with a plain vision transformer (ViT): {error} does not "
            f"fit or is missing; found {names}. Give a checkpoint with the names of the "
            "segment_anything package, such as SAM's own, micro-sam's or MedSAM's."
        ) from error


def _count(state: Iterable[str], prefix: str) -> int:
    """Number of differently numbered parts, as in ``blocks.0.``, ``blocks.1.``."""
    return len({n[len(prefix) :].split(".")[0] for n in state if n.startswith(prefix)})


def build_sam(architecture: SamArchitecture) -> Sam:
    """A SAM of the given sizes with random weights, in evaluation mode."""
    a = architecture
    grid = a.image_size // a.patch_size
    encoder = ImageEncoderViT(
        img_size=a.image_size,
        patch_size=a.patch_size,
        embed_dim=a.width,
        depth=a.depth,
        num_heads=a.heads,
        mlp_ratio=a.mlp_width / a.width,
        out_chans=a.decoder_width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=a.window,
        global_attn_indexes=a.global_blocks,
    )
    prompt_encoder = PromptEncoder(
        embed_dim=a.decoder_width,
        image_embedding_size=(grid, grid),
        input_image_size=(a.image_size, a.image_size),
        mask_in_chans=a.mask_channels,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=a.mask_tokens - 1,
        transformer=TwoWayTransformer(
            depth=a.decoder_depth,
            embedding_dim=a.decoder_width,
            mlp_dim=a.decoder_mlp_width,
            num_heads=8,
        ),
        transformer_dim=a.decoder_width,
        iou_head_depth=a.iou_head_depth,
        iou_head_hidden_dim=a.iou_head_width,
    )
    return Sam(encoder, prompt_encoder, decoder, list(PIXEL_MEAN), list(PIXEL_STD)).eval()


def brief(names: list[str], shown: int = 3) -> str:
    """The first few names, for an error's text."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
