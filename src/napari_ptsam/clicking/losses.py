"""What training from clicks minimises: focal, Dice and IoU, and the matching of outlines.

The paper (arXiv 2403.09199) names the four terms and gives no weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_ptsam.errors import InputError
from napari_ptsam.methods.pmm import Pmm, matching_loss, outline_points
from napari_ptsam.training.losses import dice_loss


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms, and their settings.

    Attributes
    ----------
    focal, dice
        4 to 1, our choice (see docs/clicks.md); SAM was trained with 20 to 1 (Kirillov et al. 2023,
        section A).
    iou
        Of the squared error of the expected IoU; 1, as there.
    matching
        Of the distance of outlines, in mask pixels; our choice.
    gamma, alpha
        Of the focal loss: how little easy pixels count, and the share of the object's pixels
        (Lin et al. 2017).
    points
        On each outline; our choice.
    """

    focal: float = 4.0
    dice: float = 1.0
    iou: float = 1.0
    matching: float = 0.05
    gamma: float = 2.0
    alpha: float = 0.25
    points: int = 64

    def __post_init__(self) -> None:
        if min(self.focal, self.dice, self.iou, self.matching, self.gamma) < 0:
            raise InputError("Weights of a loss and the focal gamma are 0 or more.")
        if not 0 <= self.alpha <= 1 or self.points < 3:
            raise InputError(
                f"The focal alpha is a share, 0 to 1, not {self.alpha}; and an outline takes 3 "
                f"points at least, not {self.points}."
            )


def focal_loss(logits: Tensor, target: Tensor, valid: Tensor, gamma: float, alpha: float) -> Tensor:
    """Focal loss (Lin et al. 2017), mean over valid pixels of each image, then over the batch.

    Parameters
    ----------
    logits, target, valid
        Bx1xHxW; the target 0 to 1, valid bool.
    """
    plain = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = torch.sigmoid(logits)
    right = probability * target + (1 - probability) * (1 - target)
    weight = alpha * target + (1 - alpha) * (1 - target)
    pixels = torch.where(valid, weight * (1 - right) ** gamma * plain, 0.0).flatten(1)
    return (pixels.sum(1) / valid.flatten(1).sum(1).clamp(min=1)).mean()


def mask_loss(
    logits: Tensor, quality: Tensor, target: Tensor, valid: Tensor, weights: LossWeights
) -> Tensor:
    """Focal, Dice and IoU terms of B answers.

    Parameters
    ----------
    logits, target, valid
        Bx1xHxW.
    quality
        B, the IoU that the model expects.
    """
    logits = logits.float()
    with torch.no_grad():
        guess, truth = (logits > 0) & valid, (target > 0.5) & valid
        either = (guess | truth).sum((1, 2, 3)).clamp(min=1)
        true_iou = (guess & truth).sum((1, 2, 3)) / either
    return (
        weights.focal * focal_loss(logits, target, valid, weights.gamma, weights.alpha)
        + weights.dice * dice_loss(logits, target, valid)
        + weights.iou * functional.mse_loss(quality.float(), true_iou)
    )


def outline_loss(
    pmm: Pmm, features: Tensor, logits: Tensor, target: Tensor, points: int
) -> Tensor | None:
    """Point matching loss of those answers that have an outline; None if there is none.

    Parameters
    ----------
    features
        Bx32xhxw, that the masks were read from.
    logits, target
        Bx1xhxw, at the same resolution.
    """
    chosen, ours, theirs = [], [], []
    predicted = logits.detach().float().sigmoid().cpu().numpy()
    for i, (guess, truth) in enumerate(zip(predicted, target.cpu().numpy(), strict=True)):
        found, wanted = outline_points(guess[0], points), outline_points(truth[0], points)
        if found is not None and wanted is not None:
            chosen.append(i)
            ours.append(found)
            theirs.append(wanted)
    if not chosen:
        return None
    given, truth = (torch.from_numpy(np.stack(p)).to(features.device) for p in (ours, theirs))
    return matching_loss(pmm(features[chosen], given), truth)
