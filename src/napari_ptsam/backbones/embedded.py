"""The small SAM that ships inside the package.

It is a SAM in all that matters to a specialist: `segment_anything`'s own
transformer blocks, prompt encoder and mask decoder of width 256. Four things
differ, so that a model of 10 million numbers can draw thin and small objects:

* a convolutional stem stands in place of the 16x16 patch projection;
* image embeddings are at a stride of 8 pixels, context being computed by the
  transformer at a stride of 16;
* features at strides 4 and 2 are handed to the mask decoder's upscaling (as
  SAM 2 does), so that masks come out at half the input's resolution;
* four of a specialist's eight prompts also reach the mask directly (`read_out`).

One more part, the `TaskEncoder`, turns example images and their masks into
eight decoder prompts: the starting point of a user's training. Weights may hold a
`ClickDecoder`, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ptsam.backbones._sam import (
    Block,
    LayerNorm2d,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from napari_ptsam.backbones.attention import run_block
from napari_ptsam.backbones.clicks import ClickDecoder
from napari_ptsam.backbones.overlay import overlay
from napari_ptsam.errors import BackboneError

PROMPT_COUNT = 8
"""Decoder prompts that the task encoder makes (n_md of PTSAM, section 3.2)."""

DECODER_WIDTH = 256

READOUT_PROMPTS = 4
"""How many of these are also weights of the readout."""

READOUT_GAIN = 0.125
"""From prompts to the weights of the readout. Features are near 1 and steps of a prompt near
0.05; so a step moves the logits moderately."""

SURROUNDINGS = (9, 21)
"""Sides of the squares around a pixel whose mean embedding the readout also weighs, in pixels of
the embedding: 72 and 168 pixels of the input."""

SURROUNDINGS_GAIN = 4.0
"""On the weights of surroundings, whose means are smaller than what they are means of."""

SURROUNDINGS_RIDGE = 0.05
"""Ridge penalty on surroundings, as a share of that on a pixel's own features. Means vary so
little that the same penalty would leave them out."""


@dataclass(frozen=True)
class EmbeddedShape:
    """Sizes of an embedded SAM.

    Attributes
    ----------
    input_size
        Side of the square input in pixels, a multiple of 16.
    stem
        Channels at strides 2, 4 and 8.
    width, depth, heads
        Of the transformer, which runs at stride 16.
    window
        Side of the attention windows, in tokens.
    global_blocks
        Blocks that attend to the whole image instead of windows.
    """

    input_size: int = 256
    stem: tuple[int, int, int] = (32, 64, 128)
    width: int = 192
    depth: int = 6
    heads: int = 6
    window: int = 8
    global_blocks: tuple[int, ...] = (1, 3, 5)


class SteadyGroupNorm(nn.GroupNorm):
    """The same to the last bit, whatever the number of threads.

    On a channels-last map, torch adds up what each thread has found; then the same plane gave
    other probabilities on another computer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """BxCxHxW to the same."""
        if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


