"""The embedded backbone's click decoder, beside the one that specialists use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.backbone import decode_masks
from napari_ptsam.backbones.clicks import (
    REACHES,
    ClickDecoder,
    distance_maps,
    likeness_maps,
)
from napari_ptsam.backbones.embedded import EmbeddedShape, build_embedded

TINY = EmbeddedShape(
    input_size=64, stem=(8, 16, 16), width=16, depth=2, heads=2, window=2, global_blocks=(1,)
)
POINTS = torch.tensor([[[10.0, 20.0], [0.0, 0.0]]])
OBJECT = torch.tensor([[1, -1]])
BOX = torch.tensor([[2, 3]])


@pytest.fixture
def clicking(tmp_path: Path) -> Backbone:
    """A tiny embedded backbone with a click decoder that is not in its first state."""
    sam = build_embedded(TINY, seed=3)
    sam.click_decoder = ClickDecoder(sam)
    with torch.no_grad():
        for parameter in sam.click_decoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    path = tmp_path / "clicking.safetensors"
    save_file({k: v.contiguous() for k, v in sam.state_dict().items()}, path)
    return load_backbone(path)


def answers(backbone: Backbone, kinds: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    embedding = backbone.encode(torch.randn(1, 3, backbone.input_size, backbone.input_size))
    tokens = backbone.clicking.prompt_encoder._embed_points(POINTS, kinds, pad=False)
    held = backbone.prompted(embedding, POINTS, kinds)
    with torch.no_grad():
        return decode_masks(backbone.clicking, held, tokens)[0]


def test_weights_keep_the_click_decoder(clicking: Backbone) -> None:
    assert clicking.click_decoder is not None
    assert not any(p.requires_grad for p in clicking.click_decoder.parameters())
    again = ClickDecoder(clicking.sam)
    assert not torch.equal(again.fine.weight, clicking.click_decoder.fine.weight)


def test_specialists_never_see_the_click_decoder(clicking: Backbone, tmp_path: Path) -> None:
    state = {k: v.clone() for k, v in clicking.sam.state_dict().items()}
    without = {k: v for k, v in state.items() if not k.startswith("click_decoder.")}
    save_file(without, tmp_path / "without.safetensors")
    plain = load_backbone(tmp_path / "without.safetensors")
    assert plain.click_decoder is None
    assert plain.clicking is plain.sam
    image, prompts = torch.randn(1, 3, plain.input_size, plain.input_size), torch.randn(8, 256)
    with torch.no_grad():
        both = [b.decode(b.encode(image), prompts) for b in (plain, clicking)]
    assert torch.equal(*both)
    assert not torch.equal(answers(plain, OBJECT), answers(clicking, OBJECT))
    assert set(load_file(tmp_path / "without.safetensors")) == set(without)


def test_an_untrained_click_decoder_exchanges_equal_tensors() -> None:
    sam = build_embedded(TINY, seed=3)
    exchanged = ClickDecoder(sam).tensors(sam)
    assert exchanged
    for name, tensor in exchanged.items():
        torch.testing.assert_close(tensor, sam.get_parameter(name))


def test_clicks_on_object_and_background_and_boxes_differ(clicking: Backbone) -> None:
    found = [answers(clicking, kinds) for kinds in (OBJECT, torch.tensor([[0, -1]]), BOX)]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_distance_maps_tell_how_near_a_click_is() -> None:
    (maps,) = distance_maps(POINTS, OBJECT, (32, 32))
    # Row 10 and column 5 of the half-size map lie at (20.5, 10.5).
    expected = torch.exp(torch.tensor(-(0.5**0.5)) / torch.tensor(REACHES))
    torch.testing.assert_close(maps[:3, 10, 5], expected)
    assert maps[0].argmax() in (10 * 32 + 5, 10 * 32 + 4, 9 * 32 + 5, 9 * 32 + 4)
    assert not maps[3:].any()


def test_distance_maps_of_a_box_do_not_depend_on_the_order_of_points() -> None:
    corners = torch.tensor([[[8.0, 4.0], [40.0, 24.0], [20.0, 10.0]]])
    kinds = torch.tensor([[2, 3, 0]])
    (maps,) = distance_maps(corners, kinds, (32, 32))
    (again,) = distance_maps(corners.flip(1), kinds.flip(1), (32, 32))
    assert torch.equal(maps, again)
    inside = maps[6] > 0
    assert inside[2:12, 4:20].all()
    assert inside.sum() == 10 * 16
    assert maps[7, 7, 12] > 0 > maps[7, 20, 12]
    assert maps[3:6].any()


def two_squares(gap: bool) -> tuple[torch.Tensor, ...]:
    """Levels of an embedding of 64 pixels: two squares of one look, side by side or touching."""
    levels = []
    for width, side in ((256, 8), (64, 16), (32, 32)):
        generator = torch.Generator().manual_seed(width)
        ground, look = torch.randn(2, width, 1, 1, generator=generator)
        inside = torch.zeros(side, side, dtype=torch.bool)
        inside[side // 4 : 3 * side // 4, side // 8 : 7 * side // 8] = True
        if gap:
            inside[:, side // 2 - side // 8 : side // 2 + side // 8] = False
        levels.append(torch.where(inside, look, ground)[None])
    return tuple(levels)


def test_likeness_maps_tell_what_looks_as_what_was_clicked() -> None:
    click = torch.tensor([[[18.0, 32.0]]])
    maps = likeness_maps(two_squares(gap=True), click, OBJECT[:, :1])[0].unflatten(0, (7, 2))
    on_object, on_background, connected = maps[[0, 2, 4]], maps[[1, 3, 5]], maps[6]
    assert (on_object[1:, :, 16, 9] > 0.95).all()
    assert (on_object[1:, :, 16, 22] > 0.95).all()  # the other square is as like
    assert (on_object[:, 0, 1, 1] < 0.02).all()
    assert not on_background.any()
    assert (connected[:, 16, 9] > 0.95).all()
    assert (connected[:, 16, 22] < 0.5).all()  # but there is a gap between
    touching = likeness_maps(two_squares(gap=False), click, OBJECT[:, :1])[0, -2:]
    assert (touching[:, 16, 22] > 0.95).all()


def test_likeness_maps_of_a_click_that_takes_away_and_of_a_box() -> None:
    embedding = two_squares(gap=True)
    away = likeness_maps(embedding, POINTS, torch.tensor([[0, -1]]))
    assert not away[:, [0, 1, 4, 5, 8, 9, 12, 13]].any()
    torch.testing.assert_close(away[:, 2:4], likeness_maps(embedding, POINTS, OBJECT)[:, :2])
    middle = torch.tensor([[[10.0, 20.0]]])
    corners = torch.tensor([[[4.0, 14.0], [16.0, 26.0]]])
    boxed = likeness_maps(embedding, corners, BOX)
    torch.testing.assert_close(boxed, likeness_maps(embedding, middle, torch.tensor([[1]])))


def test_likeness_maps_of_prompts_on_one_image_are_those_of_each() -> None:
    embedding = tuple(torch.randn(1, *level.shape[1:]) for level in two_squares(gap=True))
    points = torch.tensor([[[10.0, 20.0], [0.0, 0.0]], [[40.0, 33.0], [12.0, 50.0]]])
    labels = torch.tensor([[1, -1], [1, 0]])
    both = likeness_maps(embedding, points, labels)
    each = [likeness_maps(embedding, points[i : i + 1], labels[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(each))
