"""The embedded SAM with what only pre-training needs, and its losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ptsam.backbones.backbone import Embedding, decode_masks
from napari_ptsam.backbones.clicks import point_tokens
from napari_ptsam.backbones.embedded import (
    DECODER_WIDTH,
    EmbeddedShape,
    build_embedded,
    read_out,
)
from napari_ptsam.synthetic.scene import KINDS
from pretraining import episodes
from pretraining.episodes import Crops, Task
from pretraining.recipe import Phase

SMOOTH = 0.005
"""Added to both sides of the Dice fraction, as a share of the image; empty masks then have one."""


class Pretrainer(nn.Module):
    """The network with what only pre-training needs.

    Beside it stand dense heads that tell the kind of every pixel, dropped
    afterwards.
    """

    def __init__(self, shape: EmbeddedShape, seed: int) -> None:
        super().__init__()
        self.sam = build_embedded(shape, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.coarse_head = nn.Conv2d(DECODER_WIDTH, len(KINDS), 1)
            self.fine_head = nn.Conv2d(DECODER_WIDTH // 8, len(KINDS), 1)

    def forward(self, crops: Crops, phase: Phase, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of a step, weighted.

        Parameters
        ----------
        crops
            Of `phase.types` scene types, stacked along the first axis.
        phase
            Also has the losses' weights.
        rng
            Draws the tasks.

        Returns
        -------
        dict
            Scalar float32 by name: ``dense``, ``task``, ``tuned``, ``pixel``, ``click``.
        """
        images = (crops.images - self.sam.pixel_mean) / self.sam.pixel_std * crops.valid
        embedding: Embedding = self.sam.image_encoder(images)
        if torch.is_autocast_enabled(images.device.type):
            embedding = tuple(level.bfloat16() for level in embedding)
        by_type = episodes.split(crops, phase.types)
        # Drawn in this order: a step's content must not change between versions.
        drawn = [episodes.draw_tasks(c, 2, rng) for c in by_type]
        first, second = ([tasks[i] for tasks in drawn] for i in range(2))
        task, pixel = self._task_losses(embedding, by_type, first, rng)
        tuned, again = self._task_losses(embedding, by_type, second, rng, tune=True)
        losses = {
            "task": task,
            "tuned": tuned,
            "pixel": phase.pixel_weight * 0.5 * (pixel + again),
            "dense": phase.dense_weight * self._dense_loss(embedding, crops),
        }
        if rng.random() < phase.click_share:
            losses["click"] = self._instance_loss(embedding, crops, phase.more_clicks, rng)
        return losses

    def _dense_loss(self, embedding: Embedding, crops: Crops) -> Tensor:
        """The kind of every pixel, at the coarsest and at the finest level."""
        kinds = torch.where(crops.valid[:, 0] > 0, crops.kinds, -100)
        total = kinds.new_zeros((), dtype=torch.float32)
        for head, level in ((self.coarse_head, embedding[0]), (self.fine_head, embedding[2])):
            stride = kinds.shape[-1] // level.shape[-1]
            target = kinds[:, stride // 2 :: stride, stride // 2 :: stride]
            total = total + F.cross_entropy(head(level).float(), target)
        return total

    def _task_losses(
        self,
        embedding: Embedding,
        by_type: Sequence[Crops],
        tasks: Sequence[Task],
        rng: np.random.Generator,
        tune: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Loss of prompts made of the other crops of its type, and of their readout alone.

        With `tune` the prompts first take a step down the gradient of the loss of another
        crop, so that the decoder learns to be tuned (MAML's first-order form).
        """
        masks = torch.cat([episodes.task_masks(c, t) for c, t in zip(by_type, tasks, strict=True)])
        valid = torch.cat([c.valid for c in by_type])
        target, counted = episodes.to_loss_size(masks), episodes.to_loss_size(valid)
        support = _support(len(masks) // len(by_type), len(by_type), rng).to(masks.device)
        with torch.autocast(masks.device.type, enabled=False):
            statistics = self.sam.task_encoder.statistics(embedding, masks, valid)
            prompts = self.sam.task_encoder(statistics.over(support))
            pixel = mask_loss(read_out(embedding, prompts), target, counted)
        if tune:
            prompts = prompts + self._inner_step(embedding, prompts, target, counted, support, rng)
        logits = decode_masks(self.sam, embedding, prompts)[0][:, 1:2]
        return mask_loss(logits, target, counted), pixel

    def _inner_step(
        self,
        embedding: Embedding,
        prompts: Tensor,
        target: Tensor,
        counted: Tensor,
        support: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """A normalised step of each prompt set, from one crop that it was made of."""
        other = support.argmax(1)
        start = prompts.detach().requires_grad_()
        held = tuple(level.detach()[other] for level in embedding)
        logits = decode_masks(self.sam, held, start)[0][:, 1:2]
        loss = mask_loss(logits, target[other], counted[other])
        (gradient,) = torch.autograd.grad(loss, start)
        size = gradient.square().mean((1, 2), keepdim=True).sqrt() + 1e-12
        return -float(rng.uniform(0.003, 0.03)) * gradient / size

    def _instance_loss(
        self, embedding: Embedding, crops: Crops, more_clicks: int, rng: np.random.Generator
    ) -> Tensor:
        """SAM's own clicks and boxes, answered by its single-mask output."""
        masks, points, labels, present = episodes.draw_instances(crops, rng, more_clicks)
        self.sam.prompt_encoder.input_image_size = (crops.images.shape[-1],) * 2
        prompts = point_tokens(self.sam, points, labels)
        logits, quality = decode_masks(self.sam, embedding, prompts)
        target = episodes.to_loss_size(masks)
        with torch.no_grad():
            guess, truth = logits[:, :1].float() > 0, target > 0.5
            iou = (guess & truth).sum((1, 2, 3)) / (guess | truth).sum((1, 2, 3)).clamp(min=1)
        there = present.float()[:, None, None, None]
        loss = mask_loss(logits[:, :1], target, there * episodes.to_loss_size(crops.valid))
        return loss + ((quality[:, 0].float() - iou) ** 2 * present).mean()


def _support(count: int, types: int, rng: np.random.Generator) -> Tensor:
    """Which crops (columns) describe the task to which (rows): all others of the type.

    Now and then a crop alone describes its own task, to teach faithfulness.
    """
    within = 1 - torch.eye(count)
    if rng.random() < 0.1:
        within = torch.eye(count)
    return torch.block_diag(*[within] * types)


def mask_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy and soft Dice in equal parts, mean over the images.

    Parameters
    ----------
    logits, target
        Bx1xhxw.
    valid
        Bx1xhxw, or broadcast to it: the weight of each pixel.
    """
    logits, valid = logits.float(), valid.expand_as(target)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    entropy = (entropy * valid).sum((1, 2, 3)) / target[0].numel()
    probability = logits.sigmoid() * valid
    overlap = (probability * target).sum((1, 2, 3))
    area = probability.sum((1, 2, 3)) + (target * valid).sum((1, 2, 3))
    smooth = SMOOTH * target[0].numel()
    dice = 1 - (2 * overlap + smooth) / (area + smooth)
    return (entropy + dice).mean()
