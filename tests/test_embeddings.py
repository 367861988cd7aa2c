"""Embeddings are computed once, found by content, and given up when memory is short."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.cache import DiskCache
from napari_ptsam.embeddings import TRIALS, Embeddings


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


def on_disk(folder: Path, *, writes: bool = True, thrifty: bool = False) -> Embeddings:
    return Embeddings(0, DiskCache(folder, 10**9, writes=writes), thrifty=thrifty)


def test_what_is_on_disk_is_found_by_another_memory_bit_for_bit(
    backbone: Backbone, tmp_path: Path
) -> None:
    first, second = on_disk(tmp_path), on_disk(tmp_path, writes=False)
    with torch.inference_mode():
        encoded = first.serve(backbone).encode(images(3))
        read = second.serve(backbone).encode(images(3))
    assert Counting.encoded == 3
    assert (first.encoded, first.recalled, second.encoded, second.recalled) == (3, 0, 0, 3)
    assert all(torch.equal(a, b) for a, b in zip(encoded, read, strict=True))


def test_what_is_read_from_disk_stays_in_memory(backbone: Backbone, tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 10**9, writes=True)
    with torch.inference_mode():
        Embeddings(0, disk, thrifty=False).serve(backbone).encode(images(1))
        memory = Embeddings(disk=disk, thrifty=False)
        served = memory.serve(backbone)
        served.encode(images(1))
        disk.clear()
        served.encode(images(1))
    assert len(memory) == 1
    assert Counting.encoded == 1


def test_one_that_only_reads_leaves_nothing_on_disk(backbone: Backbone, tmp_path: Path) -> None:
    with torch.inference_mode():
        on_disk(tmp_path, writes=False).serve(backbone).encode(images(2))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_embedding_is_computed_anew_and_kept_again(
    backbone: Backbone, tmp_path: Path
) -> None:
    with torch.inference_mode():
        first = on_disk(tmp_path).serve(backbone).encode(images(1))
        (path,) = tmp_path.rglob("*.zarr.zip")
        path.write_bytes(path.read_bytes()[:500])
        again = on_disk(tmp_path).serve(backbone).encode(images(1))
        on_disk(tmp_path).serve(backbone).encode(images(1))
    assert Counting.encoded == 2
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_disk_that_is_slower_than_the_encoder_is_left_alone(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = on_disk(tmp_path, thrifty=True)
    get = DiskCache.get

    def slow(self: DiskCache, identity: str, key: str) -> object:
        time.sleep(0.3)  # the tiny encoder takes some milliseconds
        return get(self, identity, key)

    monkeypatch.setattr(DiskCache, "get", slow)
    with torch.inference_mode():
        for seed in range(TRIALS + 2):
            on_disk(tmp_path).put(*kept(backbone, seed))
            memory.serve(backbone).encode(images(1, seed))
        assert memory.recalled == TRIALS + 1  # the first one does not count
        assert memory.encoded == 1
        assert not memory.useful(backbone.identity)


def kept(
    backbone: Backbone, seed: int
) -> tuple[tuple[str, str], str, tuple[torch.Tensor, ...], float]:
    """What `put` takes, of an image that took a millisecond."""
    (image,) = images(1, seed)
    key = Embeddings().serve(backbone)._key(image)
    embedding = Embeddings(0).serve(backbone).encode(image[None])
    return key, backbone.name, tuple(level[0].half() for level in embedding), 0.001


def test_what_is_kept_is_found_by_name_without_making_the_inputs(
    backbone: Backbone, tmp_path: Path
) -> None:
    made = 0

    def inputs() -> torch.Tensor:
        nonlocal made
        made += 1
        return images(2)

    with torch.inference_mode():
        first = on_disk(tmp_path).serve(backbone).encode_named(lambda: "plane", inputs)
        again = on_disk(tmp_path).serve(backbone).encode_named(lambda: "plane", inputs)
        assert made == 1
        on_disk(tmp_path).serve(backbone).encode_named(lambda: "other plane", inputs)
        on_disk(tmp_path).serve(backbone).encode(images(2))
    assert made == 2
    assert Counting.encoded == 2
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("content", ["", "{}", "3", '{"keys": [], "digest": 0}', '{"keys": 1}'])
def test_a_damaged_note_of_names_costs_no_more_than_making_the_inputs(
    backbone: Backbone, tmp_path: Path, content: str
) -> None:
    with torch.inference_mode():
        on_disk(tmp_path).serve(backbone).encode_named(lambda: "plane", lambda: images(2))
        (note,) = tmp_path.rglob("??/*.json")
        note.write_text(content)
        again = on_disk(tmp_path).serve(backbone).encode_named(lambda: "plane", lambda: images(2))
    assert Counting.encoded == 2
    assert len(again[0]) == 2


def test_no_name_is_asked_for_where_nothing_can_be_kept(backbone: Backbone) -> None:
    def name() -> str:
        pytest.fail("all pixels would be hashed for nothing")

    with torch.inference_mode():
        Embeddings(limit=0).serve(backbone).encode_named(name, lambda: images(1))
    assert Counting.encoded == 1


def test_names_are_known_in_memory_too(backbone: Backbone) -> None:
    served = Embeddings().serve(backbone)
    with torch.inference_mode():
        served.encode_named(lambda: "plane", lambda: images(1))
        served.encode_named(lambda: "plane", lambda: pytest.fail("made again"))
    assert Counting.encoded == 1
