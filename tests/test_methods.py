"""Every adaptation method keeps the same promises; the counts are the papers'."""

from __future__ import annotations

import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.architecture import ARCHITECTURES, SamArchitecture, build_sam
from napari_ptsam.backbones.backbone import decode_features, decode_masks
from napari_ptsam.backbones.overlay import overlay
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.errors import BackboneError, InputError, PromptFileError
from napari_ptsam.methods import METHODS, Method, Ptsam, Ssam, build_method, label_text, new_method
from napari_ptsam.methods.lora import LoraSettings
from napari_ptsam.methods.ptsam import PtsamSettings
from napari_ptsam.methods.samed import SamedSettings
from napari_ptsam.methods.ssam import SsamSettings
from napari_ptsam.promptfile import PromptFile, PromptMetadata, read_prompt_file, write_prompt_file

LEARNED = {"labels": ["nuclei", "cytoplasm"], "text_encoder": "learned"}

# LoRA of rank 4 in the decoder, which has the width of SAM's; and in two blocks of width 32.
LORA_DECODER, LORA_ENCODER = 23_552, 2 * 2 * 4 * (32 + 32)
# S-SAM there: values of 4 matrices a block and 2 convolutions, norms, the text layer.
SSAM = 2 * (2 * 4 * 32 + 32 + 256) + 2 * 2 * 2 * 32 + 9 * 512 + (512 + 1 + 2) * 256

# Settings, and the numbers that they train on the tiny backbone (2 blocks of width 32).
CASES: list[tuple[str, dict[str, Any], int]] = [
    ("ptsam", {}, 8 * 256),
    ("ptsam", {"encoder_prompts": 8}, 8 * 256 + 2 * 8 * 32),
    ("ptsam", {"decoder_prompts": 0, "encoder_prompts": 3}, 2 * 3 * 32),
    ("lora", {}, LORA_DECODER),
    ("lora", {"encoder": True}, LORA_DECODER + LORA_ENCODER),
    ("lora", {"encoder": True, "decoder": False, "rank": 2}, LORA_ENCODER // 2),
    ("autosam", {}, 3_645_344),
    ("samed", {}, LORA_ENCODER + 4_058_340 + 6_220),
    ("decoder", {}, 4_058_340 + 6_220),
    ("ssam", {"labels": ["nuclei"]}, SSAM),
    ("ssam", LEARNED | {"positions": True}, SSAM + 2 * 512 + 4 * 4 * 32),
]
every_method = pytest.mark.parametrize(
    ("name", "settings", "count"), CASES, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(CASES)]
)
# Those whose output is the frozen SAM's own, without prompts, before they are trained.
starts_as_sam = pytest.mark.parametrize(
    ("name", "settings"),
    [(n, s) for n, s, _ in CASES if n in ("lora", "samed", "decoder")],
)
SAMS = ("embedded", "vit")


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(tiny_backbone)


@pytest.fixture(scope="module")
def tiny_vit() -> Backbone:
    """A tiny SAM whose encoder is SAM's own, with relative positions that are not zero."""
    torch.manual_seed(0)
    sam = build_sam(SamArchitecture(32, 2, 2, (1,), window=3, image_size=64))
    for block in sam.image_encoder.blocks:
        torch.nn.init.normal_(block.attn.rel_pos_h)
    return Backbone(sam, "tiny-vit", "none", "custom")


def without_numbers(image_size: int = 1024) -> Backbone:
    """ViT-B's shapes without its 90 million numbers."""
    with torch.device("meta"):
        sam = build_sam(replace(ARCHITECTURES["vit_b"], image_size=image_size))
    return Backbone(sam, "vit_b", "none", "vit_b")


@pytest.fixture(scope="module")
def vit_b() -> Backbone:
    return without_numbers()


@pytest.fixture(autouse=True)
def _no_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the interface of transformers: each word has an embedding of its own."""
    monkeypatch.setitem(sys.modules, "transformers", fake_transformers())


class FakeText:
    """CLIP's tokenizer and text model in one: words to numbers, numbers to rows of 512."""

    width = label_text.TEXT_WIDTH

    @classmethod
    def from_pretrained(cls, name: str) -> FakeText:
        if name == "nowhere/clip":
            raise OSError("We couldn't connect to the hub")
        return cls()

    def eval(self) -> FakeText:
        return self

    def __call__(self, words: Any = None, **tokens: Any) -> Any:
        if words is not None:
            assert tokens == {"padding": True, "return_tensors": "pt"}
            return {"input_ids": [sum(map(ord, word)) for word in words]}
        rows = [
            torch.randn(self.width, generator=torch.Generator().manual_seed(seed))
            for seed in tokens["input_ids"]
        ]
        return types.SimpleNamespace(text_embeds=torch.stack(rows))


