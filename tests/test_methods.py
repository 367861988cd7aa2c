"""Every adaptation method keeps the same promises; PTSAM's numbers are the paper's."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.architecture import ARCHITECTURES, SamArchitecture, build_sam
from napari_ptsam.backbones.backbone import decode_masks
from napari_ptsam.backbones.checkpoint import state_identity
from napari_ptsam.errors import InputError, PromptFileError
from napari_ptsam.methods import METHODS, Method, Ptsam, build_method
from napari_ptsam.methods.ptsam import PtsamSettings

# Settings, and the numbers that they train on the tiny backbone (2 blocks of width 32).
CASES: list[tuple[str, dict[str, Any], int]] = [
    ("ptsam", {}, 8 * 256),
    ("ptsam", {"encoder_prompts": 8}, 8 * 256 + 2 * 8 * 32),
    ("ptsam", {"decoder_prompts": 0, "encoder_prompts": 3}, 2 * 3 * 32),
]
every_method = pytest.mark.parametrize(("name", "settings", "count"), CASES)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(tiny_backbone)


@pytest.fixture(scope="module")
def vit_b() -> Backbone:
    """ViT-B's shapes without its 90 million numbers."""
    with torch.device("meta"):
        sam = build_sam(ARCHITECTURES["vit_b"])
    return Backbone(sam, "vit_b", "none", "vit_b")