class SteadyPointwise(nn.Conv2d):
    """A 1x1 convolution that is the same to the last bit, whatever the number of threads.

    On a contiguous map torch adds up what each thread has found; a product of matrices does not.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """BxCxHxW to BxDxHxW."""
        if x.device.type != "cpu" or not x.is_contiguous():
            return super().forward(x)
        flat = self.weight.flatten(1) @ x.flatten(2)
        if self.bias is not None:
            flat = flat + self.bias[:, None]
        out: Tensor = flat.unflatten(2, x.shape[2:])
        return out


def _convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        SteadyGroupNorm(8, channels_out),
        nn.GELU(),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity path, BxCxHxW to BxCxHxW."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = SteadyGroupNorm(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        """BxCxHxW to the same."""
        return F.gelu(x + self.norm(self.second(self.first(x))))


class EmbeddedEncoder(nn.Module):
    """Images to an embedding and two finer feature maps.

    `forward` takes Bx3xSxS and returns Bx256xS/8xS/8, Bx64xS/4xS/4 and
    Bx32xS/2xS/2.
    """

    def __init__(self, shape: EmbeddedShape) -> None:
        super().__init__()
        half, quarter, eighth = shape.stem
        grid = shape.input_size // 16
        self.img_size = shape.input_size
        self.stem_half = nn.Sequential(_convolution(3, half, 2), _convolution(half, half))
        self.stem_quarter = nn.Sequential(_convolution(half, quarter, 2), Residual(quarter))
        self.stem_eighth = nn.Sequential(
            _convolution(quarter, eighth, 2), Residual(eighth), Residual(eighth)
        )
        self.patch_embed = nn.Conv2d(eighth, shape.width, 3, 2, padding=1)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, shape.width))
        self.blocks = nn.ModuleList(
            Block(
                dim=shape.width,
                num_heads=shape.heads,
                use_rel_pos=True,
                window_size=0 if i in shape.global_blocks else shape.window,
                input_size=(grid, grid),
            )
            for i in range(shape.depth)
        )
        self.context = SteadyPointwise(shape.width, DECODER_WIDTH)
        self.lateral_eighth = SteadyPointwise(eighth, DECODER_WIDTH)
        self.neck = nn.Sequential(
            LayerNorm2d(DECODER_WIDTH),
            nn.Conv2d(DECODER_WIDTH, DECODER_WIDTH, 3, padding=1, bias=False),
            LayerNorm2d(DECODER_WIDTH),
        )
        quarter_out, half_out = DECODER_WIDTH // 4, DECODER_WIDTH // 8
        self.top_quarter = SteadyPointwise(DECODER_WIDTH, quarter_out)
        self.lateral_quarter = SteadyPointwise(quarter, quarter_out)
        self.refine_quarter = Residual(quarter_out)
        self.top_half = SteadyPointwise(quarter_out, half_out)
        self.lateral_half = SteadyPointwise(half, half_out)
        self.refine_half = Residual(half_out)

    def forward(self, images: Tensor, prompts: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encode normalised images.

        Parameters
        ----------
        images
            Bx3xSxS, S a multiple of 16.
        prompts
            Encoder prompts, depth x n x width, or None.
        """
        half = self.stem_half(images)
        quarter = self.stem_quarter(half)
        eighth = self.stem_eighth(quarter)
        tokens = self.patch_embed(eighth).permute(0, 2, 3, 1)
        tokens = tokens + self._positions(tokens.shape[1], tokens.shape[2])
        for i, block in enumerate(self.blocks):
            tokens = run_block(block, tokens, None if prompts is None else prompts[i])
        tokens = tokens.permute(0, 3, 1, 2)
        # In the order of the other maps, by which `SteadyPointwise` tells how it is computed.
        context = self.context(tokens.contiguous() if images.is_contiguous() else tokens)
        embedding = self.neck(_double(context) + self.lateral_eighth(eighth))
        quarter = self.refine_quarter(
            _double(self.top_quarter(embedding)) + self.lateral_quarter(quarter)
        )
        half = self.refine_half(_double(self.top_half(quarter)) + self.lateral_half(half))
        return embedding, quarter, half

    def in_half(self, kind: torch.dtype) -> EmbeddedEncoder:
        """The encoder for `torch.autocast`, which would cast all weights anew at each call.

        Of no use for gradients. It follows when weights change, or move to another device.
        """
        weights = {
            f"{name}.{own}": weight
            for name, module in self.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear))
            for own, weight in module.named_parameters(recurse=False)
        }
        state = [kind, *(_state_of(weight) for weight in weights.values())]
        known = self.__dict__.get("_half")
        if known is None or known[0] != state:
            self.__dict__.pop("_half", None)  # or the twin would keep the one before, and so on
            twin = overlay(self, {name: _cast(weight, kind) for name, weight in weights.items()})
            # Not as a module of this one, whose weights would then be counted and saved twice.
            known = self.__dict__["_half"] = state, twin
        return cast(EmbeddedEncoder, known[1])

    def _positions(self, height: int, width: int) -> Tensor:
        """The position embedding, resampled for inputs of another size."""
        if (height, width) == self.pos_embed.shape[1:3]:
            return self.pos_embed
        grid = self.pos_embed.permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (height, width), mode="bilinear", antialias=True)
        return grid.permute(0, 2, 3, 1)


