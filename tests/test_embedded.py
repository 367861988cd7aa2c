"""The small SAM inside the package, and its task encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.embedded import (
    READOUT_GAIN,
    SURROUNDINGS_GAIN,
    EmbeddedShape,
    TaskEncoder,
    build_embedded,
    load_embedded,
    read_out,
    shape_of_state,
)
from napari_ptsam.errors import BackboneError
from napari_ptsam.methods import build_method

TINY = EmbeddedShape(64, (8, 16, 16), width=32, depth=2, heads=2, window=2, global_blocks=(1,))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(build_embedded(TINY).state_dict())


def random_images(*sides: int) -> Tensor:
    return torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "shape",
    [
        TINY,
        EmbeddedShape(96, (8, 8, 24), width=48, depth=3, heads=3, window=3, global_blocks=(0, 2)),
        EmbeddedShape(64, (16, 16, 16), width=32, depth=2, heads=4, window=0, global_blocks=(0, 1)),
    ],
)
def test_the_shape_is_found_from_the_tensors(shape: EmbeddedShape) -> None:
    assert shape_of_state(build_embedded(shape).state_dict()) == shape


def test_another_network_is_not_taken_for_an_embedded_one() -> None:
    assert shape_of_state({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8)}) is None
    with pytest.raises(BackboneError, match="not the weights of an embedded backbone"):
        load_embedded({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8)})


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build_embedded(TINY, seed=3).state_dict()
    before = torch.get_rng_state()
    again, other = build_embedded(TINY, seed=3).state_dict(), build_embedded(TINY, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    name = "image_encoder.patch_embed.weight"
    assert not torch.equal(first[name], other.state_dict()[name])


@pytest.mark.parametrize("sides", [(64, 64), (96, 96), (32, 80)])
def test_features_come_at_strides_8_4_and_2_for_any_input_size(
    state: dict[str, Tensor], sides: tuple[int, int]
) -> None:
    levels = load_embedded(state).image_encoder(random_images(*sides))
    for level, (channels, stride) in zip(levels, [(256, 8), (64, 4), (32, 2)], strict=True):
        assert level.shape == (2, channels, sides[0] // stride, sides[1] // stride)
        assert torch.isfinite(level).all()


def test_encoder_prompts_change_the_features_and_get_gradients(state: dict[str, Tensor]) -> None:
    encoder = load_embedded(state).image_encoder.requires_grad_(False)
    prompts = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    plain, prompted = encoder(random_images(64, 64)), encoder(random_images(64, 64), prompts)
    assert not any(torch.allclose(a, b) for a, b in zip(plain, prompted, strict=True))
    sum(level.square().mean() for level in prompted).backward()
    assert prompts.grad is not None
    assert (prompts.grad.abs().sum((1, 2)) > 0).all()  # in every block


def test_files_of_float16_load_as_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "half.safetensors")
    backbone = load_backbone(tmp_path / "half.safetensors")
    assert (backbone.architecture, backbone.name) == ("embedded", "half")
    assert {p.dtype for p in backbone.sam.parameters()} == {torch.float32}
    for name, tensor in backbone.sam.state_dict().items():
        assert torch.equal(tensor, state[name].half().float())


def test_masks_come_at_half_the_inputs_resolution(tiny_backbone: Path) -> None:
    backbone = load_backbone(tiny_backbone)
    method = build_method("ptsam", {}, backbone)
    logits = method.decode(backbone, method.encode(backbone, random_images(64, 64)))
    assert logits.shape == (2, 1, 64 // backbone.mask_stride, 64 // backbone.mask_stride)


def damaged(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    state, blocks = dict(state), "image_encoder.blocks."
    if how == "no position":
        del state["image_encoder.pos_embed"]
    elif how == "flat position":
        state["image_encoder.pos_embed"] = torch.zeros(3)
    elif how == "no blocks":
        state = {k: v for k, v in state.items() if not k.startswith(blocks)}
    elif how == "first block missing":
        state = {k: v for k, v in state.items() if not k.startswith(f"{blocks}0.")}
    elif how == "odd block name":
        state[f"{blocks}x.weight"] = torch.zeros(1)
    elif how == "odd stem":
        state["image_encoder.stem_half.0.0.weight"] = torch.zeros(5, 3, 3, 3)
    elif how == "decoder missing":
        state = {k: v for k, v in state.items() if not k.startswith("mask_decoder")}
    else:
        state["mask_decoder.iou_token.weight"] = torch.zeros(1, 3)
    return state


@pytest.mark.parametrize(
    "how",
    [
        "no position", "flat position", "no blocks", "first block missing", "odd block name",
        "odd stem", "decoder missing", "decoder of another shape",
    ],
)  # fmt: skip
def test_damaged_weights_are_refused_in_words(
    state: dict[str, Tensor], how: str, tmp_path: Path
) -> None:
    save_file(damaged(state, how), tmp_path / "x.safetensors")
    with pytest.raises(BackboneError, match=r"damaged|do not fit"):
        load_backbone(tmp_path / "x.safetensors")


def test_the_default_shape_ships_in_20_megabytes_and_takes_2048_numbers() -> None:
    sam = build_embedded()
    assert 2 * sum(t.numel() for t in sam.state_dict().values()) < 20e6
    backbone = Backbone(sam, "embedded", "none", "embedded")
    assert build_method("ptsam", {}, backbone).trainable_parameters == 2048
    assert backbone.input_size == 256


def test_the_tiny_file_holds_what_it_was_built_of(tiny_backbone: Path) -> None:
    assert shape_of_state(load_file(tiny_backbone)) == TINY


def task_inputs(count: int = 3, side: int = 8) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Embeddings, masks and valid pixels of some examples."""
    generator = torch.Generator().manual_seed(0)
    levels = [(256, side), (64, 2 * side), (32, 4 * side)]
    embedding = tuple(torch.randn(count, c, s, s, generator=generator) for c, s in levels)
    masks = (torch.rand(count, 1, 8 * side, 8 * side, generator=generator) < 0.3).float()
    valid = torch.ones_like(masks)
    valid[:, :, 6 * side :] = 0
    return embedding, masks, valid


