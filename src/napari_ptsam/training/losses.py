"""The training loss of PTSAM: 0.2 cross-entropy + 0.8 Dice.

All functions take logits and return the mean over the images of a batch, where
an image is first averaged over its own valid pixels. A batch's loss is
therefore the mean of its images' losses, however much of each is padding.
Everything is computed in float32, also under autocast, because sums over a
whole image overflow or lose their last digits in half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from napari_ptsam.errors import InputError

# One pixel in numerator and denominator: far below any object, and enough that an
# image without object has a loss that falls to 0 once the prediction is empty as well.
DICE_SMOOTHING = 1.0


def dice_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Soft Dice loss of the foreground, per image, averaged over the batch.

    Parameters
    ----------
    logits
        Bx1xHxW, any floating type.
    target
        Bx1xHxW, 1 on the object and 0 elsewhere.
    valid
        Bx1xHxW bool. Pixels that are False count neither in the loss nor in its
        gradient, whatever their values (NaN included).

    Returns
    -------
    Tensor
        Scalar float32 in 0..1; 0 with zero gradient where nothing is valid.

    Raises
    ------
    InputError
        If the three shapes differ.
    """
    logits, target = _masked(logits, target, valid)
    probability = torch.where(valid, torch.sigmoid(logits), 0.0).flatten(1)
    truth = target.flatten(1)
    shared = (probability * truth).sum(1)
    total = probability.sum(1) + truth.sum(1)
    return (1.0 - (2.0 * shared + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


def cross_entropy(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy per image over its valid pixels, averaged over the batch.

    Parameters and errors are those of `dice_loss`.

    Returns
    -------
    Tensor
        Scalar float32, nats per pixel; 0 with zero gradient where nothing is valid.
    """
    logits, target = _masked(logits, target, valid)
    pixels = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    pixels = torch.where(valid, pixels, 0.0).flatten(1)
    return (pixels.sum(1) / valid.flatten(1).sum(1).clamp(min=1)).mean()


def ptsam_loss(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    ce_weight: float = 0.2,
    dice_weight: float = 0.8,
) -> Tensor:
    """Weighted sum of `cross_entropy` and `dice_loss`; the weights are the PTSAM paper's.

    Parameters and errors are those of `dice_loss`.

    Returns
    -------
    Tensor
        Scalar float32.
    """
    return ce_weight * cross_entropy(logits, target, valid) + dice_weight * dice_loss(
        logits, target, valid
    )


def _masked(logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 logits and target with neutral values at invalid pixels."""
    if not logits.shape == target.shape == valid.shape:
        raise InputError(
            f"The loss got logits {tuple(logits.shape)}, target {tuple(target.shape)} and valid "
            f"{tuple(valid.shape)}; all three must be Bx1xHxW alike. Resize the logits to the "
            "target's size first."
        )
    return torch.where(valid, logits.float(), 0.0), torch.where(valid, target.float(), 0.0)