def _state_of(weight: Tensor) -> tuple[int, int]:
    """Changes when the weight does."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _cast(weight: Tensor, kind: torch.dtype) -> Tensor:
    order = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
    return weight.detach().to(kind, memory_format=order)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def read_out(embedding: tuple[Tensor, ...], prompts: Tensor) -> Tensor:
    """A direct way from decoder prompts to the mask, beside SAM's transformer.

    The first four prompts are also the weights of a linear pixel classifier: the
    first on the embedding; the second on the finer features, coarser ones first,
    its last number a constant; the third and fourth on the mean embedding of a
    pixel's narrower and wider `SURROUNDINGS`. So what is told by features alone
    need not pass the transformer, and is tuned like a logistic regression.

    Parameters
    ----------
    embedding
        As `EmbeddedEncoder` returns it, for B images.
    prompts
        Bxnx256; those that are missing count as zero.

    Returns
    -------
    Tensor
        Bx1xS/2xS/2 logits.
    """
    prompts = F.pad(prompts, (0, 0, 0, max(0, READOUT_PROMPTS - prompts.shape[1])))
    weights = (READOUT_GAIN * prompts[:, :READOUT_PROMPTS]).to(embedding[0].dtype)
    own = torch.cat([weights[:, :1], SURROUNDINGS_GAIN * weights[:, 2:]], 1)
    maps = torch.einsum("bkc,bchw->bkhw", own, embedding[0])
    logits = maps[:, :1]
    # The mean of the products is the product of the mean, at a 256th of the work.
    for i, side in enumerate(SURROUNDINGS, start=1):
        logits = logits + _mean_around(maps[:, i : i + 1], side)
    first = 0
    for level in embedding[1:]:
        chosen = weights[:, 1, first : first + level.shape[1]]
        logits = _double(logits) + torch.einsum("bc,bchw->bhw", chosen, level)[:, None]
        first += level.shape[1]
    return logits + weights[:, 1, -1, None, None, None]


def _mean_around(x: Tensor, side: int) -> Tensor:
    """Mean over a square around each pixel, or what of it lies within: BxCxHxW to the same."""
    for kernel in ((side, 1), (1, side)):
        padding = (kernel[0] // 2, kernel[1] // 2)
        x = F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
    return x


@dataclass(frozen=True)
class TaskStatistics:
    """What the task encoder wants to know of examples; B tasks, sums over their examples.

    Attributes
    ----------
    regions
        Bx3x(F+1): object, background and border; the mean of each of the F features, weighted,
        and the weight itself last.
    moments
        Bx2xMxM: second moments of the embedding, its means over a pixel's `SURROUNDINGS`, the
        finer features, and a constant, in this order; over the object and over the background.
    """

    regions: Tensor
    moments: Tensor

    def __add__(self, other: TaskStatistics) -> TaskStatistics:
        """Those of both groups of examples together."""
        return TaskStatistics(self.regions + other.regions, self.moments + other.moments)

    def over(self, support: Tensor) -> TaskStatistics:
        """Those of Q tasks, each of the examples that its row of QxB marks with 1."""
        summed = (torch.einsum("qb,b...->q...", support, t) for t in (self.regions, self.moments))
        return TaskStatistics(*summed)


class TaskEncoder(nn.Module):
    """Example embeddings and their masks to decoder prompts.

    Two descriptions of the task are made of the examples: the mean features of
    object, background and border, which a small network maps to prompts; and a
    linear pixel classifier in closed form (ridge regression of -1 and +1), which
    becomes the four prompts of `read_out`. Both are sums over the
    examples, so that their order does not matter.
    """

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        features = DECODER_WIDTH + DECODER_WIDTH // 4 + DECODER_WIDTH // 8
        self.norm = nn.LayerNorm(3 * features)
        self.layers = nn.Sequential(
            nn.Linear(3 * features, hidden),
            nn.GELU(),
            nn.Linear(hidden, (PROMPT_COUNT - READOUT_PROMPTS) * DECODER_WIDTH),
        )
        self.base = nn.Parameter(0.1 * torch.randn(PROMPT_COUNT - READOUT_PROMPTS, DECODER_WIDTH))
        self.log_ridge = nn.Parameter(torch.tensor(0.02).log())
        self.contrast = nn.Parameter(torch.tensor(3.0))

    @staticmethod
    def statistics(embedding: tuple[Tensor, ...], masks: Tensor, valid: Tensor) -> TaskStatistics:
        """Statistics of one example for each of B tasks.

        Parameters
        ----------
        embedding
            As `EmbeddedEncoder` returns it, for B images.
        masks, valid
            Bx1xHxW float, 1 where the object is and where pixels count.
        """
        means = []
        for level in embedding:
            regions = _regions(masks, valid, (level.shape[-2], level.shape[-1])).flatten(2)
            features = level.flatten(2).transpose(1, 2)
            sums = (regions.to(features.dtype) @ features).float()
            means.append(sums / (regions.sum(-1, keepdim=True) + 1e-4))
        covered = torch.stack([masks.mul(valid).mean((1, 2, 3)), valid.mean((1, 2, 3))], 1)
        present = torch.stack([covered[:, 0], covered[:, 1] - covered[:, 0], covered[:, 0]], 1)
        # The root: a small object counts for more than its area.
        weight = (present.clamp(min=0.0) + 1e-6).sqrt()[..., None]
        regions = torch.cat([torch.cat(means, -1) * weight, weight], -1)
        return TaskStatistics(regions, _moments(embedding, masks, valid))

    def classifier(self, statistics: TaskStatistics) -> Tensor:
        """Weights of the linear pixel classifier, BxM: one for each row of the moments."""
        # In double precision, as surroundings are nearly the same everywhere: the matrix is close
        # to singular. Apple's GPUs have none.
        moments = statistics.moments
        moments = (moments.cpu() if moments.device.type == "mps" else moments).double()
        area = moments[:, :, -1, -1].clamp(min=1e-6)
        total = area.sum(1, keepdim=True)
        # Between counting pixels and counting both classes alike.
        balance = (area / total).clamp(min=1e-3).rsqrt() / total
        both = (moments * balance[..., None, None]).sum(1)
        target = moments[:, 0, -1] * balance[:, :1] - moments[:, 1, -1] * balance[:, 1:]
        coarse, around, fine, _ = both.diagonal(dim1=1, dim2=2).split(_readout_sizes(both), 1)
        scale = torch.cat([coarse, fine], 1).mean(1, keepdim=True)
        ridge = self.log_ridge.exp().to(scale.device) * scale + 1e-5
        penalty = [
            ridge.expand_as(coarse),
            (SURROUNDINGS_RIDGE * ridge).expand_as(around),
            ridge.expand_as(fine),
            torch.full_like(ridge, 1e-4),
        ]
        root = torch.linalg.cholesky(both + torch.diag_embed(torch.cat(penalty, 1)))
        weights = torch.cholesky_solve(target[..., None], root)[..., 0]
        return weights.to(statistics.moments.device, torch.float32)

    def forward(self, statistics: TaskStatistics) -> Tensor:
        """Bx8x256 prompts."""
        regions = statistics.regions[..., :-1] / statistics.regions[..., -1:]
        described = self.layers(self.norm(regions.flatten(1))).unflatten(1, (-1, DECODER_WIDTH))
        weights = self.classifier(statistics) * (self.contrast / READOUT_GAIN)
        coarse, around, fine, constant = weights.split(_readout_sizes(weights), 1)
        fine = F.pad(fine, (0, DECODER_WIDTH - 1 - fine.shape[1]))
        means = around.split(DECODER_WIDTH, 1)
        read = torch.stack([coarse, torch.cat([fine, constant], 1), *means], 1)
        return torch.cat([read, self.base + described], 1)


def _regions(masks: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Object, background and border, as shares of each pixel: Bx3xhxw."""
    weight = F.adaptive_avg_pool2d(valid, size)
    inside = F.adaptive_avg_pool2d(masks * valid, size)
    outside = weight - inside
    return torch.cat([inside, outside, 4.0 * inside * outside], 1)


