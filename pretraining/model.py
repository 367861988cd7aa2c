"""The embedded SAM with what only pre-training needs, and its losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ptsam.backbones.backbone import Embedding, decode_masks
from napari_ptsam.backbones.embedded import (
    DECODER_WIDTH,
    PROMPT_COUNT,
    EmbeddedShape,
    build_embedded,
)
from napari_ptsam.synthetic.scene import KINDS
from pretraining import episodes
from pretraining.episodes import Crops, Task


class Pretrainer(nn.Module):
    """The network with what only pre-training needs.

    Beside it stand a table of free prompts for each kind of object, as a
    user's learned prompts are free of the task encoder, and a dense head that
    tells the kind of every pixel. Both are dropped afterwards.
    """

    def __init__(self, shape: EmbeddedShape, seed: int) -> None:
        super().__init__()
        self.sam = build_embedded(shape, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.table = nn.Embedding(len(KINDS), PROMPT_COUNT * DECODER_WIDTH)
            nn.init.uniform_(self.table.weight, -0.25, 0.25)
            self.coarse_head = nn.Conv2d(DECODER_WIDTH, len(KINDS), 1)
            self.fine_head = nn.Conv2d(DECODER_WIDTH // 8, len(KINDS), 1)

    def forward(
        self, crops: Crops, types: int, rng: np.random.Generator, tasks: int, dense: float
    ) -> dict[str, Tensor]:
        """Losses of a step.

        Parameters
        ----------
        crops
            Of `types` scene types, stacked along the first axis.
        rng
            Draws the tasks.
        tasks
            How many tasks are asked of each type.
        dense
            Weight of the dense loss.

        Returns
        -------
        dict
            Scalar float32 by name: ``dense``, ``task``, ``table``, ``click``.
        """
        images = (crops.images - self.sam.pixel_mean) / self.sam.pixel_std
        embedding: Embedding = self.sam.image_encoder(images)
        if torch.is_autocast_enabled(images.device.type):
            embedding = tuple(level.bfloat16() for level in embedding)
        by_type = episodes.split(crops, types)
        # Drawn in this order: a step's content must not change between versions.
        drawn = [episodes.draw_tasks(c, tasks, rng) for c in by_type]
        return {
            "dense": dense * self._dense_loss(embedding, crops.kinds),
            "task": self._task_loss(embedding, by_type, drawn, rng),
            "table": self._table_loss(embedding, by_type, rng),
            "click": self._instance_loss(embedding, crops, rng),
        }

    def _dense_loss(self, embedding: Embedding, kinds: Tensor) -> Tensor:
        """The kind of every pixel, at the coarsest and at the finest level."""
        total = kinds.new_zeros((), dtype=torch.float32)
        for head, level in ((self.coarse_head, embedding[0]), (self.fine_head, embedding[2])):
            stride = kinds.shape[-1] // level.shape[-1]
            target = kinds[:, stride // 2 :: stride, stride // 2 :: stride]
            total = total + F.cross_entropy(head(level).float(), target)
        return total

    def _task_loss(
        self,
        embedding: Embedding,
        by_type: Sequence[Crops],
        drawn: Sequence[Sequence[Task]],
        rng: np.random.Generator,
    ) -> Tensor:
        """Prompts from the other crops of its type segment each crop."""
        total = embedding[0].new_zeros((), dtype=torch.float32)
        for tasks in zip(*drawn, strict=True):
            masks = torch.cat(
                [episodes.task_masks(c, t) for c, t in zip(by_type, tasks, strict=True)]
            )
            statistics = self.sam.task_encoder.statistics(embedding, masks, torch.ones_like(masks))
            count = len(masks) // len(by_type)
            statistics = statistics.view(len(by_type), count, *statistics.shape[1:])
            others = [statistics[:, _support(count, query, rng)] for query in range(count)]
            prompts = self.sam.task_encoder(torch.stack(others, 1).flatten(0, 1))
            logits = decode_masks(self.sam, embedding, prompts)[0][:, 1:2]
            total = total + mask_loss(logits, episodes.to_loss_size(masks))
        return total

    def _table_loss(
        self, embedding: Embedding, by_type: Sequence[Crops], rng: np.random.Generator
    ) -> Tensor:
        """Free prompts, one set for each kind whatever the scene's type."""
        wanted = [episodes.draw_tasks(c, 1, rng)[0][0][0] for c in by_type]
        masks = torch.cat(
            [episodes.task_masks(c, ((k,), False)) for c, k in zip(by_type, wanted, strict=True)]
        )
        kinds = torch.tensor(wanted, device=masks.device)
        prompts = self.table(kinds).view(-1, PROMPT_COUNT, DECODER_WIDTH)
        prompts = prompts.repeat_interleave(len(masks) // len(by_type), 0)
        logits = decode_masks(self.sam, embedding, prompts)[0][:, 1:2]
        return mask_loss(logits, episodes.to_loss_size(masks))

    def _instance_loss(
        self, embedding: Embedding, crops: Crops, rng: np.random.Generator
    ) -> Tensor:
        """SAM's own clicks and boxes, answered by its single-mask output."""
        masks, points, labels, present = episodes.draw_instances(crops, rng)
        encoder = self.sam.prompt_encoder
        encoder.input_image_size = (crops.images.shape[-1],) * 2
        prompts = encoder._embed_points(points, labels, pad=False)
        boxes = (labels[:, :1] == 2)[..., None]
        corners = encoder._embed_boxes(points.reshape(-1, 4))
        prompts = torch.where(boxes, corners, prompts)
        logits, quality = decode_masks(self.sam, embedding, prompts)
        target = episodes.to_loss_size(masks)
        with torch.no_grad():
            guess, truth = logits[:, :1].float() > 0, target > 0.5
            iou = (guess & truth).sum((1, 2, 3)) / (guess | truth).sum((1, 2, 3)).clamp(min=1)
        loss = mask_loss(logits[:, :1], target, present.float())
        return loss + ((quality[:, 0].float() - iou) ** 2 * present).mean()


def _support(count: int, query: int, rng: np.random.Generator) -> list[int]:
    """All crops but the query; now and then the query alone, to teach faithfulness."""
    if rng.random() < 0.1:
        return [query] * (count - 1)
    return [k for k in range(count) if k != query]


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy and soft Dice in equal parts.

    Parameters
    ----------
    logits, target
        Bx1xhxw.
    weight
        B, weight of each image; 1 when None.
    """
    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    probability = logits.sigmoid()
    overlap = (probability * target).sum((1, 2, 3))
    area = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    dice = 1 - (2 * overlap + 20) / (area + 20)
    loss = entropy + dice
    return loss.mean() if weight is None else (loss * weight).mean()
