"""The PTSAM loss: values, gradients, and what must not count."""

from __future__ import annotations

import pytest
import torch

from napari_ptsam.errors import InputError
from napari_ptsam.training.losses import cross_entropy, dice_loss, ptsam_loss

LOSSES = [dice_loss, cross_entropy, ptsam_loss]


def scene(batch: int = 2, side: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, 1, side, side, generator=generator)
    target = (torch.rand(batch, 1, side, side, generator=generator) < 0.3).float()
    valid = torch.rand(batch, 1, side, side, generator=generator) < 0.8
    return logits, target, valid


def everywhere(like: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(like, dtype=torch.bool)


def test_dice_loss_is_one_minus_the_soft_dice_of_the_foreground() -> None:
    target = torch.zeros(1, 1, 20, 20)
    target[..., :10, :] = 1
    logits = torch.full_like(target, -30.0)
    logits[..., :5, :] = 30.0
    # 100 of 200 object pixels found, nothing else: Dice = 2*100 / (100 + 200).
    assert dice_loss(logits, target, everywhere(target)).item() == pytest.approx(1 / 3, abs=2e-3)


def test_cross_entropy_of_an_undecided_prediction_is_log_two() -> None:
    _, target, valid = scene()
    loss = cross_entropy(torch.zeros_like(target), target, valid)
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)


def test_ptsam_loss_is_a_fifth_cross_entropy_and_four_fifths_dice() -> None:
    parts = scene()
    expected = 0.2 * cross_entropy(*parts) + 0.8 * dice_loss(*parts)
    assert torch.allclose(ptsam_loss(*parts), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_against_the_gradient_raises_object_and_lowers_background(loss) -> None:
    logits, target, valid = scene()
    logits.requires_grad_()
    loss(logits, target, valid).backward()
    assert logits.grad is not None
    assert (logits.grad[(target == 1) & valid] < 0).all()
    assert (logits.grad[(target == 0) & valid] > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_values_at_invalid_pixels_do_not_matter_even_nan(loss) -> None:
    logits, target, valid = scene()
    spoiled = torch.where(valid, logits, torch.nan).requires_grad_()
    wrong = torch.where(valid, target, torch.inf)
    value = loss(spoiled, wrong, valid)
    value.backward()
    assert value.item() == loss(logits, target, valid).item()
    assert spoiled.grad is not None
    assert (spoiled.grad[~valid] == 0).all()
    assert torch.isfinite(spoiled.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_valid_gives_zero_loss_and_zero_gradient(loss) -> None:
    logits, target, valid = scene()
    logits.requires_grad_()
    value = loss(logits, target, torch.zeros_like(valid))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_empty_and_full_masks_reach_zero_when_predicted_right(loss, truth) -> None:
    target = torch.full((1, 1, 32, 32), truth)
    logits = torch.full_like(target, 20.0 if truth else -20.0)
    assert loss(logits, target, everywhere(target)).item() == pytest.approx(0, abs=1e-4)
    assert loss(-logits, target, everywhere(target)).item() > 0.9


@pytest.mark.parametrize("loss", LOSSES)
def test_batch_loss_is_the_mean_over_its_images_whatever_their_padding(loss) -> None:
    logits, target, valid = scene(batch=3)
    valid[0, :, 2:] = False
    alone = [loss(*(part[i : i + 1] for part in (logits, target, valid))) for i in range(3)]
    assert torch.allclose(loss(logits, target, valid), torch.stack(alone).mean())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_logits_are_summed_in_float32_under_autocast(loss, dtype) -> None:
    # 512x512 ones exceed float16's largest number, and bfloat16 cannot count beyond 256.
    logits = torch.full((1, 1, 512, 512), 8.0)
    target = torch.ones_like(logits)
    target[..., :256, :] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits.to(dtype), target, everywhere(target))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(logits, target, everywhere(target)).item(), abs=1e-6)


def test_shapes_that_would_broadcast_are_refused_in_words() -> None:
    logits, target, valid = scene()
    with pytest.raises(InputError, match=r"\(2, 16, 16\).*Bx1xHxW"):
        ptsam_loss(logits, target[:, 0], valid)
