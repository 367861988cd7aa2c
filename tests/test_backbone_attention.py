"""The fast encoder equals SAM's own, and the literal form of encoder prompts."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from napari_ptsam.backbones import attention as fast
from napari_ptsam.backbones._sam import (
    Block,
    ImageEncoderViT,
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from napari_ptsam.backbones.attention import encode_vit, run_block
from napari_ptsam.errors import BackboneError


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights of a trained network's size; none is zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        spread = 0.3 if "rel_pos" in name else 0.05
        parameter.data.add_(spread * noise)
        parameter.requires_grad_(False)
    return module.eval()


def make_block(
    window: int, width: int = 48, heads: int = 3, grid: tuple[int, int] = (9, 9)
) -> Block:
    block = Block(width, heads, use_rel_pos=True, window_size=window, input_size=grid)
    return randomised(block)


def make_encoder(image_size: int, depth: int, global_blocks: tuple[int, ...]) -> ImageEncoderViT:
    """ViT-B but for its depth and image size."""
    encoder = ImageEncoderViT(
        img_size=image_size,
        depth=depth,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=global_blocks,
        window_size=14,
    )
    return randomised(encoder)


def difference(a: Tensor, b: Tensor) -> float:
    """Relative norm of a - b."""
    a, b = a.detach().float(), b.detach().float()
    return ((a - b).norm() / b.norm()).item()


def literal_block(block: Block, x: Tensor, prompts: Tensor) -> Tensor:
    """Concatenate prompts to every window's tokens, run all of them, drop them after."""
    shortcut, grid = x, (x.shape[1], x.shape[2])
    x = block.norm1(x)
    padded = grid
    if block.window_size:
        x, padded = window_partition(x, block.window_size)
    size = (x.shape[1], x.shape[2])
    extra = block.norm1(prompts).expand(len(x), -1, -1)
    tokens = torch.cat([extra, x.flatten(1, 2)], 1)
    heads, n = block.attn.num_heads, len(prompts)
    qkv = block.attn.qkv(tokens).reshape(*tokens.shape[:2], 3, heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = (q * block.attn.scale) @ k.transpose(-2, -1)
    grid_q = q[:, :, n:].reshape(*q.shape[:2], *size, -1)
    table_h = get_rel_pos(size[0], size[0], block.attn.rel_pos_h)
    table_w = get_rel_pos(size[1], size[1], block.attn.rel_pos_w)
    rel_h = torch.einsum("bnhwc,hkc->bnhwk", grid_q, table_h)[..., :, None]
    rel_w = torch.einsum("bnhwc,wkc->bnhwk", grid_q, table_w)[..., None, :]
    bias = torch.zeros_like(scores)
    bias[:, :, n:, n:] = (rel_h + rel_w).reshape(*q.shape[:2], size[0] * size[1], -1)
    out = ((scores + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = block.attn.proj(out)[:, n:].reshape(len(x), *size, -1)
    if block.window_size:
        x = window_unpartition(x, block.window_size, padded, grid)
    x = shortcut + x
    return x + block.mlp(block.norm2(x))


GRIDS = [(9, 9), (8, 8), (5, 11), (4, 3)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_block_equals_sams_own(grid: tuple[int, int], window: int, differentiable: bool) -> None:
    block = make_block(window)  # relative positions are resampled where grid is not 9x9
    x = torch.randn(2, *grid, 48, requires_grad=differentiable)
    with torch.set_grad_enabled(differentiable):
        assert difference(run_block(block, x), block(x)) < 1e-5


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("differentiable", [False, True])
def test_prompts_equal_the_literal_concatenate_and_drop(
    grid: tuple[int, int], window: int, differentiable: bool
) -> None:
    block = make_block(window)
    x, prompts = torch.randn(2, *grid, 48), torch.randn(8, 48)
    prompts.requires_grad_(differentiable)
    ours, literal = run_block(block, x, prompts), literal_block(block, x, prompts)
    assert difference(ours, literal) < 1e-5
    assert difference(ours, block(x)) > 1e-3, "prompts had no effect"


@pytest.mark.parametrize("window", [0, 4])
def test_gradients_of_prompts_and_tokens_equal_the_literal_form(window: int) -> None:
    block = make_block(window)
    x = torch.randn(2, 9, 9, 48, requires_grad=True)
    prompts = torch.randn(8, 48, requires_grad=True)
    target = torch.randn(2, 9, 9, 48)
    gradients = [
        torch.autograd.grad((form(block, x, prompts) * target).sum(), [x, prompts])
        for form in (run_block, literal_block)
    ]
    for ours, literal in zip(*gradients, strict=True):
        assert difference(ours, literal) < 1e-5


def test_prompts_pass_gradients_through_all_blocks_of_a_frozen_encoder() -> None:
    encoder = make_encoder(64, depth=3, global_blocks=(1,))
    prompts = torch.randn(3, 8, 768, requires_grad=True)
    images = torch.randn(2, 3, 64, 64)
    encode_vit(encoder, images, prompts).square().mean().backward()
    ours = prompts.grad
    assert ours is not None
    prompts.grad = None
    x = encoder.patch_embed(images) + encoder.pos_embed
    for block, extra in zip(encoder.blocks, prompts, strict=True):
        x = literal_block(block, x, extra)
    encoder.neck(x.permute(0, 3, 1, 2)).square().mean().backward()
    assert prompts.grad is not None
    assert difference(ours, prompts.grad) < 1e-4
    assert all((ours[i] != 0).all() for i in range(3))


def test_a_mask_made_in_many_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "MASK_QUERIES", 7)  # 81 queries: pieces of 7, the last of 4
    monkeypatch.setattr(fast, "MASK_ELEMENTS", 1)
    x = torch.randn(3, 9, 9, 48)
    for window in (0, 4):
        block = make_block(window)
        assert difference(run_block(block, x), block(x)) < 1e-5


@torch.no_grad()
def test_vit_b_width_encoder_equals_sams_own() -> None:
    encoder = make_encoder(320, depth=3, global_blocks=(2,))  # 20x20 tokens, padded to 28x28
    images = torch.randn(2, 3, 320, 320)
    assert difference(encode_vit(encoder, images), encoder(images)) < 1e-5


@torch.no_grad()
def test_vit_b_blocks_at_1024_pixels_equal_sams_own() -> None:
    # Both kinds of block in full size; benchmarks/encoder_speed.py compares all twelve.
    encoder = make_encoder(1024, depth=2, global_blocks=(1,))
    images = torch.randn(1, 3, 1024, 1024)
    assert difference(encode_vit(encoder, images), encoder(images)) < 1e-4


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_close_to_full_precision(dtype: torch.dtype, differentiable: bool) -> None:
    encoder = make_encoder(160, depth=2, global_blocks=(1,))
    images = torch.randn(1, 3, 160, 160)
    prompts = torch.randn(2, 8, 768, requires_grad=differentiable)
    exact = encode_vit(encoder, images, prompts)
    with torch.autocast("cpu", dtype=dtype):
        half = encode_vit(encoder, images, prompts)
    assert difference(half, exact) < 0.02
    assert half.isfinite().all()


@torch.no_grad()
def test_other_input_sizes_resample_the_position_embedding() -> None:
    encoder = make_encoder(160, depth=2, global_blocks=(1,))
    assert encode_vit(encoder, torch.randn(1, 3, 96, 224)).shape == (1, 256, 6, 14)


def test_relative_positions_can_be_absent() -> None:
    block = randomised(Block(48, 3, use_rel_pos=False, window_size=4))
    x = torch.randn(1, 9, 9, 48)
    assert difference(run_block(block, x), block(x)) < 1e-5


@torch.no_grad()
def test_no_bias_tensor_of_all_queries_and_keys_is_made_when_gradients_flow() -> None:
    block = make_block(0, width=16, heads=1, grid=(24, 24))
    shapes = []
    with torch.enable_grad():
        x = torch.randn(1, 24, 24, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda saved: shapes.append(saved.shape) or saved, lambda saved: saved
        ):
            run_block(block, x)
    assert shapes
    assert max(shape.numel() for shape in shapes) < 576 * 576


@pytest.mark.parametrize("shape", [(3, 8, 768), (2, 8, 512)])
def test_prompts_of_another_backbone_are_refused(shape: tuple[int, ...]) -> None:
    encoder = make_encoder(64, depth=2, global_blocks=())
    with pytest.raises(BackboneError, match="2 blocks of width 768"):
        encode_vit(encoder, torch.randn(1, 3, 64, 64), torch.randn(shape))
