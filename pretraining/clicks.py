"""Train the click decoder of an embedded backbone, every other number frozen.

    python -m pretraining.clicks pretraining/clicks.toml --backbone embedded --pool POOL --run RUN

One look of the encoder serves many clicks: the objects of procedural scenes are asked for by
clicks and jittered boxes, some with further clicks on the object or beside it. A run goes on
from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.backbone import Embedding, decode_masks
from napari_ptsam.backbones.clicks import ClickDecoder, point_tokens
from napari_ptsam.errors import TrainingError
from pretraining import episodes
from pretraining.recipe import Phase, Recipe
from pretraining.train import CHECKPOINT, go_on

BACKBONE = "backbone.json"
"""In a run's folder: the frozen backbone that it trains for."""

OBJECTS = 8
"""Objects that are asked for in each crop."""

WARM_UP = 50
"""Steps over which the learning rate rises: what is trained starts from what works."""

ENTROPY_WEIGHT = 5.0
"""Of cross-entropy against Dice. SAM's focal loss (arXiv 2304.02643, appendix A) counts pixels
little that are more likely right than wrong, and so leaves probabilities near a half."""


class ClickTrainer(nn.Module):
    """A click decoder that learns, and the frozen backbone that it is for."""

    def __init__(self, backbone: Backbone, seed: int) -> None:
        super().__init__()
        self.decoder = ClickDecoder(backbone.sam, seed)
        self.frozen = [backbone]
        start_from_task_mask(self.decoder)

    def forward(
        self, crops: episodes.Crops, phase: Phase, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Losses and mean IoU of the objects of some crops, scalars by name."""
        (backbone,) = self.frozen
        backbone.sam.prompt_encoder.input_image_size = (crops.images.shape[-1],) * 2
        with torch.no_grad():
            inputs = (crops.images - backbone.sam.pixel_mean) / backbone.sam.pixel_std
            embedding = backbone.encode(inputs * crops.valid)
        rows = torch.arange(len(crops.images)).repeat(OBJECTS)
        asked = episodes.Crops(*(t[rows] for t in crops.tensors))
        masks, points, labels, present = episodes.draw_instances(asked, rng, phase.more_clicks)
        if not present.any():
            return {}
        held: Embedding = tuple(level[rows[present]] for level in embedding)
        sam = self.decoder.applied_to(backbone.sam)
        points, labels = points[present], labels[present]
        held = self.decoder.prompted(held, points, labels)
        logits, quality = decode_masks(sam, held, point_tokens(sam, points, labels))
        target = episodes.to_loss_size(masks[present])
        return click_losses(logits[:, :1].float(), quality[:, 0].float(), target)


@torch.no_grad()
def start_from_task_mask(decoder: ClickDecoder) -> None:
    """Copy the token of mask 1, which draws tasks, into that of mask 0, which draws nothing."""
    tokens = decoder.own["mask_decoder/mask_tokens/weight"]
    tokens[0] = tokens[1]


def click_losses(logits: Tensor, quality: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Entropy, Dice and IoU losses, mean over Nx1xhxw masks; and the IoU itself."""
    probability = logits.sigmoid()
    overlap = (probability * target).sum((1, 2, 3))
    area = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    # Smoothed by one pixel alone: an empty answer must never pay, however small the object.
    dice = (1 - (2 * overlap + 1) / (area + 1)).mean()
    guess, truth = logits > 0, target > 0.5
    iou = (guess & truth).sum((1, 2, 3)) / (guess | truth).sum((1, 2, 3)).clamp(min=1)
    return {
        "entropy": ENTROPY_WEIGHT * F.binary_cross_entropy_with_logits(logits, target),
        "dice": dice,
        "quality": ((quality - iou) ** 2).mean(),
        "iou": iou.mean().detach(),
    }


def train(recipe: Recipe, backbone: Backbone, pool: Path, run: Path, until: int | None) -> None:
    """Go on from the run's last checkpoint to the recipe's end, or to before `until`.

    Raises
    ------
    TrainingError
        If the run has begun with another recipe, or for another backbone.
    """
    _note_backbone(run, backbone)
    model = ClickTrainer(backbone, recipe.seed).to(backbone.device)
    go_on(model, recipe, pool, run, until, WARM_UP)


def _note_backbone(run: Path, backbone: Backbone) -> None:
    """Write down whose click decoder a run trains; raise if it has begun with another's."""
    path = run / BACKBONE
    if (run / CHECKPOINT).exists():
        known = json.loads(path.read_text())["identity"] if path.exists() else "not told"
        if known != backbone.identity:
            raise TrainingError(
                f"{run} has begun on another backbone (identity {known[:12]} there, "
                f"{backbone.identity[:12]} here). Name another folder with --run to begin anew, "
                "or give the former file as --backbone to go on."
            )
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": backbone.name, "identity": backbone.identity}, indent=1))


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
