"""Label names through the real package transformers, with a tiny random CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_ptsam.backbones import load_backbone
from napari_ptsam.errors import BackboneError
from napari_ptsam.methods import Ssam, new_method
from napari_ptsam.methods.label_text import TEXT_WIDTH, embed_labels

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")

LABELS = ("nuclei", "cytoplasm")


def save_clip(folder: Path, width: int = TEXT_WIDTH) -> str:
    """A CLIP text encoder of random weights, and a tokenizer that knows single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *ends]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=width, max_position_embeddings=16,
        bos_token_id=words.index(ends[0]), eos_token_id=words.index(ends[1]),
        pad_token_id=words.index(ends[1]),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPTextModelWithProjection(config).save_pretrained(folder)
    return str(folder)


def test_names_have_embeddings_of_unit_length_whatever_stands_beside_them(tmp_path: Path) -> None:
    clip = save_clip(tmp_path / "clip")
    both = embed_labels(LABELS, clip)
    assert both.shape == (2, TEXT_WIDTH)
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(2))
    assert not torch.allclose(both[0], both[1], atol=1e-3)
    # The shorter name is padded where it stands beside the longer one.
    for name, beside in zip(LABELS, both, strict=True):
        torch.testing.assert_close(embed_labels([name], clip)[0], beside, atol=1e-5, rtol=1e-5)


def test_a_prompt_file_keeps_the_embeddings_and_needs_no_clip(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    clip, backbone = save_clip(tmp_path / "clip"), load_backbone(tiny_backbone)
    method = new_method("ssam", {"labels": LABELS, "text_encoder": clip}, backbone)
    assert isinstance(method, Ssam)
    assert torch.equal(method.get_buffer("frozen_labels"), embed_labels(LABELS, clip))
    (tmp_path / "clip").rename(tmp_path / "gone")
    again = type(method).build(method.settings_dict, backbone, 1)
    again.load_tensors(method.tensors())
    size = backbone.input_size
    embedding = again.encode(backbone, torch.rand(1, 3, size, size))
    assert torch.equal(method.decode(backbone, embedding), again.decode(backbone, embedding))


def test_a_folder_without_a_clip_and_one_of_another_width_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match=r"'.*empty' cannot be had.*'learned'"):
        embed_labels(LABELS, str(tmp_path / "empty"))
    with pytest.raises(BackboneError, match=r"\(2, 48\).*width 512"):
        embed_labels(LABELS, save_clip(tmp_path / "narrow", 48))
