"""The click decoder's training: tokens, losses, the loop and its place in the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny_backbone

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.clicks import point_tokens
from napari_ptsam.backbones.embedded import EmbeddedShape
from napari_ptsam.errors import TrainingError
from pretraining import clicks, pool, train
from pretraining.export import export
from pretraining.recipe import Phase, Recipe

RECIPE = Recipe(
    seed=1,
    weight_decay=0.0,
    phases=(
        Phase(2, 64, 1, 2, 1e-3, 1e-3, ("light",), pool_types=2, more_clicks=1),
        Phase(30, 64, 1, 2, 5e-3, 5e-3, ("light",), pool_types=1),
    ),
    shape=EmbeddedShape(64, (8, 16, 16), width=32, depth=2, heads=2, window=2, global_blocks=(1,)),
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    (folder / "light").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "SIDE", 96)
        for seed in range(2):
            pool.make_type(folder, "light", 3, seed)
    return folder


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return load_backbone(write_tiny_backbone(tmp_path / "tiny.safetensors", seed=0))


def learned(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / train.CHECKPOINT, weights_only=True)
    return dict(state["model"])


def test_a_stopped_run_goes_on_to_the_same_numbers_and_leaves_the_backbone_alone(
    scenes: Path, backbone: Backbone, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in backbone.sam.state_dict().items()}
    clicks.train(RECIPE, backbone, scenes, tmp_path / "whole", until=3)
    clicks.train(RECIPE, backbone, scenes, tmp_path / "parts", until=1)
    early = learned(tmp_path / "parts")
    clicks.train(RECIPE, backbone, scenes, tmp_path / "parts", until=3)
    whole, parts = learned(tmp_path / "whole"), learned(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert any(not torch.equal(early[name], parts[name]) for name in whole)
    assert all(torch.equal(v, before[k]) for k, v in backbone.sam.state_dict().items())


def test_a_run_does_not_go_on_for_another_backbone(
    scenes: Path, backbone: Backbone, tmp_path: Path
) -> None:
    other = load_backbone(write_tiny_backbone(tmp_path / "other.safetensors", seed=1))
    run = tmp_path / "run"
    clicks.train(RECIPE, backbone, scenes, run, until=1)
    there, here = backbone.identity[:12], other.identity[:12]
    with pytest.raises(TrainingError, match=f"identity {there} there, {here} here.*--backbone"):
        clicks.train(RECIPE, other, scenes, run, until=2)
    clicks.train(RECIPE, backbone, scenes, run, until=2)
    (run / clicks.BACKBONE).unlink()  # of an earlier version, which did not tell
    with pytest.raises(TrainingError, match="identity not told there"):
        clicks.train(RECIPE, backbone, scenes, run, until=3)


def test_losses_fall_on_a_batch_that_is_seen_again(scenes: Path, backbone: Backbone) -> None:
    model = clicks.ClickTrainer(backbone, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    (batch,) = train.batches(RECIPE, scenes, range(2, 3))
    found = []
    for _ in range(25):
        losses = model(batch.crops, batch.phase, np.random.default_rng(0))
        total = losses["entropy"] + losses["dice"]
        found.append(float(total.detach()))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert found[-1] < 0.85 * found[0]


def test_an_empty_answer_never_pays() -> None:
    target = torch.zeros(1, 1, 64, 64)
    target[..., 30:34, 30:34] = 1
    empty, right = torch.full_like(target, -12.0), target * 24 - 12
    quality = torch.zeros(1)
    nothing = clicks.click_losses(empty, quality, target)
    assert float(nothing["dice"]) > 0.9
    assert float(nothing["iou"]) == 0
    perfect = clicks.click_losses(right, torch.ones(1), target)
    assert float(perfect["iou"]) == 1
    assert float(perfect["dice"]) < 0.1
    assert float(perfect["quality"]) == 0


def test_tokens_are_those_of_segment_anything(backbone: Backbone) -> None:
    encoder = backbone.sam.prompt_encoder
    points = torch.tensor([[[5.0, 9.0], [0.0, 0.0]], [[4.0, 8.0], [30.0, 40.0]]])
    tokens = point_tokens(backbone.sam, points, torch.tensor([[1, -1], [2, 3]]))
    click, _ = encoder((points[:1, :1], torch.tensor([[1]])), None, None)
    box, _ = encoder(None, points[1:].reshape(1, 4), None)
    torch.testing.assert_close(tokens[:1], click)
    torch.testing.assert_close(tokens[1:], box)


def test_the_click_decoder_travels_with_the_weights(
    scenes: Path, backbone: Backbone, tmp_path: Path
) -> None:
    train.train(RECIPE, scenes, tmp_path / "run", "cpu", until=1)
    clicks.train(RECIPE, backbone, scenes, tmp_path / "clicks", until=1)
    file = export(tmp_path / "run", tmp_path / "weights.safetensors", tmp_path / "clicks")
    loaded = load_backbone(file).click_decoder
    assert loaded is not None
    trained = learned(tmp_path / "clicks")
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, trained[f"decoder.{name}"].half().float())
