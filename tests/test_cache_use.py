"""The cache at work: what is embedded is neither trained nor segmented through the encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_ptsam.ahead import disk_space, embed_planes
from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.cache import DiskCache
from napari_ptsam.cli import main
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.errors import InputError
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import open_planes
from napari_ptsam.specialist import Specialist
from napari_ptsam.tiling import Scaling

PLANES, SIDE = 5, 80


class Encoder:
    """How many images were encoded."""

    calls = 0


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> type[Encoder]:
    encode = Backbone.encode
    Encoder.calls = 0

    def counted(self: Backbone, images: Any, prompts: Any = None) -> Any:
        Encoder.calls += len(images)
        return encode(self, images, prompts)

    monkeypatch.setattr(Backbone, "encode", counted)
    return Encoder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache."""
    monkeypatch.setenv("NAPARI_PTSAM_CACHE", str(tmp_path / "cache"))
    # A tiny encoder is as fast as a disk.
    monkeypatch.setattr("napari_ptsam.embeddings._Costs.too_high", property(lambda _: False))
    return tmp_path / "cache"


@pytest.fixture
def stack() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 60_000, (PLANES, SIDE, SIDE)).astype(np.uint16)


@pytest.fixture
def masks() -> np.ndarray:
    found = np.zeros((PLANES, SIDE, SIDE), np.uint8)
    found[:, 20:50, 30:60] = 1
    return found


def train(backbone: Backbone, stack: np.ndarray, masks: np.ndarray, **options: Any) -> Specialist:
    return Specialist.train(
        stack, masks, backbone=backbone, preset="quick", steps=4, seed=0, scale=1.0, **options
    )


def writing() -> Embeddings:
    return Embeddings(disk=DiskCache(writes=True))


def test_training_again_and_segmenting_what_is_embedded_calls_no_encoder(
    tiny_backbone: Path,
    folder: Path,
    encoder: type[Encoder],
    stack: np.ndarray,
    masks: np.ndarray,
    tmp_path: Path,
) -> None:
    backbone = load_backbone(tiny_backbone)
    specialist = train(backbone, stack, masks, embeddings=writing())
    *_, last = specialist.embed(stack)
    assert last.total == PLANES
    assert last.encoded + last.recalled == 4 * PLANES  # 80 pixels are 2x2 tiles of 64
    encoder.calls = 0
    again = train(backbone, stack.copy(), masks, embeddings=writing())
    list(again.segment(stack, tmp_path / "masks.tif"))
    again.predict(stack[0])
    assert encoder.calls == 0
    for name, tensor in specialist.method.tensors().items():
        assert np.array_equal(tensor, again.method.tensors()[name])


def test_the_result_does_not_depend_on_what_is_kept(
    tiny_backbone: Path, folder: Path, stack: np.ndarray, masks: np.ndarray
) -> None:
    backbone = load_backbone(tiny_backbone)
    without = train(backbone, stack, masks)
    before = without.predict(stack[0]).probability
    list(without.embed(stack))
    train(backbone, stack, masks, embeddings=writing())
    within = train(backbone, stack, masks, embeddings=writing())
    for name, tensor in without.method.tensors().items():
        assert np.array_equal(tensor, within.method.tensors()[name])
    assert np.array_equal(before, within.predict(stack[0]).probability)


def test_nothing_is_left_on_disk_unasked(
    tiny_backbone: Path, folder: Path, stack: np.ndarray, masks: np.ndarray, tmp_path: Path
) -> None:
    specialist = train(load_backbone(tiny_backbone), stack, masks)
    list(specialist.segment(stack, tmp_path / "masks.tif"))
    assert not folder.exists()


def test_a_method_that_changes_the_encoder_passes_the_cache_by(
    tiny_backbone: Path, folder: Path, stack: np.ndarray, masks: np.ndarray
) -> None:
    specialist = train(
        load_backbone(tiny_backbone), stack, masks, encoder_prompts=True, embeddings=writing()
    )
    specialist.embeddings = writing()
    specialist.predict(stack[0])
    assert not folder.exists()
    with pytest.raises(InputError, match="changes the encoder"):
        next(specialist.embed(stack))