def _readout_sizes(numbers: Tensor) -> list[int]:
    """Of the parts of BxM numbers: embedding, surroundings, finer features, constant."""
    known = [DECODER_WIDTH, len(SURROUNDINGS) * DECODER_WIDTH]
    return [*known, numbers.shape[1] - sum(known) - 1, 1]


def _moments(embedding: tuple[Tensor, ...], masks: Tensor, valid: Tensor) -> Tensor:
    """Second moments over object and background, of two of the finest pixels in each coarse one.

    In float32: rounded moments are no moments of anything, and the regression fails.
    """
    coarse, quarter, half = (level.float() for level in embedding)
    regions = _regions(masks, valid, (half.shape[-2], half.shape[-1]))[:, :2]
    around = [SURROUNDINGS_GAIN * _mean_around(coarse, side) for side in SURROUNDINGS]
    # The same for both pixels, and so many that their products are only made once.
    shared = torch.cat([coarse, *around], 1).flatten(2)[:, None]
    summed, fines, crossed = [], [], []
    for i in (0, 1):
        taken = slice(1 + 2 * i, None, 4)
        fine = torch.cat([quarter[..., i::2, i::2], half[..., taken, taken]], 1).flatten(2)
        fine = F.pad(fine, (0, 0, 0, 1), value=1.0)[:, None]
        weights = regions[..., taken, taken].flatten(2)[:, :, None]
        weighted = fine * weights
        summed.append(weights)
        fines.append(weighted @ fine.mT)
        crossed.append(weighted @ shared.mT)
    cross = crossed[0] + crossed[1]
    upper = torch.cat([(shared * (summed[0] + summed[1])) @ shared.mT, cross.mT], -1)
    lower = torch.cat([cross, fines[0] + fines[1]], -1)
    moments = torch.cat([upper, lower], -2)
    return moments / (2 * coarse.shape[-2] * coarse.shape[-1])


