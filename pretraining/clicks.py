"""Train the click decoder of an embedded backbone, every other number frozen.

    python -m pretraining.clicks pretraining/clicks.toml --backbone embedded --pool POOL --run RUN

One look of the encoder serves many clicks: the objects of procedural scenes are asked for by
clicks and jittered boxes, some with further clicks on the object or beside it. A run goes on
from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.backbone import Embedding, decode_masks
from napari_ptsam.backbones.clicks import ClickDecoder
from pretraining import episodes
from pretraining.recipe import Recipe
from pretraining.train import CHECKPOINT, RECIPE, SAVE_EVERY, Batch, Log, batches, restore, save

OBJECTS = 8
"""Objects that are asked for in each crop."""

FOCAL_WEIGHT = 20.0
"""Against Dice, as SAM was trained (arXiv 2304.02643, appendix A)."""


class ClickTrainer(nn.Module):
    """A click decoder that learns, and the frozen backbone that it is for."""

    def __init__(self, backbone: Backbone, seed: int) -> None:
        super().__init__()
        self.decoder = ClickDecoder(backbone.sam, seed)
        self.frozen = [backbone]
        start_from_task_mask(self.decoder)

    def forward(
        self, crops: episodes.Crops, more_clicks: int, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Losses and mean IoU of the objects of some crops, scalars by name."""
        (backbone,) = self.frozen
        backbone.sam.prompt_encoder.input_image_size = (crops.images.shape[-1],) * 2
        with torch.no_grad():
            inputs = (crops.images - backbone.sam.pixel_mean) / backbone.sam.pixel_std
            embedding = backbone.encode(inputs * crops.valid)
        rows = torch.arange(len(crops.images)).repeat(OBJECTS)
        asked = episodes.Crops(*(t[rows] for t in crops.tensors))
        masks, points, labels, present = episodes.draw_instances(asked, rng, more_clicks)
        if not present.any():
            return {}
        held: Embedding = tuple(level[rows[present]] for level in embedding)
        sam = self.decoder.applied_to(backbone.sam)
        points, labels = points[present], labels[present]
        held = self.decoder.prompted(held, points, labels)
        logits, quality = decode_masks(sam, held, episodes.click_tokens(sam, points, labels))
        target = episodes.to_loss_size(masks[present])
        return click_losses(logits[:, :1].float(), quality[:, 0].float(), target)


@torch.no_grad()
def start_from_task_mask(decoder: ClickDecoder) -> None:
    """Copy mask 1, which draws tasks, into mask 0: the latter has hardly learned to draw."""
    own = decoder.own
    tokens = own["mask_decoder/mask_tokens/weight"]
    tokens[0] = tokens[1]


def click_losses(logits: Tensor, quality: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Focal, Dice and IoU losses, mean over Nx1xhxw masks; and the IoU itself."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    right = probability * target + (1 - probability) * (1 - target)
    focal = ((1 - right) ** 2 * entropy).mean()
    overlap = (probability * target).sum((1, 2, 3))
    area = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    # Smoothed by one pixel alone: an empty answer must never pay, however small the object.
    dice = (1 - (2 * overlap + 1) / (area + 1)).mean()
    guess, truth = logits > 0, target > 0.5
    iou = (guess & truth).sum((1, 2, 3)) / (guess | truth).sum((1, 2, 3)).clamp(min=1)
    return {
        "focal": FOCAL_WEIGHT * focal,
        "dice": dice,
        "quality": ((quality - iou) ** 2).mean(),
        "iou": iou.mean().detach(),
    }


def train(recipe: Recipe, backbone: Backbone, pool: Path, run: Path, until: int | None) -> None:
    """Go on from the run's last checkpoint to the recipe's end, or to before `until`."""
    run.mkdir(parents=True, exist_ok=True)
    model = ClickTrainer(backbone, recipe.seed).to(backbone.device)
    optimiser = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    first = restore(run / CHECKPOINT, model, optimiser)
    end = recipe.steps if until is None else min(until, recipe.steps)
    (run / RECIPE).write_text(json.dumps(asdict(recipe), indent=1))
    log = Log(run / "log.jsonl")
    for batch in batches(recipe, pool, range(first, end)):
        log.add(batch.step, _learn(model, optimiser, batch))
        if (batch.step + 1) % SAVE_EVERY == 0 or batch.step + 1 == end:
            save(run / CHECKPOINT, model, optimiser, batch.step + 1)


def _learn(
    model: ClickTrainer, optimiser: torch.optim.Optimizer, batch: Batch
) -> dict[str, Tensor]:
    device = model.frozen[0].device
    for group in optimiser.param_groups:
        group["lr"] = batch.rate * min(1.0, (batch.step + 1) / 50)
    with torch.autocast(device.type, torch.bfloat16):
        losses: dict[str, Tensor] = model(
            batch.crops.to(device), batch.phase.more_clicks, batch.rng
        )
    learned = [loss for name, loss in losses.items() if name != "iou"]
    if learned:
        optimiser.zero_grad(set_to_none=True)
        torch.stack(learned).sum().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step()
    return losses


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--backbone", default="embedded", help="name or file (%(default)s)")
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=int, help="stop before this step; run again to go on")
    given = parser.parse_args()
    backbone = load_backbone(given.backbone, device=given.device)
    train(Recipe.read(given.recipe), backbone, given.pool, given.run, given.until)


if __name__ == "__main__":
    main()