@pytest.fixture
def files(tmp_path: Path, stack: np.ndarray, masks: np.ndarray) -> Path:
    for name, content in (("stack", stack), ("copy", stack), ("masks", masks)):
        tifffile.imwrite(tmp_path / f"{name}.tif", content, metadata={"axes": "ZYX"})
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def test_the_command_line_embeds_shows_verifies_and_clears(
    tiny_backbone: Path, folder: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed = ("embed", files / "stack.tif", "--backbone", tiny_backbone, "--scale", 1)
    assert "tiles: 20 encoded, 0 found" in run(capsys, *embed)
    assert "tiles: 0 encoded, 4 found" in run(capsys, *embed, "--planes", 2)
    shown = json.loads(run(capsys, "cache", "--json"))
    assert shown["folder"] == str(folder / "embeddings")
    (share,) = shown["backbones"]
    assert (share["backbone"], share["embeddings"]) == ("tiny", 20)
    assert share["nbytes"] == shown["in_use"]
    assert "tiny" in run(capsys, "cache")
    next(folder.rglob("*.zarr.zip")).write_bytes(b"damaged")
    assert "19 embeddings are sound, 1 damaged" in run(capsys, "cache", "verify")
    assert main(["cache", "clear", "--backbone", "vit_b"]) == 2
    assert "nothing is kept of the backbone 'vit_b', but of: tiny" in capsys.readouterr().err
    cleared = json.loads(run(capsys, "cache", "--json", "clear", "--backbone", "tiny"))
    assert cleared["removed"] == 19
    assert json.loads(run(capsys, "cache", "--json"))["backbones"] == []


def test_what_the_command_line_embeds_under_one_name_is_found_under_another(
    tiny_backbone: Path,
    folder: Path,
    files: Path,
    encoder: type[Encoder],
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompts = files / "it.ptsam.safetensors"
    train_it = ("train", "--images", files / "stack.tif", "--masks", files / "masks.tif")
    options = ("--backbone", tiny_backbone, "--preset", "quick", "--steps", 2, "--scale", 1)
    options = (*options, "--planes", "0-2")
    run(capsys, *train_it, *options, "-o", prompts)
    segment = ("segment", prompts, "--backbone", tiny_backbone, "-o", files / "out.tif")
    run(capsys, *segment, files / "stack.tif", "--planes", "3", "--cache")
    assert "tiles: 4 encoded, 16 found" in run(
        capsys, "embed", files / "stack.tif", "--specialist", prompts, "--backbone", tiny_backbone
    )
    encoder.calls = 0
    run(capsys, *segment, files / "copy.tif")
    run(capsys, *train_it, *options, "-o", prompts)
    assert encoder.calls == 0


def test_embedding_ends_early_where_the_encoder_is_faster_than_the_disk(
    tiny_backbone: Path, folder: Path, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_ptsam.embeddings._Costs.too_high", property(lambda _: True))
    embeddings = Embeddings(0, DiskCache(writes=True))
    work = embed_planes(
        load_backbone(tiny_backbone), open_planes(stack), embeddings, Normalization(), Scaling()
    )
    with pytest.warns(UserWarning, match="takes longer than computing"):
        assert len(list(work)) == 1
    assert not folder.exists()


@pytest.mark.parametrize("rotations", [1, 4])
def test_embeddings_take_the_space_that_is_told_beforehand(
    tiny_backbone: Path, folder: Path, stack: np.ndarray, rotations: int
) -> None:
    backbone, planes = load_backbone(tiny_backbone), open_planes(stack)
    disk = DiskCache(writes=True)
    list(
        embed_planes(
            backbone, planes, Embeddings(0, disk), Normalization(), Scaling(1.0), rotations
        )
    )
    told = disk_space(backbone, planes, Scaling(1.0), rotations)
    files = len(list(folder.rglob("*.zarr.zip")))
    # Beside the numbers each file has some kilobytes of its own.
    assert 0.5 * told < disk.in_use() < told + 4000 * files


def test_a_specialist_decides_its_scale(
    tiny_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", "x.tif", "--specialist", "y", "--scale", "2"]) == 2
    assert "working scale of its own" in capsys.readouterr().err
