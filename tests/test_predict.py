"""From a plane to the probability at its own resolution."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import noise

from napari_ptsam import predict
from napari_ptsam.backbones import Backbone, Embedding, load_backbone
from napari_ptsam.devices import one_core
from napari_ptsam.errors import OutOfMemoryError
from napari_ptsam.methods import Method, build_method
from napari_ptsam.predict import decode_plane, embed_plane, predict_plane
from napari_ptsam.tiling import Scaling


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(tiny_backbone)


@pytest.fixture(scope="module")
def method(backbone: Backbone) -> Method:
    return build_method("ptsam", {}, backbone)


@pytest.mark.parametrize("scaling", [Scaling(None), Scaling(1.0)])
@pytest.mark.parametrize(
    "shape", [(64, 64), (1, 1), (40, 1), (1, 90), (3, 500), (17, 23), (150, 101), (65, 63)]
)
def test_probability_has_the_planes_own_resolution(
    method: Method, backbone: Backbone, shape: tuple[int, int], scaling: Scaling
) -> None:
    probability = predict_plane(method, backbone, noise(shape), scaling)
    assert probability.shape == shape
    assert probability.dtype == np.float32
    assert np.isfinite(probability).all()
    assert probability.min() >= 0
    assert probability.max() <= 1


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.7])
def test_any_working_scale_gives_the_planes_own_resolution(
    method: Method, backbone: Backbone, factor: float
) -> None:
    probability = predict_plane(method, backbone, noise((97, 130)), Scaling(factor))
    assert probability.shape == (97, 130)
    assert np.isfinite(probability).all()


def test_how_many_tiles_run_at_once_does_not_matter(
    method: Method, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for count in (1, 3, 100):
        monkeypatch.setattr(predict, "TILES_AT_ONCE", count)
        found.append(predict_plane(method, backbone, noise((150, 101)), Scaling(1.0)))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


@pytest.mark.parametrize("scaling", [Scaling(None), Scaling(1.0)])
def test_a_kept_embedding_decodes_to_the_same(
    method: Method, backbone: Backbone, scaling: Scaling
) -> None:
    image = noise((150, 101))
    embedded = embed_plane(method, backbone, image, scaling)
    assert embedded.shape == (150, 101)
    assert len(embedded.offsets) == len(embedded.tiles[0]) == (1 if scaling.factor is None else 6)
    whole = predict_plane(method, backbone, image, scaling)
    np.testing.assert_array_equal(decode_plane(method, backbone, embedded), whole)
    half = embedded.compact()
    assert {level.dtype for level in half.tiles} == {torch.float16}
    np.testing.assert_allclose(decode_plane(method, backbone, half), whole, atol=0.02)


def test_a_kept_embedding_serves_prompts_that_are_learned_later(
    method: Method, backbone: Backbone
) -> None:
    image = noise((64, 64))
    embedded = embed_plane(method, backbone, image, Scaling(None))
    other = build_method("ptsam", {}, backbone, seed=9)
    now = decode_plane(other, backbone, embedded)
    np.testing.assert_array_equal(now, predict_plane(other, backbone, image, Scaling(None)))
    assert not np.allclose(now, decode_plane(method, backbone, embedded))


def test_a_large_plane_never_has_all_its_tiles_in_memory(
    method: Method, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[tuple[str, int]] = []
    encode, decode = type(method).encode, type(method).decode

    def noted_encode(self: Method, backbone: Backbone, images: torch.Tensor) -> Embedding:
        happened.append(("encode", len(images)))
        return encode(self, backbone, images)

    def noted_decode(self: Method, backbone: Backbone, embedding: Embedding) -> torch.Tensor:
        happened.append(("decode", len(embedding[0])))
        return decode(self, backbone, embedding)

    monkeypatch.setattr(type(method), "encode", noted_encode)
    monkeypatch.setattr(type(method), "decode", noted_decode)
    predict_plane(method, backbone, noise((150, 101)), Scaling(1.0))
    assert happened == [("encode", 4), ("decode", 4), ("encode", 2), ("decode", 2)]


def test_gradients_are_neither_needed_nor_left_on(method: Method, backbone: Backbone) -> None:
    predict_plane(method, backbone, noise((64, 64)), Scaling(None))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert all(p.grad is None for p in method.parameters())


def test_memory_running_out_is_said_in_words(
    method: Method, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Method, backbone: Backbone, images: torch.Tensor) -> Embedding:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")

    monkeypatch.setattr(type(method), "encode", full)
    with pytest.raises(OutOfMemoryError, match=r"memory of 'cpu' is full.*smaller backbone"):
        predict_plane(method, backbone, noise((64, 64)), Scaling(None))


@pytest.mark.parametrize("shape", [(64, 64), (40, 64), (64, 23)])
@pytest.mark.parametrize("rotations", [2, 4])
def test_rotations_average_the_logits_of_turned_planes(
    method: Method, backbone: Backbone, shape: tuple[int, int], rotations: int
) -> None:
    image, logits = noise(shape), []
    for quarters in range(rotations):
        there = np.ascontiguousarray(np.rot90(image, quarters))
        found = predict_plane(method, backbone, there, Scaling(1.0)).astype(np.float64)
        logits.append(np.rot90(np.log(found / (1 - found)), -quarters))
    expected = 1 / (1 + np.exp(-np.mean(logits, 0)))
    averaged = predict_plane(method, backbone, image, Scaling(1.0), rotations)
    np.testing.assert_allclose(averaged, expected, atol=1e-4)
    assert np.abs(averaged - predict_plane(method, backbone, image, Scaling(1.0))).max() > 1e-3


def test_a_thread_that_keeps_to_one_core_takes_none_from_others():
    before, found = torch.get_num_threads(), []

    def work():
        with one_core():
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())
        one_core()
        found.append(torch.get_num_threads())

    torch.set_num_threads(3)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        found.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert found == [1, 3, 1, 3]
