"""PLM and PMM keep the promises of their paper, and those that every method keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import disc
from torch import Tensor

from napari_ptsam.backbones import Backbone, Embedding, load_backbone
from napari_ptsam.backbones.architecture import ARCHITECTURES, SamArchitecture, build_sam
from napari_ptsam.backbones.backbone import decode_features, decode_masks
from napari_ptsam.backbones.embedded import read_out
from napari_ptsam.clicking.losses import LossWeights, focal_loss, mask_loss, outline_loss
from napari_ptsam.clicking.tokens import answer_points
from napari_ptsam.errors import InputError, PromptFileError
from napari_ptsam.methods import build_click_method, build_method
from napari_ptsam.methods.plm import READOUT_SHARE, Plm, PlmSettings
from napari_ptsam.methods.pmm import Pmm, matching_loss, outline_points


@pytest.fixture(scope="module", params=["embedded", "vit"])
def backbone(request: pytest.FixtureRequest, tiny_backbone: Path) -> Backbone:
    if request.param == "embedded":
        return load_backbone(tiny_backbone)
    torch.manual_seed(0)
    sam = build_sam(SamArchitecture(32, 2, 2, (1,), window=3, image_size=64))
    return Backbone(sam, "tiny-vit", "none", "custom")


@pytest.fixture(scope="module")
def embedding(backbone: Backbone) -> Embedding:
    torch.manual_seed(1)
    with torch.no_grad():
        return backbone.encode(torch.randn(2, 3, 64, 64))


def tokens() -> Tensor:
    return torch.randn(2, 4, 256, generator=torch.Generator().manual_seed(2))


def answer(method: Plm, backbone: Backbone, embedding: Embedding) -> Tensor:
    moved = method.move(backbone, embedding, tokens())
    found = decode_masks(backbone.clicking, embedding, moved)[0][:, :1]
    return found if method.readout is None else found + read_out(embedding, method.readout[None])


def trained(backbone: Backbone, embedding: Embedding, settings: PlmSettings, steps: int = 2) -> Plm:
    method = Plm(settings, backbone)
    optimiser = torch.optim.AdamW(method.parameters(), 1e-2)
    for _ in range(steps):
        loss = answer(method, backbone, embedding).square().mean()
        if method.tokens is not None:
            loss = loss + method.decode(backbone, embedding).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    method.zero_grad()
    return method


def test_the_counts_are_the_papers_on_the_shapes_of_vit_b() -> None:
    with torch.device("meta"):
        sam = build_sam(replace(ARCHITECTURES["vit_b"]))
    shapes = Backbone(sam, "vit_b", "none", "vit_b")
    assert Plm(PlmSettings(), shapes).trainable_parameters == 1_578_752
    assert Plm(PlmSettings(tokens=8), shapes).trainable_parameters == 1_578_752 + 2_048
    assert sum(p.numel() for p in Pmm().parameters()) == 1_188_418


def test_an_untrained_plm_is_plain_sam_to_the_last_bit(
    backbone: Backbone, embedding: Embedding
) -> None:
    with torch.no_grad():
        plain = decode_masks(backbone.clicking, embedding, tokens())[0][:, :1]
        assert torch.equal(answer(Plm(PlmSettings(), backbone), backbone, embedding), plain)
    learned = trained(backbone, embedding, PlmSettings())
    with torch.no_grad():
        assert not torch.allclose(answer(learned, backbone, embedding), plain)


@pytest.mark.parametrize("settings", [PlmSettings(), PlmSettings(tokens=3)])
def test_all_that_is_declared_gets_gradients_and_nothing_of_the_backbone(
    backbone: Backbone, embedding: Embedding, settings: PlmSettings
) -> None:
    before = {k: v.clone() for k, v in backbone.sam.state_dict().items()}
    method = trained(backbone, embedding, settings)
    loss = answer(method, backbone, embedding).square().mean()
    if settings.tokens:
        loss = loss + method.decode(backbone, embedding).square().mean()
    loss.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        # A constant on all keys changes no attention.
        assert name.endswith("key.bias") or parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in backbone.sam.parameters())
    now = backbone.sam.state_dict()
    assert all(torch.equal(now[k], v) for k, v in before.items())


def test_saved_numbers_come_back_bit_for_bit(backbone: Backbone, embedding: Embedding) -> None:
    method = trained(backbone, embedding, PlmSettings(tokens=2))
    again = build_click_method("plm", method.settings_dict, backbone, seed=9)
    again.load_tensors(method.tensors())
    with torch.no_grad():
        assert torch.equal(answer(again, backbone, embedding), answer(method, backbone, embedding))
        assert torch.equal(again.decode(backbone, embedding), method.decode(backbone, embedding))


def test_one_image_serves_many_prompts_as_if_each_had_its_own(
    backbone: Backbone, embedding: Embedding
) -> None:
    method = trained(backbone, embedding, PlmSettings())
    one = tuple(level[:1] for level in embedding)
    twice = tuple(level.expand(2, -1, -1, -1) for level in one)
    with torch.no_grad():
        shared = method.move(backbone, one, tokens())
        assert torch.allclose(shared, method.move(backbone, twice, tokens()), atol=1e-5)


def test_the_readout_is_added_to_the_mask_where_the_backbone_has_one(
    backbone: Backbone, embedding: Embedding
) -> None:
    method, without = (Plm(PlmSettings(readout=r), backbone) for r in (True, False))
    points, kinds = (
        torch.tensor([[[20.0, 30.0]], [[40.0, 8.0]]]),
        torch.ones(2, 1, dtype=torch.long),
    )
    one = tuple(level[:1] for level in embedding)
    prompts = torch.randn(8, 256, generator=torch.Generator().manual_seed(3))
    method.start_from(prompts)
    assert (method.readout is not None) == backbone.is_embedded
    with torch.no_grad():
        answered, plain = (
            answer_points(backbone, m, one, points, kinds)[0] for m in (method, without)
        )
        added = torch.zeros_like(plain)
        if backbone.is_embedded:
            added = added + read_out(one, READOUT_SHARE * prompts[None, :4])
    torch.testing.assert_close(answered, plain + added)


def test_the_same_seed_gives_the_same_start(backbone: Backbone) -> None:
    first, same, other = (Plm(PlmSettings(), backbone, seed) for seed in (1, 1, 2))
    assert torch.equal(first.first.weight, same.first.weight)
    assert not torch.equal(first.first.weight, other.first.weight)


def test_settings_that_cannot_be_are_refused_in_words(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="at least one head"):
        PlmSettings(heads=0)
    with pytest.raises(InputError, match="no mask 4"):
        PlmSettings(mask_index=4)
    with pytest.raises(InputError, match="among 7 heads"):
        Plm(PlmSettings(heads=7), backbone)
    with pytest.raises(PromptFileError, match="without one"):
        build_method("plm", {}, backbone)
    with pytest.raises(PromptFileError, match="not known"):
        build_click_method("ptsam", {}, backbone)
    with pytest.raises(PromptFileError, match="not those of 'plm'"):
        build_click_method("plm", {"colour": 1}, backbone)


# Point matching


def test_outline_points_are_evenly_spaced_on_the_outline() -> None:
    points = outline_points(disc((60, 60), (30, 25), 12).astype(np.float32), 64)
    assert points is not None
    radius = np.hypot(points[:, 0] - 25, points[:, 1] - 30)
    assert np.abs(radius - 12.3).max() < 0.8
    steps = np.hypot(*np.diff(np.vstack([points, points[:1]]), axis=0).T)
    assert steps.max() < 2 * steps.min()
    assert outline_points(np.zeros((8, 8), np.float32), 64) is None


def test_the_outline_of_an_object_at_the_border_is_closed() -> None:
    points = outline_points(np.ones((10, 20), np.float32), 60)
    assert points is not None
    assert points.min(0) == pytest.approx([-0.5, -0.5], abs=0.01)
    assert points.max(0) == pytest.approx([19.5, 9.5], abs=0.01)


def test_matching_does_not_depend_on_where_an_outline_begins() -> None:
    found = outline_points(disc((60, 60), (30, 25), 12).astype(np.float32), 64)
    assert found is not None
    points = torch.from_numpy(found)[None]
    rolled = points.roll(17, 1)
    assert float(matching_loss(points, rolled)) == pytest.approx(0, abs=1e-6)
    # Smooth L1 of 3 pixels is 2.5, on one of the axes.
    moved = points + torch.tensor([3.0, 0.0])
    assert float(matching_loss(moved, rolled)) == pytest.approx(2.5, abs=0.3)


def test_the_gradient_of_the_points_reaches_the_plm(
    backbone: Backbone, embedding: Embedding
) -> None:
    method, pmm = trained(backbone, embedding, PlmSettings()), Pmm()
    moved = method.move(backbone, embedding, tokens())
    masks, _, features = decode_features(backbone.clicking, embedding, moved)
    size = (masks.shape[-2], masks.shape[-1])
    target = torch.from_numpy(disc(size, (size[0] / 2, size[1] / 2), size[0] / 4))
    target = target.float()[None, None].expand(2, -1, -1, -1)
    loss = outline_loss(pmm, features, target * 4 - 2, target, 32)
    assert loss is not None
    loss.backward()
    assert method.last.weight.grad is not None
    assert method.last.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in pmm.parameters())
    assert outline_loss(pmm, features, target * 0 - 2, target, 32) is None, "nothing was found"


# Losses


def test_the_focal_loss_counts_what_is_easy_less() -> None:
    target = torch.ones(1, 1, 4, 4)
    everywhere = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    logits = torch.full_like(target, 2.0)
    right = torch.sigmoid(torch.tensor(2.0))
    expected = 0.25 * (1 - right) ** 2 * -right.log()
    assert float(focal_loss(logits, target, everywhere, 2.0, 0.25)) == pytest.approx(
        float(expected), rel=1e-4
    )


def test_invalid_pixels_do_not_count() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4, :4] = 1
    valid = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    valid[..., 6:] = False
    logits = 8 * target - 4
    worse = logits.clone()
    worse[..., 6:] = 50.0
    quality = torch.tensor([0.5])
    weights = LossWeights()
    assert mask_loss(worse, quality, target, valid, weights) == pytest.approx(
        float(mask_loss(logits, quality, target, valid, weights))
    )


def test_the_quality_is_compared_with_the_true_iou() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    logits = torch.full_like(target, 9.0)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    weights = LossWeights(focal=0, dice=0, iou=1)
    loss = mask_loss(logits, torch.tensor([0.8]), target, everywhere, weights)
    assert float(loss) == pytest.approx((0.8 - 0.5) ** 2, abs=1e-6)


def test_weights_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="0 or more"):
        LossWeights(focal=-1)
    with pytest.raises(InputError, match="3 points"):
        LossWeights(points=2)