@pytest.fixture(scope="module")
def task_encoder() -> TaskEncoder:
    return build_embedded(TINY).task_encoder.eval().requires_grad_(False)


def all_together(count: int) -> Tensor:
    """One task that is told by all examples."""
    return torch.ones(1, count)


def test_the_order_of_examples_does_not_matter(task_encoder: TaskEncoder) -> None:
    embedding, masks, valid = task_inputs(side=32)  # more pixels than the readout has numbers
    prompts = task_encoder(TaskEncoder.statistics(embedding, masks, valid).over(all_together(3)))
    assert prompts.shape == (1, 8, 256)
    order = [2, 0, 1]
    turned = TaskEncoder.statistics(tuple(e[order] for e in embedding), masks[order], valid[order])
    torch.testing.assert_close(
        task_encoder(turned.over(all_together(3))), prompts, rtol=1e-3, atol=1e-4
    )


def test_showing_all_examples_twice_changes_nothing(task_encoder: TaskEncoder) -> None:
    once = TaskEncoder.statistics(*task_inputs()).over(all_together(3))
    torch.testing.assert_close(task_encoder(once + once), task_encoder(once), rtol=1e-3, atol=1e-4)


def test_examples_and_masks_do_matter(task_encoder: TaskEncoder) -> None:
    embedding, masks, valid = task_inputs()
    statistics = TaskEncoder.statistics(embedding, masks, valid)
    prompts = task_encoder(statistics.over(all_together(3)))
    inverted = TaskEncoder.statistics(embedding, 1 - masks, valid)
    assert not torch.allclose(task_encoder(inverted.over(all_together(3))), prompts, atol=1e-3)
    fewer = statistics.over(torch.tensor([[1.0, 0.0, 0.0]]))
    assert not torch.allclose(task_encoder(fewer), prompts, atol=1e-3)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_objects_that_one_feature_tells_are_read_off_without_any_training(
    task_encoder: TaskEncoder, level: int
) -> None:
    embedding, _, valid = task_inputs(count=16, side=32)
    shown = torch.nn.functional.interpolate(embedding[level][:, 5:6], (256, 256), mode="nearest")
    masks = (shown > 0.5).float()
    statistics = TaskEncoder.statistics(embedding, masks, valid).over(all_together(16))
    logits = read_out(embedding, task_encoder(statistics).expand(16, -1, -1))
    assert logits.shape == (16, 1, 128, 128)
    truth = torch.nn.functional.interpolate(masks, (128, 128), mode="nearest") > 0
    agree = ((logits > 0) == truth).float().mean()
    # Features that are coarser than the mask are interpolated, and blur its borders.
    assert agree > (0.95 if level == 2 else 0.75)