def build_embedded(shape: EmbeddedShape | None = None, seed: int = 0) -> Sam:
    """A randomly initialised embedded SAM, deterministic given the seed.

    Returns
    -------
    Sam
        `segment_anything`'s container with the small encoder and one more
        part, `task_encoder`.
    """
    shape = shape or EmbeddedShape()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grid = shape.input_size // 8
        sam = Sam(
            image_encoder=EmbeddedEncoder(shape),
            prompt_encoder=PromptEncoder(
                embed_dim=DECODER_WIDTH,
                image_embedding_size=(grid, grid),
                input_image_size=(shape.input_size, shape.input_size),
                mask_in_chans=16,
            ),
            mask_decoder=MaskDecoder(
                transformer_dim=DECODER_WIDTH,
                transformer=TwoWayTransformer(
                    depth=2, embedding_dim=DECODER_WIDTH, mlp_dim=2048, num_heads=8
                ),
            ),
        )
        sam.task_encoder = TaskEncoder()
        nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)
    return sam


def shape_of_state(state: Mapping[str, Tensor]) -> EmbeddedShape | None:
    """Sizes of the embedded SAM in a state dict, or None when it is another model.

    Raises
    ------
    BackboneError
        If tensors that tell the sizes are missing or of a shape that they cannot have.
    """
    if "image_encoder.stem_half.0.0.weight" not in state:
        return None
    try:
        return _read_shape(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise BackboneError(
            f"This embedded backbone is damaged: {error} does not fit or is missing. Install "
            "napari-ptsam again, or copy the file again."
        ) from error


def _read_shape(state: Mapping[str, Tensor]) -> EmbeddedShape:
    _, grid, _, width = state["image_encoder.pos_embed"].shape
    blocks = sorted({int(k.split(".")[2]) for k in state if k.startswith("image_encoder.blocks.")})
    spans = {i: state[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in blocks}
    windowed = [span[0] for span in spans.values() if span[0] != 2 * grid - 1]
    half, quarter, eighth = (
        state[f"image_encoder.stem_{stage}.0.0.weight"].shape[0]
        for stage in ("half", "quarter", "eighth")
    )
    return EmbeddedShape(
        input_size=grid * 16,
        stem=(half, quarter, eighth),
        width=width,
        depth=len(blocks),
        heads=width // spans[0][1],
        window=(min(windowed) + 1) // 2 if windowed else 0,
        global_blocks=tuple(i for i in blocks if spans[i][0] == 2 * grid - 1),
    )


def load_embedded(state: Mapping[str, Tensor]) -> Sam:
    """An embedded SAM with the weights of a state dict, as float32.

    Raises
    ------
    BackboneError
        If tensors are missing, or do not fit together.
    """
    shape = shape_of_state(state)
    if shape is None:
        raise BackboneError(
            "These are not the weights of an embedded backbone. Use a file that "
            "`python -m pretraining.export` wrote, or a name that `napari-ptsam backbones` lists."
        )
    try:
        sam = build_embedded(shape)
        if any(name.startswith("click_decoder.") for name in state):
            sam.click_decoder = ClickDecoder(sam)
        sam.load_state_dict(dict(state))
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise BackboneError(
            f"The embedded backbone's weights do not fit together: {str(error)[:300]}. They were "
            "made by another version of napari-ptsam, or are damaged."
        ) from error
    return sam
