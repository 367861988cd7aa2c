"""Embeddings are computed once, found by content, and given up when memory is short."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.embeddings import Embeddings


class Counting:
    """How many images were encoded."""

    encoded = 0


@pytest.fixture
def backbone(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    plain = load_backbone(tiny_backbone)
    encode = Backbone.encode
    Counting.encoded = 0

    def counted(self, images, prompts=None):
        Counting.encoded += len(images)
        return encode(self, images, prompts)

    monkeypatch.setattr(Backbone, "encode", counted)
    return plain


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def one_size(backbone: Backbone) -> int:
    with torch.inference_mode():
        return sum(level.numel() * 2 for level in backbone.encode(images(1)))


def test_what_was_encoded_is_given_again_bit_for_bit_in_16_bits(backbone: Backbone) -> None:
    memory = Embeddings()
    served = memory.serve(backbone)
    with torch.inference_mode():
        plain = backbone.encode(images(2))
        first, second = served.encode(images(2)), served.encode(images(2))
    assert Counting.encoded == 4
    for a, b, c in zip(plain, first, second, strict=True):
        assert torch.equal(a.half().float(), b)
        assert torch.equal(b, c)
    assert (len(memory), memory.nbytes) == (2, sum(level.numel() * 2 for level in plain))


def test_embeddings_are_the_same_whether_they_are_kept_or_not(backbone: Backbone) -> None:
    with torch.inference_mode():
        kept = Embeddings().serve(backbone).encode(images(2))
        nowhere = Embeddings(limit=0).serve(backbone).encode(images(2))
    assert all(torch.equal(a, b) for a, b in zip(kept, nowhere, strict=True))


def test_other_pixels_and_other_backbones_are_encoded(backbone: Backbone) -> None:
    memory = Embeddings()
    other = Backbone(backbone.sam, "other", "another identity", backbone.architecture)
    with torch.inference_mode():
        memory.serve(backbone).encode(images(1))
        memory.serve(backbone).encode(images(1, seed=1))
        memory.serve(other).encode(images(1))
    assert Counting.encoded == 3


def test_nothing_is_kept_of_what_is_learned_through(backbone: Backbone) -> None:
    memory = Embeddings()
    served = memory.serve(backbone)
    served.encode(images(1))
    prompts = torch.zeros(2, 8, 32)
    with torch.inference_mode():
        served.encode(images(1), prompts)
    assert len(memory) == 0


def test_when_memory_is_full_what_earlier_runs_left_makes_room(backbone: Backbone) -> None:
    memory = Embeddings(limit=3 * one_size(backbone))
    served = memory.serve(backbone)
    Counting.encoded = 0
    with torch.inference_mode():
        for seed in (0, 1, 2):
            served.encode(images(1, seed))
        memory.new_run()
        for seed in (1, 3, 4, 5):  # 0 and 2 go; 5 finds no room, all else being of this run
            served.encode(images(1, seed))
        assert Counting.encoded == 6
        assert memory.nbytes <= memory.limit
        for seed in (1, 3, 4):
            served.encode(images(1, seed))
        assert Counting.encoded == 6
        served.encode(images(1, 5))
        assert Counting.encoded == 7
    memory.clear()
    assert (len(memory), memory.nbytes) == (0, 0)
