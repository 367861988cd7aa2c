"""Exact and fast forward pass of SAM's image encoder, with encoder prompts.

SAM adds its decomposed relative positions to an explicit attention map of
N x N numbers for each head. The same result comes from fused attention in two
ways, and each is used where it is the faster one:

* *masked* (CPU without gradients): the bias is an additive mask, made for a
  few queries at a time so that it stays in the processor's caches;
* *folded* (GPU, or when gradients flow through the bias): the bias goes into
  more query and key dimensions, q' = [q * scale, rel_h, rel_w] and
  k' = [k, onehot(row), onehot(column)], and no mask is made at all.

Encoder prompts (PTSAM, section 3.2) overwrite their slots before each layer,
so what a layer puts out there is never read. It follows that they are only
additional keys and values, which cost next to nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_ptsam.backbones._sam import Attention, Block, ImageEncoderViT, get_rel_pos
from napari_ptsam.errors import BackboneError

# Measured on CPU: below 256 queries a time the keys are read too often; masks
# of more than some 16 MB leave the cache before they are used.
MASK_QUERIES = 256
MASK_ELEMENTS = 1 << 22


def encode_vit(encoder: ImageEncoderViT, images: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Image embeddings, equal to `encoder(images)` when there are no prompts.

    Parameters
    ----------
    encoder
        SAM's image encoder.
    images
        Bx3xHxW, normalised. Sides are multiples of the patch size; at sides
        other than the encoder's own, position embeddings are resampled.
    prompts
        depth x n x width: n learned tokens for each block (PTSAM, section
        3.2), the same ones in every window. None for none.

    Returns
    -------
    Tensor
        Bx256xH/16xW/16 for SAM's own encoders.

    Raises
    ------
    BackboneError
        If the prompts do not fit the encoder's depth and width.
    """
    x: Tensor = encoder.patch_embed(images).contiguous()
    depth, width = len(encoder.blocks), x.shape[-1]
    if prompts is not None and (prompts.shape[0], prompts.shape[-1]) != (depth, width):
        raise BackboneError(
            f"Encoder prompts of shape {tuple(prompts.shape)} do not fit an encoder of {depth} "
            f"blocks of width {width}: {depth} x n x {width} is needed. Were they trained on "
            "another backbone?"
        )
    if encoder.pos_embed is not None:
        x = x + _positions(encoder.pos_embed, x.shape[1], x.shape[2])
    for i, block in enumerate(encoder.blocks):
        x = run_block(block, x, None if prompts is None else prompts[i])
    embedding: Tensor = encoder.neck(x.permute(0, 3, 1, 2))
    return embedding