def fake_transformers(width: int = label_text.TEXT_WIDTH) -> types.ModuleType:
    module = types.ModuleType("transformers")
    kind = type("Fake", (FakeText,), {"width": width})
    module.CLIPTokenizer = module.CLIPTextModelWithProjection = kind  # type: ignore[attr-defined]
    return module


def images(count: int = 2, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def logits_of(method: Method, backbone: Backbone) -> Tensor:
    return method.decode(backbone, method.encode(backbone, images()))


def train_a_little(
    method: Method, backbone: Backbone, steps: int = 2, rate: float = 0.01
) -> list[float]:
    """Losses of some steps towards the upper rows of all images."""
    optimiser = torch.optim.AdamW(method.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        logits = logits_of(method, backbone)
        target = torch.zeros_like(logits)
        target[..., : logits.shape[-2] // 4, :] = 1
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def tensors_of(backbone: Backbone) -> dict[str, tuple[int, Tensor]]:
    """Each tensor of the network: which object it is, and a copy of its numbers."""
    named = [*backbone.sam.named_parameters(), *backbone.sam.named_buffers()]
    return {name: (id(tensor), tensor.detach().clone()) for name, tensor in named}


def untouched(backbone: Backbone, before: dict[str, tuple[int, Tensor]]) -> bool:
    now = tensors_of(backbone)
    return now.keys() == before.keys() and all(
        now[k][0] == number and torch.equal(now[k][1], tensor)
        for k, (number, tensor) in before.items()
    )


def test_every_method_is_tested() -> None:
    assert {name for name, _, _ in CASES} == set(METHODS)


@every_method
def test_only_declared_parameters_get_gradients(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = new_method(name, settings, backbone)
    train_a_little(method, backbone, steps=1)  # half of LoRA has no gradient while the rest is 0
    method.zero_grad()
    masks = [
        method.decode_named(backbone, method.encode(backbone, images()), [label, label])
        for label in settings.get("labels", ["object"])
    ]
    torch.cat(masks).square().mean().backward()
    for key, parameter in method.named_parameters():
        if key in method.idle:
            assert parameter.grad is None, key
        else:
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key
    assert method.idle <= dict(method.named_parameters()).keys()
    assert all(p.grad is None for p in backbone.sam.parameters())
    assert not any(p.requires_grad for p in backbone.sam.parameters())


@every_method
def test_training_leaves_the_backbone_bit_for_bit(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = new_method(name, settings, backbone)
    before, start = tensors_of(backbone), method.tensors()
    train_a_little(method, backbone)
    assert untouched(backbone, before)
    trained = dict(method.named_parameters()).keys() - method.idle
    assert trained == {k for k, v in method.tensors().items() if not torch.equal(v, start[k])}


@every_method
def test_after_a_call_that_fails_the_backbone_is_as_it_was(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = new_method(name, settings, backbone)
    train_a_little(method, backbone, steps=1)
    before, frozen = tensors_of(backbone), backbone.encode(images())
    with pytest.raises(RuntimeError):
        method.encode(backbone, torch.zeros(1, 2, 64, 64))
    with pytest.raises((RuntimeError, ValueError)):
        method.decode(backbone, (torch.zeros(1, 7, 8, 8),))
    assert untouched(backbone, before)
    again = backbone.encode(images())
    assert all(torch.equal(a, b) for a, b in zip(frozen, again, strict=True))


@every_method
def test_two_specialists_share_a_backbone_also_at_the_same_time(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    methods = [new_method(name, settings, backbone, seed) for seed in (1, 2)]
    train_a_little(methods[0], backbone)
    with torch.no_grad():
        alone = [logits_of(m, backbone) for m in methods]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda m: _without_gradients(m, backbone), methods * 3))
    assert not torch.allclose(alone[0], alone[1])
    assert all(torch.equal(t, alone[i % 2]) for i, t in enumerate(together))


@every_method
def test_a_memory_of_frozen_embeddings_does_not_stand_in_for_a_changed_encoder(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = new_method(name, settings, backbone)
    train_a_little(method, backbone)
    memory = Embeddings()
    remembering = memory.serve(backbone)
    with torch.inference_mode():
        frozen = remembering.encode(images())
        served = method.encode(remembering, images())
        own = method.encode(backbone, images())
    if method.works_on_embeddings:
        own = tuple(level.half().float() for level in own)  # as they are kept
    assert all(torch.equal(a, b) for a, b in zip(served, own, strict=True))
    assert torch.equal(served[0], frozen[0]) == method.works_on_embeddings
    assert len(memory) == len(images())


@torch.no_grad()
def _without_gradients(method: Method, backbone: Backbone) -> Tensor:
    return logits_of(method, backbone)


@pytest.mark.parametrize("sam", SAMS)
@starts_as_sam
def test_before_training_the_output_is_sams_own(
    name: str, settings: dict[str, Any], sam: str, request: pytest.FixtureRequest
) -> None:
    frozen: Backbone = request.getfixturevalue("backbone" if sam == "embedded" else "tiny_vit")
    method = new_method(name, settings, frozen)
    with torch.no_grad():
        own = frozen.decode(frozen.encode(images()), torch.zeros(0, 256))
        assert torch.equal(logits_of(method, frozen), own)
        train_a_little_with_gradients(method, frozen)
        assert not torch.equal(logits_of(method, frozen), own)


@torch.enable_grad()
def train_a_little_with_gradients(method: Method, backbone: Backbone) -> None:
    train_a_little(method, backbone)


@pytest.mark.parametrize("sam", SAMS)
def test_before_training_singular_values_give_sams_own_embedding(
    sam: str, request: pytest.FixtureRequest
) -> None:
    frozen: Backbone = request.getfixturevalue("backbone" if sam == "embedded" else "tiny_vit")
    method = new_method("ssam", LEARNED, frozen)
    with torch.no_grad():
        both = zip(method.encode(frozen, images()), frozen.encode(images()), strict=True)
        assert all(torch.equal(a, b) for a, b in both)


@every_method
def test_a_few_steps_lower_the_loss(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = new_method(name, settings, backbone)
    losses = train_a_little(method, backbone, steps=8, rate=min(method.learning_rate, 0.01))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_works_on_sams_own_encoder(name: str, tiny_vit: Backbone) -> None:
    settings = {"ptsam": {"encoder_prompts": 2}, "lora": {"encoder": True}, "ssam": LEARNED}
    method = new_method(name, settings.get(name, {}), tiny_vit)
    losses = train_a_little(method, tiny_vit, steps=3)
    assert logits_of(method, tiny_vit).shape == (2, 1, 16, 16)
    assert losses[-1] != losses[0]


@every_method
def test_the_count_of_trainable_numbers_is_declared(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = new_method(name, settings, backbone)
    assert method.trainable_parameters == count
    saved = PromptFile({k: v.numpy() for k, v in method.tensors().items()}, metadata(method))
    assert saved.trainable_parameters == count


def metadata(method: Method) -> PromptMetadata:
    return PromptMetadata("tiny", "none", "embedded", method.name, method.settings_dict)


@every_method
def test_saving_and_loading_is_exact(
    name: str,
    settings: dict[str, Any],
    count: int,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = new_method(name, settings, backbone, seed=1)
    train_a_little(method, backbone)
    tensors = {k: v.numpy() for k, v in method.tensors().items()}
    path = write_prompt_file(tmp_path / "x", PromptFile(tensors, metadata(method)))
    monkeypatch.setitem(sys.modules, "transformers", None)  # using needs no CLIP
    file = read_prompt_file(path)
    again = build_method(file.metadata.method, file.metadata.method_settings, backbone, seed=2)
    again.load_tensors({k: torch.from_numpy(v) for k, v in file.tensors.items()})
    for key, tensor in method.tensors().items():
        assert torch.equal(tensor, again.tensors()[key])
    assert torch.equal(logits_of(method, backbone), logits_of(again, backbone))
    assert again.settings == method.settings


@every_method
def test_saved_tensors_are_copies(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = new_method(name, settings, backbone)
    saved = method.tensors()
    train_a_little(method, backbone)
    assert any(not torch.equal(v, saved[k]) for k, v in method.tensors().items())
    assert all(v.dtype == torch.float32 and not v.requires_grad for v in saved.values())


@every_method
@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_tensors_that_do_not_fit_are_refused_and_change_nothing(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone, damage: str
) -> None:
    method = new_method(name, settings, backbone)
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
    method = new_method(name, settings, backbone)
    train_a_little(method, backbone)
    own, frozen = method.encode(backbone, images()), backbone.encode(images())
    same = all(torch.equal(a, b) for a, b in zip(own, frozen, strict=True))
    assert same == method.works_on_embeddings


@every_method
def test_a_batch_equals_its_images_one_by_one(
    name: str, settings: dict[str, Any], count: int, backbone: Backbone
) -> None:
    method = new_method(name, settings, backbone)
    together = logits_of(method, backbone)
    for number, image in enumerate(images()):
        alone = method.decode(backbone, method.encode(backbone, image[None]))
        torch.testing.assert_close(alone[0], together[number], rtol=1e-4, atol=1e-4)


def test_an_unknown_method_is_refused_with_those_that_are_known(backbone: Backbone) -> None:
    with pytest.raises(PromptFileError, match=r"'adapter'.*known are: .*ptsam"):
        build_method("adapter", {}, backbone)
    with pytest.raises(
        InputError, match=r"no method 'adapter'.*ptsam, lora, autosam, samed, ssam, decoder"
    ):
        new_method("adapter", {}, backbone)


def test_settings_that_a_method_does_not_have_are_refused_with_its_own(backbone: Backbone) -> None:
    with pytest.raises(InputError, match=r"'lora' cannot be set to .*prompts.*rank, encoder"):
        new_method("lora", {"prompts": 8}, backbone)
    with pytest.raises(InputError, match=r"Its settings are: none"):
        new_method("autosam", {"rank": 8}, backbone)


@pytest.mark.parametrize("settings", [{"rank": 4}, {"decoder_prompts": "8"}])
def test_settings_of_another_version_are_refused(
    settings: dict[str, Any], backbone: Backbone
) -> None:
    with pytest.raises(PromptFileError, match=r"settings.*ptsam"):
        build_method("ptsam", settings, backbone)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (PtsamSettings, {"decoder_prompts": -1}, "-1"),
        (PtsamSettings, {"encoder_prompts": 5000}, "5000"),
        (PtsamSettings, {"decoder_prompts": 0}, "nothing to learn"),
        (PtsamSettings, {"mask_index": 4}, "no mask 4"),
        (LoraSettings, {"rank": 0}, "1 to 256, not 0"),
        (LoraSettings, {"decoder": False}, "nothing to learn"),
        (LoraSettings, {"mask_index": -1}, "no mask -1"),
        (SamedSettings, {"rank": 300}, "1 to 256, not 300"),
        (SsamSettings, {"labels": "nuclei"}, "a list of names, not the text 'nuclei'"),
        (SsamSettings, {"labels": []}, "one or more different label names"),
        (SsamSettings, {"labels": ["a", "a"]}, "one or more different label names"),
    ],
)
def test_impossible_settings_are_refused(kind: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        kind(**settings)


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("ptsam", {}, 2_048),
        ("ptsam", {"decoder_prompts": 0, "encoder_prompts": 8}, 73_728),
        ("ptsam", {"encoder_prompts": 8}, 75_776),
        ("lora", {}, 23_552),
        ("lora", {"encoder": True, "decoder": False}, 147_456),
        ("lora", {"encoder": True}, 171_008),
        ("autosam", {}, 3_645_344),
        ("samed", {}, 4_212_016),
        ("ssam", {"positions": True}, 3_393_792),
        ("ssam", {}, 248_064),
    ],
)
def test_vit_b_trains_the_papers_numbers(
    vit_b: Backbone, name: str, settings: dict[str, Any], count: int
) -> None:
    assert build_method(name, settings, vit_b).trainable_parameters == count


def test_ssam_trains_the_papers_numbers_at_256_pixels() -> None:
    method = build_method("ssam", {"positions": True}, without_numbers(256))
    assert method.trainable_parameters == 444_672


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


def test_one_mask_alone_is_that_of_all(backbone: Backbone) -> None:
    embedding, prompts = backbone.encode(images()), torch.randn(8, 256)
    masks, quality, features = decode_features(backbone.sam, embedding, prompts)
    for i in range(4):
        one = decode_features(backbone.sam, embedding, prompts, slice(i, i + 1))
        torch.testing.assert_close(one[0], masks[:, i : i + 1])
        torch.testing.assert_close(one[1], quality[:, i : i + 1])
        assert torch.equal(one[2], features)


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


# LoRA.


def test_low_rank_changes_reach_queries_and_values_alone(tiny_vit: Backbone) -> None:
    method = new_method("lora", {"encoder": True, "decoder": False}, tiny_vit)
    train_a_little(method, tiny_vit)
    assert method.encoder is not None
    changed = method.encoder.weights(tiny_vit.sam)  # type: ignore[operator]
    assert len(changed) == 2
    for name, weight in changed.items():
        change = weight - tiny_vit.sam.get_parameter(name)
        assert torch.equal(change[32:64], torch.zeros(32, 32))
        for part in (change[:32], change[64:]):
            assert torch.linalg.matrix_rank(part) == 4


# The overlay.


def test_an_overlay_shares_all_but_what_is_exchanged() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    own = network[1].bias
    other = torch.ones(2)
    twin = overlay(network, {"1.bias": other})
    x = torch.randn(3, 2)
    torch.testing.assert_close(twin(x), network(x) - own + 1)
    assert network[1].bias is own
    assert twin.get_submodule("0") is network[0]
    with pytest.raises(KeyError, match="no parameter 'weights'"):
        overlay(network, {"1.weights": other})


# S-SAM.


def test_singular_values_are_scaled_shifted_and_never_negative(tiny_vit: Backbone) -> None:
    method = new_method("ssam", LEARNED, tiny_vit)
    assert isinstance(method, Ssam)
    name = "image_encoder.blocks.0.mlp.lin1.weight"
    weight = tiny_vit.sam.get_parameter(name)
    values = torch.linalg.svdvals(weight)
    with torch.no_grad():
        method.spectra.scale[name.replace(".", "/")].fill_(2.0)
        method.spectra.shift[name.replace(".", "/")].fill_(-float(values.median() * 2))
        changed = method.spectra.weights(tiny_vit.sam)[name]
    expected = torch.relu(2 * values - 2 * values.median())
    assert (expected == 0).sum() >= len(values) // 2
    torch.testing.assert_close(torch.linalg.svdvals(changed), expected, rtol=1e-4, atol=1e-5)


def test_a_prediction_before_training_does_not_get_in_its_way(backbone: Backbone) -> None:
    method = new_method("ssam", LEARNED, backbone)
    with torch.inference_mode():
        logits_of(method, backbone)
    losses = train_a_little(method, backbone, steps=6, rate=method.learning_rate)
    assert losses[-1] < losses[0]


def test_names_choose_among_several_objects(backbone: Backbone) -> None:
    method = new_method("ssam", {"labels": ["nuclei", "cytoplasm"]}, backbone)
    with torch.no_grad():
        embedding = method.encode(backbone, images())
        nuclei = method.decode_named(backbone, embedding, ["nuclei", "nuclei"])
        cytoplasm = method.decode_named(backbone, embedding, ["cytoplasm", "cytoplasm"])
        mixed = method.decode_named(backbone, embedding, ["nuclei", "cytoplasm"])
        torch.testing.assert_close(method.decode(backbone, embedding), nuclei)
    assert not torch.allclose(nuclei, cytoplasm)
    torch.testing.assert_close(mixed[0], nuclei[0])
    torch.testing.assert_close(mixed[1], cytoplasm[1])
    with pytest.raises(InputError, match=r"does not know 'actin'.*'nuclei', 'cytoplasm'"):
        method.decode_named(backbone, embedding, ["actin"])


def test_a_method_of_one_object_gives_it_by_any_name(backbone: Backbone) -> None:
    method = new_method("ptsam", {}, backbone)
    embedding = backbone.encode(images())
    named = method.decode_named(backbone, embedding, ["nuclei", "cytoplasm"])
    assert torch.equal(named, method.decode(backbone, embedding))


def test_clips_embeddings_are_frozen_and_of_unit_length(backbone: Backbone) -> None:
    method = new_method("ssam", {"labels": ["nuclei", "cytoplasm"]}, backbone)
    before = method.get_buffer("frozen_labels").clone()
    np.testing.assert_allclose(before.norm(dim=-1), 1, rtol=1e-5)
    assert not torch.allclose(before[0], before[1])
    train_a_little(method, backbone)
    assert torch.equal(method.get_buffer("frozen_labels"), before)


def test_without_transformers_the_fallback_is_named(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'napari-ptsam\[ssam\]'.*'learned'"):
        new_method("ssam", {}, backbone)
    new_method("ssam", LEARNED, backbone)


def test_a_text_encoder_that_cannot_be_had_is_refused_in_words(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackboneError, match=r"'nowhere/clip' cannot be had.*couldn't connect"):
        new_method("ssam", {"text_encoder": "nowhere/clip"}, backbone)
    monkeypatch.setitem(sys.modules, "transformers", fake_transformers(768))
    with pytest.raises(BackboneError, match=r"\(1, 768\).*width 512"):
        new_method("ssam", {}, backbone)
