"""Clicks and boxes are answered as SAM itself would, wherever they are on a plane."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scenes import disc, noise

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.architecture import SamArchitecture, build_sam
from napari_ptsam.clicking import Box, Click, Clicker, ClickPrompt, EmbeddedPlane
from napari_ptsam.clicking.answers import ClickAnswer, pointed_at
from napari_ptsam.clicking.prompt import well_inside
from napari_ptsam.clicking.simulate import correction
from napari_ptsam.clicking.tokens import NOTHING, PRETRAINED_TOKENS, prompt_tokens
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.errors import InputError
from napari_ptsam.tiling import Scaling
from napari_ptsam.views import plain_positions, view_position

HERE = ClickPrompt((Click(20, 30),))


@pytest.fixture(scope="module")
def vit() -> Backbone:
    """A tiny SAM of SAM's own kind: 64 px input, 16 px of mask."""
    torch.manual_seed(3)
    sam = build_sam(SamArchitecture(32, 2, 2, (1,), window=3, image_size=64))
    return Backbone(sam, "tiny-vit", "none", "vit_b")


@pytest.fixture(scope="module")
def clicker(tiny_backbone: Path) -> Clicker:
    return Clicker.plain(load_backbone(tiny_backbone))


@pytest.fixture
def predictor(vit: Backbone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`segment_anything`'s own predictor; what of torchvision it imports is not called here."""
    before = set(sys.modules)
    for name, contents in {
        "torchvision": (),
        "torchvision.ops": (),
        "torchvision.ops.boxes": ("batched_nms", "box_area"),
        "torchvision.transforms": (),
        "torchvision.transforms.functional": ("resize", "to_pil_image"),
    }.items():
        module = types.ModuleType(name)
        for content in contents:
            setattr(module, content, None)
        monkeypatch.setitem(sys.modules, name, module)
    from segment_anything import SamPredictor

    yield SamPredictor(vit.sam)
    for name in set(sys.modules) - before:
        if name.startswith("segment_anything"):
            del sys.modules[name]


# Prompts


@pytest.mark.parametrize(
    ("clicks", "box", "words"),
    [
        ((), None, "is empty"),
        ((Click(1, 1, positive=False),), None, "only says what does not belong"),
        ((Click(float("nan"), 1),), None, "not a number"),
        ((), Box(5, 1, 2, 8), "ends before it begins"),
    ],
)
def test_prompts_that_ask_for_nothing_are_refused_in_words(
    clicks: tuple[Click, ...], box: Box | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        ClickPrompt(clicks, box)


@pytest.mark.parametrize(("y", "x"), [(-0.6, 5), (40, 5), (5, -1), (5, 63.5)])
def test_a_click_outside_of_the_image_is_refused_in_words(
    clicker: Clicker, y: float, x: float
) -> None:
    embedded = clicker.embed(noise((40, 64))[..., 0])
    with pytest.raises(InputError, match="outside of the image, which has 40 rows and 64 columns"):
        clicker.answer(embedded, ClickPrompt((Click(y, x),)))


def test_a_box_is_cut_to_the_image_and_refused_beyond_it() -> None:
    prompt = ClickPrompt(box=Box(-5, 3, 90, 200)).checked_for((40, 64))
    assert prompt.box == Box(0, 3, 39, 63)
    with pytest.raises(InputError, match="outside of the image"):
        ClickPrompt(box=Box(50, 3, 60, 9)).checked_for((40, 64))


def test_prompts_are_made_without_torch() -> None:
    code = "import sys; from napari_ptsam.clicking import Click; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Coordinates and tokens


def test_positions_in_a_view_undo_those_that_its_pixels_are_taken_from() -> None:
    rows, columns = plain_positions((300, 200), 64, 0.37, (20, 7))
    assert np.allclose(view_position(rows, 0.37, 20), np.arange(len(rows)), atol=1e-4)
    assert np.allclose(view_position(columns, 0.37, 7), np.arange(len(columns)), atol=1e-4)


@pytest.mark.parametrize(
    "prompt",
    [
        ClickPrompt((Click(20, 30),)),
        ClickPrompt((Click(20, 30), Click(9, 8), Click(40, 11, positive=False))),
        ClickPrompt(box=Box(5, 6, 44, 40)),
        ClickPrompt((Click(20, 30), Click(7, 8, positive=False)), Box(5, 6, 44, 40)),
    ],
)
@pytest.mark.parametrize("shape", [(64, 64), (64, 48), (96, 128)])
def test_answers_are_those_of_sams_own_predictor(
    vit: Backbone, predictor: Any, prompt: ClickPrompt, shape: tuple[int, int]
) -> None:
    clicker = Clicker.plain(vit)
    embedded = clicker.embed(noise(shape)[..., 0])
    answer = clicker.answer(embedded, prompt)

    scale = 64 / max(shape)
    prepared = embedded.views[0].prepared
    image = torch.from_numpy(noise(shape)).permute(2, 0, 1)[None]
    image = torch.nn.functional.interpolate(image, prepared.scaled)
    predictor.set_torch_image(image, shape)
    predictor.features = embedded.embedding(0, clicker.embeddings.serve(vit))[0]
    # SAM shifts by half a pixel after scaling, we before: pixels' centres stay on each other.
    shift = 0.5 - 0.5 / scale
    points = [(c.x + shift, c.y + shift) for c in prompt.clicks]
    box = prompt.box
    logits, scores, _ = predictor.predict(
        np.array(points) if points else None,
        np.array([c.positive for c in prompt.clicks]) if points else None,
        np.array([box.left, box.top, box.right, box.bottom]) + shift if box else None,
        multimask_output=False,
        return_logits=True,
    )
    expected = torch.from_numpy(logits[0]).sigmoid().numpy()
    assert np.abs(answer.probability - expected).max() < 1e-5
    assert answer.score == pytest.approx(float(np.clip(scores[0], 0, 1)), abs=1e-5)


def test_the_embedded_backbone_gets_as_many_tokens_as_it_was_pretrained_with(
    clicker: Clicker,
) -> None:
    points = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    tokens = prompt_tokens(clicker.backbone, points, torch.tensor([[1, NOTHING]]))
    assert tokens.shape == (1, PRETRAINED_TOKENS, 256)
    assert torch.equal(tokens[0, 1], tokens[0, -1])
    encoder = clicker.backbone.clicking.prompt_encoder
    assert torch.equal(tokens[0, 1], encoder.not_a_point_embed.weight[0])


# Planes that need several views


@pytest.fixture(scope="module")
def tiled(clicker: Clicker) -> tuple[Clicker, EmbeddedPlane]:
    fixed = Clicker.plain(clicker.backbone, scaling=Scaling(1.0))
    return fixed, fixed.embed(noise((150, 150))[..., 0])


def test_a_large_plane_has_tiles_and_a_view_of_the_whole(
    tiled: tuple[Clicker, EmbeddedPlane],
) -> None:
    _, embedded = tiled
    assert [seen.scale for seen in embedded.views] == [1.0] * 9 + [64 / 150]


@pytest.mark.parametrize(("y", "x"), [(0, 0), (149, 149), (75, 75), (50, 120)])
def test_a_click_is_answered_from_the_tile_that_it_lies_deepest_in(
    tiled: tuple[Clicker, EmbeddedPlane], y: float, x: float
) -> None:
    _, embedded = tiled
    number = embedded.best_view(ClickPrompt((Click(y, x),)))
    seen = embedded.views[number]
    assert seen.scale == 1.0
    place = seen.position(y, x)
    assert all(0 <= p <= 63 for p in place)
    assert seen.depth(y, x, 64) == max(v.depth(y, x, 64) for v in embedded.views[:-1])
    assert seen.depth(y, x, 64) >= 10


def test_what_is_too_large_for_a_tile_is_answered_from_the_whole(
    tiled: tuple[Clicker, EmbeddedPlane],
) -> None:
    _, embedded = tiled
    assert embedded.best_view(ClickPrompt(box=Box(10, 10, 120, 130))) == 9
    assert embedded.best_view(ClickPrompt((Click(5, 5), Click(140, 140)))) == 9


def test_an_answer_of_a_tile_is_laid_where_the_tile_is(
    tiled: tuple[Clicker, EmbeddedPlane], monkeypatch: pytest.MonkeyPatch
) -> None:
    clicker, embedded = tiled
    seen = embedded.views[embedded.best_view(ClickPrompt((Click(80, 70),)))]

    def one_square(*_: Any) -> tuple[torch.Tensor, ...]:
        logits = torch.full((1, 1, 64, 64), -9.0)
        row, column = (round(p) for p in seen.position(80, 70))
        logits[..., row - 3 : row + 4, column - 2 : column + 3] = 9.0
        return logits, torch.ones(1), logits

    monkeypatch.setattr("napari_ptsam.clicking.clicker.answer_points", one_square)
    answer = clicker.answer(embedded, ClickPrompt((Click(80, 70),)))
    expected = np.zeros((150, 150), bool)
    expected[77:84, 68:73] = True
    assert np.array_equal(answer.mask, expected)
    assert answer.mask[answer.region].sum() == expected.sum()


def test_an_object_that_a_tile_cuts_is_asked_for_in_the_whole(
    tiled: tuple[Clicker, EmbeddedPlane], monkeypatch: pytest.MonkeyPatch
) -> None:
    clicker, embedded = tiled
    full = torch.full((1, 1, 32, 32), 9.0)
    monkeypatch.setattr(
        "napari_ptsam.clicking.clicker.answer_points", lambda *_: (full, torch.ones(1), full)
    )
    assert clicker.answer(embedded, ClickPrompt((Click(75, 75),))).mask.all()


def test_a_ready_plane_is_answered_without_the_encoder(
    tiled: tuple[Clicker, EmbeddedPlane], monkeypatch: pytest.MonkeyPatch
) -> None:
    clicker, embedded = tiled
    monkeypatch.setattr(Backbone, "encode", None)
    assert embedded.is_ready(HERE)
    clicker.answer(embedded, HERE)


def test_of_a_very_large_plane_parts_are_encoded_when_they_are_clicked(clicker: Clicker) -> None:
    fixed = Clicker.plain(clicker.backbone, scaling=Scaling(1.0))
    embedded = fixed.embed(noise((300, 300))[..., 0])
    assert fixed.embeddings.encoded == 1
    assert not embedded.is_ready(HERE)
    fixed.answer(embedded, HERE)
    assert embedded.is_ready(HERE)


def test_the_same_plane_is_not_encoded_again(clicker: Clicker) -> None:
    memory = Embeddings()
    for _ in range(2):
        again = Clicker.plain(clicker.backbone)
        again.embeddings = memory
        again.embed(noise((64, 64))[..., 0])
    assert (memory.encoded, memory.recalled) == (1, 1)


def test_a_plane_embedded_for_another_backbone_is_refused(
    clicker: Clicker, tiled: tuple[Clicker, EmbeddedPlane]
) -> None:
    other = replace(tiled[1], size=128)
    with pytest.raises(InputError, match="128 pixels"):
        clicker.answer(other, HERE)


@pytest.mark.parametrize("shape", [(5,), (0, 4), (2, 3, 4, 5)])
def test_what_is_no_plane_is_refused_in_words(clicker: Clicker, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="no plane to click on"):
        clicker.embed(np.zeros(shape))


# Which part of a mask was meant


def two_discs() -> NDArray[np.bool_]:
    return disc((60, 80), (20, 20), 9) | disc((60, 80), (40, 60), 12)


def test_only_the_part_that_was_clicked_is_the_answer() -> None:
    whole = slice(0, 60), slice(0, 80)
    found = pointed_at(two_discs(), ClickPrompt((Click(22, 18),)), whole)
    assert np.array_equal(found, disc((60, 80), (20, 20), 9))
    both = pointed_at(two_discs(), ClickPrompt((Click(22, 18), Click(40, 60))), whole)
    assert np.array_equal(both, two_discs())
    assert not pointed_at(two_discs(), ClickPrompt((Click(50, 5),)), whole).any()


def test_a_box_means_what_it_touches() -> None:
    part = slice(10, 60), slice(5, 80)
    mask = two_discs()[part]
    found = pointed_at(mask, ClickPrompt(box=Box(25, 40, 55, 79)), part)
    assert np.array_equal(found, disc((60, 80), (40, 60), 12)[part])


# Through a stack


def test_following_asks_for_the_box_and_a_click_well_inside(
    clicker: Clicker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ClickPrompt] = []
    mask = disc((64, 64), (30, 25), 8)

    def answered(_: EmbeddedPlane, prompt: ClickPrompt) -> ClickAnswer:
        asked.append(prompt)
        everywhere = slice(0, 64), slice(0, 64)
        return ClickAnswer(mask, mask.astype(np.float32), 0.9, 0.0, everywhere)

    monkeypatch.setattr(clicker, "answer", answered)
    embedded = clicker.embed(noise((64, 64))[..., 0])
    assert clicker.follow(embedded, mask) is not None
    assert asked == [ClickPrompt((Click(30, 25),), Box(22, 17, 38, 33))]
    assert clicker.follow(embedded, disc((64, 64), (40, 33), 8)) is None, "another object"
    assert clicker.follow(embedded, np.zeros((64, 64), bool)) is None
    with pytest.raises(InputError, match="planes of one stack"):
        clicker.follow(embedded, np.ones((32, 64), bool))


def test_well_inside_is_the_deepest_pixel_also_at_the_images_border() -> None:
    mask = np.zeros((20, 30), bool)
    mask[:7, :11] = True
    assert well_inside(mask) == Click(3, 3)


def test_a_correction_is_in_the_largest_wrong_region() -> None:
    truth = disc((60, 60), (30, 30), 15)
    lacking = truth.copy()
    lacking[:28] = False
    click = correction(lacking, truth)
    assert click is not None
    assert click.positive
    assert truth[int(click.y), int(click.x)]
    assert not lacking[int(click.y), int(click.x)]
    too_much = truth | disc((60, 60), (50, 50), 6)
    click = correction(too_much, truth)
    assert click is not None
    assert not click.positive
    assert correction(truth, truth) is None