def run_block(block: Block, x: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Run one transformer block of SAM, windowed or global.

    Parameters
    ----------
    block
        The block, with its own weights.
    x
        BxHxWxC tokens.
    prompts
        nxC learned tokens that every query also attends to, or None.

    Returns
    -------
    Tensor
        BxHxWxC.
    """
    height, width = x.shape[1:3]
    tokens = x.flatten(1, 2)
    normed = block.norm1(tokens)
    extra = None if prompts is None else _prompt_keys_values(block, prompts)
    if block.window_size > 0:
        attended = _windowed(block.attn, normed, (height, width), block.window_size, extra)
    else:
        attended = _attention(block.attn, block.attn.qkv(normed), (height, width), extra)
    tokens = tokens + block.attn.proj(attended)
    tokens = tokens + block.mlp(block.norm2(tokens))
    shaped: Tensor = tokens.view(x.shape)
    return shaped


def _positions(embedding: Tensor, height: int, width: int) -> Tensor:
    """Position embedding 1xHxWxC for a grid of height x width tokens."""
    if (height, width) == tuple(embedding.shape[1:3]):
        return embedding
    grid = F.interpolate(
        embedding.permute(0, 3, 1, 2), (height, width), mode="bilinear", antialias=True
    )
    return grid.permute(0, 2, 3, 1)


def _prompt_keys_values(block: Block, prompts: Tensor) -> Tensor:
    """Keys and values of prompts, nxC to nx2C, as the block makes them for tokens."""
    channels = prompts.shape[-1]
    qkv = block.attn.qkv
    bias = None if qkv.bias is None else qkv.bias[channels:]
    keys_values: Tensor = F.linear(block.norm1(prompts), qkv.weight[channels:], bias)
    return keys_values


def _windowed(
    attention: Attention, tokens: Tensor, grid: tuple[int, int], window: int, extra: Tensor | None
) -> Tensor:
    """Attention within windows, BxHWxC to BxHWxC.

    SAM pads the grid with zeros to whole windows after the norm, so padded
    positions are keys that carry only the bias of `qkv`. All of them are
    alike: one row of zeros is appended to the tokens and stands for them all.
    """
    batch, count, channels = tokens.shape
    order = _window_order(grid, window, tokens.device)
    if len(order) > count:
        tokens = F.pad(tokens, (0, 0, 0, 1))
    qkv = attention.qkv(tokens).index_select(1, order)
    qkv = qkv.reshape(-1, window * window, 3 * channels)
    attended = _attention(attention, qkv, (window, window), extra)
    return attended.reshape(batch, -1, channels).index_select(1, order.argsort()[:count])


def _window_order(grid: tuple[int, int], window: int, device: torch.device) -> Tensor:
    """Token index of each window position, window by window; H*W where padded."""
    height, width = grid
    index = torch.arange(height * width, device=device).view(height, width)
    index = F.pad(index, (0, -width % window, 0, -height % window), value=height * width)
    down, across = index.shape[0] // window, index.shape[1] // window
    return index.view(down, window, across, window).transpose(1, 2).reshape(-1)


def _attention(
    attention: Attention, qkv: Tensor, grid: tuple[int, int], extra: Tensor | None
) -> Tensor:
    """Multi-head attention before its output projection.

    Parameters
    ----------
    qkv
        BxNx3C with N = H*W of `grid`.
    extra
        nx2C: more keys and values, without relative position.

    Returns
    -------
    Tensor
        BxNxC.
    """
    heads = attention.num_heads
    q, k, v = qkv.reshape(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    if extra is not None:
        more = extra.reshape(len(extra), 2, heads, -1).permute(1, 2, 0, 3)
        more = more[:, None].expand(-1, len(k), -1, -1, -1)
        k, v = torch.cat([k, more[0]], 2), torch.cat([v, more[1]], 2)
    if not attention.use_rel_pos:
        attended = F.scaled_dot_product_attention(q, k, v, scale=attention.scale)
    else:
        rel_h, rel_w = _relative_positions(attention, q, grid)
        differentiable = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
        attend = _folded if differentiable or q.device.type != "cpu" else _masked
        attended = attend(q, k, v, rel_h, rel_w, attention.scale)
    return attended.transpose(1, 2).flatten(2)


def _relative_positions(
    attention: Attention, q: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Bias of each query towards key rows (BxheadsxNxH) and columns (BxheadsxNxW)."""
    height, width = grid
    queries = q.reshape(*q.shape[:2], height, width, -1)
    table_h = get_rel_pos(height, height, attention.rel_pos_h)
    table_w = get_rel_pos(width, width, attention.rel_pos_w)
    rel_h = torch.einsum("bnhwc,hkc->bnhwk", queries, table_h).flatten(2, 3)
    rel_w = torch.einsum("bnhwc,wkc->bnhwk", queries, table_w).flatten(2, 3)
    return rel_h, rel_w


def _folded(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    """Attention with the bias in more query and key dimensions; no N x N tensor."""
    head_width, count = v.shape[-1], q.shape[2]
    height, width = rel_h.shape[-1], rel_w.shape[-1]
    rows, columns = torch.eye(height, device=k.device), torch.eye(width, device=k.device)
    onehot = torch.cat([rows.repeat_interleave(width, 0), columns.repeat(height, 1)], 1)
    # Zeros: keys of prompts have no position, and fused kernels want widths in eighths.
    unused = -(head_width + height + width) % 8
    onehot = F.pad(onehot, (0, unused, 0, k.shape[2] - count)).to(k.dtype)
    k = torch.cat([k, onehot.expand(*k.shape[:2], -1, -1)], -1)
    q = F.pad(torch.cat([q * scale, rel_h, rel_w], -1), (0, unused))
    if q.device.type == "cpu" or q.dtype != torch.float32:  # flash kernels: one width for all
        v = F.pad(v, (0, q.shape[-1] - head_width))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :head_width]


def _masked(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    """Attention with the bias as an additive mask, made for some queries at a time."""
    batch, heads, count, head_width = q.shape
    keys, grid = k.shape[2], (rel_h.shape[-1], rel_w.shape[-1])
    step = min(count, max(MASK_QUERIES, MASK_ELEMENTS // (heads * keys)))
    images = min(batch, max(1, MASK_ELEMENTS // (heads * step * keys)))
    attended = q.new_empty(batch, count, heads, head_width).transpose(1, 2)
    mask = q.new_zeros(images, heads, step, keys)
    for first_image in range(0, batch, images):
        for first in range(0, count, step):
            part = (slice(first_image, first_image + images), slice(None))
            queries = (*part, slice(first, first + step))
            some = q[queries]
            bias = mask[: some.shape[0], :, : some.shape[2]]
            torch.add(
                rel_h[queries].unsqueeze(-1),
                rel_w[queries].unsqueeze(-2),
                out=bias[..., : grid[0] * grid[1]].view(*bias.shape[:3], *grid),
            )
            attended[queries] = F.scaled_dot_product_attention(
                some, k[part], v[part], attn_mask=bias, scale=scale
            )
    return attended