@pytest.mark.parametrize(("prompt", "side"), [(2, 9), (3, 21)])
def test_surroundings_are_means_over_squares(prompt: int, side: int) -> None:
    embedding = tuple(torch.zeros(1, c, s, s) for c, s in ((256, 32), (64, 64), (32, 128)))
    embedding[0][0, 7, 16, 16] = 1.0
    prompts = torch.zeros(1, 8, 256)
    prompts[0, prompt, 7] = 1 / (READOUT_GAIN * SURROUNDINGS_GAIN)
    seen = read_out(embedding, prompts)[0, 0]
    reach = 4 * (side // 2)  # in pixels of the mask
    assert seen[66, 66] == pytest.approx(1 / side**2, rel=1e-4)
    assert seen[66 + reach - 4, 66] > 0
    assert seen[66 + reach + 6, 66] == 0
    # At a corner the mean is over what lies within.
    embedding[0].fill_(0.0)
    embedding[0][0, 7, 0, 0] = 1.0
    corner = read_out(embedding, prompts)[0, 0, 0, 0]
    assert corner == pytest.approx(1 / (side // 2 + 1) ** 2, rel=1e-4)


def test_prompts_that_are_missing_read_nothing() -> None:
    embedding, _, _ = task_inputs()
    assert not read_out(embedding, torch.zeros(3, 0, 256)).any()
    one = torch.ones(3, 1, 256)
    both = torch.cat([one, torch.zeros(3, 1, 256)], 1)
    assert torch.equal(read_out(embedding, one), read_out(embedding, both))
    constant = torch.zeros(3, 2, 256)
    constant[:, 1, -1] = 1.0
    assert torch.equal(read_out(embedding, constant), torch.full((3, 1, 32, 32), READOUT_GAIN))


def test_ignored_pixels_do_not_reach_the_prompts() -> None:
    embedding, masks, valid = task_inputs()
    statistics = TaskEncoder.statistics(embedding, masks, valid)
    other_masks = torch.where(valid > 0, masks, 1 - masks)
    other_levels = []
    for level in embedding:
        changed = level.clone()
        changed[:, :, level.shape[2] * 48 // 64 :] = 99.0
        other_levels.append(changed)
    again = TaskEncoder.statistics(tuple(other_levels), other_masks, valid)
    torch.testing.assert_close(again.regions, statistics.regions)
    # What a pixel's own features tell; its surroundings are the image, whatever is marked there.
    surroundings = range(256, 3 * 256)
    own = [i for i in range(statistics.moments.shape[-1]) if i not in surroundings]
    found, told = (t.moments[:, :, own][:, :, :, own] for t in (again, statistics))
    torch.testing.assert_close(found, told)


def test_examples_without_object_give_finite_prompts(task_encoder: TaskEncoder) -> None:
    embedding, masks, valid = task_inputs()
    for mask in (torch.zeros_like(masks), torch.ones_like(masks)):
        statistics = TaskEncoder.statistics(embedding, mask, valid).over(all_together(3))
        prompts = task_encoder(statistics)
        assert torch.isfinite(prompts).all()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.usefixtures("threads")
def test_the_embedding_does_not_depend_on_the_number_of_threads(
    half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = torch.bfloat16 if half else None
    monkeypatch.setattr("napari_ptsam.backbones.backbone.half_precision", lambda device: kind)
    backbone = load_backbone("embedded")
    images = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        with torch.inference_mode():
            found.append(backbone.encode(images))
    # Up to the rounding of sums in float32; in bfloat16 it was 0.05 before.
    for other in found[1:]:
        for level, same in zip(found[0], other, strict=True):
            torch.testing.assert_close(level, same, rtol=1e-4, atol=1e-4)


def test_on_a_processor_an_embedding_does_not_depend_on_what_it_is_encoded_with() -> None:
    backbone = load_backbone("embedded")
    images = torch.randn(3, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = backbone.encode(images)
        for i, image in enumerate(images):
            for level, alone in zip(together, backbone.encode(image[None]), strict=True):
                assert torch.equal(level[i], alone[0])


def test_weights_in_half_precision_give_what_casting_them_each_time_gives() -> None:
    encoder = build_embedded(TINY, seed=1).image_encoder.eval()
    names = list(encoder.state_dict())
    images = random_images(64, 64).contiguous(memory_format=torch.channels_last)

    def equal() -> bool:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            twin = encoder.in_half(torch.bfloat16)
            assert encoder.in_half(torch.bfloat16) is twin
            return all(map(torch.equal, twin(images), encoder(images)))

    assert equal()
    # Pre-training looks at its model between steps.
    with torch.no_grad():
        encoder.stem_half[0][0].weight += 0.1
    assert equal()
    assert "_half" not in vars(encoder.in_half(torch.bfloat16))  # each would keep the one before
    assert list(encoder.state_dict()) == names
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