def images(count: int = 2, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def logits_of(method: Method, backbone: Backbone) -> Tensor:
    return method.decode(backbone, method.encode(backbone, images()))


def train_a_little(method: Method, backbone: Backbone) -> None:
    optimiser = torch.optim.AdamW(method.parameters(), lr=0.05)
    for _ in range(2):
        logits = logits_of(method, backbone)
        target = torch.zeros_like(logits)
        target[..., :8, :] = 1
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_every_method_is_tested() -> None:
    assert {name for name, _, _ in CASES} == set(METHODS)


@every_method
def test_only_declared_parameters_get_gradients(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = build_method(name, settings, backbone)
    logits_of(method, backbone).square().mean().backward()
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key
    assert all(p.grad is None for p in backbone.sam.parameters())
    assert not any(p.requires_grad for p in backbone.sam.parameters())


@every_method
def test_training_leaves_the_backbone_bit_for_bit(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = build_method(name, settings, backbone)
    before, start = state_identity(backbone.sam.state_dict()), method.tensors()
    train_a_little(method, backbone)
    assert state_identity(backbone.sam.state_dict()) == before
    assert all(not torch.equal(v, start[k]) for k, v in method.tensors().items())


@every_method
def test_the_count_of_trainable_numbers_is_declared(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = build_method(name, settings, backbone)
    assert method.trainable_parameters == count
    assert sum(t.numel() for t in method.tensors().values()) == count


@every_method
def test_saving_and_loading_is_exact(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = build_method(name, settings, backbone, seed=1)
    train_a_little(method, backbone)
    again = build_method(name, method.settings_dict, backbone, seed=2)
    again.load_tensors(method.tensors())
    for key, tensor in method.tensors().items():
        assert torch.equal(tensor, again.tensors()[key])
    assert torch.equal(logits_of(method, backbone), logits_of(again, backbone))


@every_method
def test_saved_tensors_are_copies(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = build_method(name, settings, backbone)
    saved = method.tensors()
    train_a_little(method, backbone)
    assert any(not torch.equal(v, saved[k]) for k, v in method.tensors().items())
    assert all(v.dtype == torch.float32 and not v.requires_grad for v in saved.values())


@every_method
@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_tensors_that_do_not_fit_are_refused_and_change_nothing(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone, damage: str
) -> None:
    method = build_method(name, settings, backbone)
    tensors = {k: v + 1 for k, v in method.tensors().items()}
    key = sorted(tensors)[-1]
    if damage == "missing":
        del tensors[key]
    elif damage == "unknown":
        tensors["surplus"] = torch.zeros(1)
    else:
        tensors[key] = tensors[key][..., :-1]
    before = method.tensors()
    with pytest.raises(PromptFileError, match=r"another backbone or with other settings"):
        method.load_tensors(tensors)
    assert all(torch.equal(v, before[k]) for k, v in method.tensors().items())


@every_method
def test_only_a_frozen_encoders_embeddings_can_be_kept(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = build_method(name, settings, backbone)
    own, frozen = method.encode(backbone, images()), backbone.encode(images())
    same = all(torch.equal(a, b) for a, b in zip(own, frozen, strict=True))
    assert same == method.works_on_embeddings


@every_method
def test_a_batch_equals_its_images_one_by_one(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = build_method(name, settings, backbone)
    together = logits_of(method, backbone)
    for number, image in enumerate(images()):
        alone = method.decode(backbone, method.encode(backbone, image[None]))
        torch.testing.assert_close(alone[0], together[number], rtol=1e-4, atol=1e-4)


def test_an_unknown_method_is_refused_with_those_that_are_known(backbone: Backbone) -> None:
    with pytest.raises(PromptFileError, match=r"'lora'.*known are: .*ptsam"):
        build_method("lora", {}, backbone)


@pytest.mark.parametrize("settings", [{"rank": 4}, {"decoder_prompts": "8"}])
def test_settings_of_another_version_are_refused(
    settings: dict[str, Any], backbone: Backbone
) -> None:
    with pytest.raises(PromptFileError, match=r"settings.*ptsam"):
        build_method("ptsam", settings, backbone)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"decoder_prompts": -1}, "-1"),
        ({"encoder_prompts": 5000}, "5000"),
        ({"decoder_prompts": 0}, "nothing to learn"),
        ({"mask_index": 4}, "no mask 4"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        PtsamSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 2_048),
        ({"decoder_prompts": 0, "encoder_prompts": 8}, 73_728),
        ({"encoder_prompts": 8}, 75_776),
    ],
)
def test_vit_b_trains_the_papers_numbers(
    vit_b: Backbone, settings: dict[str, Any], count: int
) -> None:
    assert build_method("ptsam", settings, vit_b).trainable_parameters == count


def test_prompts_start_uniform_within_the_bounds_of_visual_prompt_tuning(vit_b: Backbone) -> None:
    method = build_method("ptsam", {"encoder_prompts": 8}, vit_b)
    for key, bound in (("encoder_prompts", 0.0625), ("decoder_prompts", 0.0765)):
        values = method.tensors()[key]
        assert sqrt(6 / (3 * 16**2 + values.shape[-1])) == pytest.approx(bound, abs=5e-5)
        assert 0.97 * bound < values.abs().max() <= bound + 5e-5
        assert values.mean().abs() < 0.1 * bound
        rows = values.flatten(0, -2)
        assert len(torch.unique(rows, dim=0)) == len(rows)


def test_the_start_depends_on_the_seed_alone(backbone: Backbone) -> None:
    torch.manual_seed(0)
    first = build_method("ptsam", {}, backbone, seed=5).tensors()["decoder_prompts"]
    torch.manual_seed(1)
    again = build_method("ptsam", {}, backbone, seed=5).tensors()["decoder_prompts"]
    other = build_method("ptsam", {}, backbone, seed=6).tensors()["decoder_prompts"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_mask_index_chooses_the_output(backbone: Backbone) -> None:
    embedding = backbone.encode(images())
    shown = []
    for index in range(4):
        method = build_method("ptsam", {"mask_index": index}, backbone)
        masks, _ = decode_masks(backbone.sam, embedding, method.tensors()["decoder_prompts"])
        shown.append(method.decode(backbone, embedding))
        assert torch.equal(shown[-1], masks[:, index : index + 1])
    assert not torch.allclose(shown[0], shown[1])
    default = build_method("ptsam", {}, backbone).decode(backbone, embedding)
    assert torch.equal(default, shown[1])


def test_decoding_equals_sams_own_with_the_prompts_as_sparse_embeddings() -> None:
    torch.manual_seed(0)
    sam = build_sam(SamArchitecture(16, 1, 2, (0,), window=0, image_size=64))
    prompts, image = torch.randn(8, 256), torch.randn(1, 256, 4, 4)
    masks, quality = decode_masks(sam, (image,), prompts)
    own, own_quality = sam.mask_decoder.predict_masks(
        image_embeddings=image,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=prompts[None],
        dense_prompt_embeddings=sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(
            1, -1, 4, 4
        ),
    )
    torch.testing.assert_close(masks, own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(quality, own_quality, rtol=1e-5, atol=1e-5)


def test_prompts_of_each_image_stay_its_own(backbone: Backbone) -> None:
    embedding = backbone.encode(images())
    prompts = torch.randn(2, 8, 256, generator=torch.Generator().manual_seed(1))
    together, _ = decode_masks(backbone.sam, embedding, prompts)
    for number in range(2):
        own = tuple(level[number : number + 1] for level in embedding)
        alone, _ = decode_masks(backbone.sam, own, prompts[number])
        torch.testing.assert_close(alone[0], together[number], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own", [4, 8, 12])
def test_given_prompts_replace_as_many_as_there_are(backbone: Backbone, own: int) -> None:
    method = build_method("ptsam", {"decoder_prompts": own}, backbone)
    assert isinstance(method, Ptsam)
    start = method.tensors()["decoder_prompts"]
    given = torch.arange(8.0)[:, None].expand(8, 256)
    method.start_from(given)
    now = method.tensors()["decoder_prompts"]
    shared = min(own, 8)
    assert torch.equal(now[:shared], given[:shared])
    assert torch.equal(now[shared:], start[shared:])
