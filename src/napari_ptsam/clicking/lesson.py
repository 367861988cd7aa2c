"""What a step learns from: objects asked for as a user would, and corrected likewise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_ptsam.backbones import Backbone, Embedding
from napari_ptsam.backbones.backbone import resize_logits
from napari_ptsam.clicking.bank import KeptView
from napari_ptsam.clicking.losses import mask_loss, outline_loss
from napari_ptsam.clicking.plan import ClickPlan
from napari_ptsam.clicking.simulate import box_around, click_in, correction
from napari_ptsam.clicking.tokens import (
    BACKGROUND,
    FIRST_CORNER,
    LAST_CORNER,
    NOTHING,
    OBJECT,
    answer_points,
)
from napari_ptsam.methods.plm import Plm
from napari_ptsam.methods.pmm import Pmm
from napari_ptsam.training.losses import ptsam_loss

Points = list[list[tuple[float, float, int]]]
"""For each object its points: x, y in model pixels, and SAM's kind."""


class Lesson:
    """Loss of a PLM on the objects of a view.

    Attributes
    ----------
    pmm
        The Point Matching Module that helps; None without.
    """

    def __init__(self, method: Plm, backbone: Backbone, plan: ClickPlan) -> None:
        self.method, self.backbone, self.plan = method, backbone, plan
        self.pmm = Pmm(plan.seed).to(backbone.device) if plan.point_matching else None

    def parameter_groups(self) -> list[dict[str, object]]:
        """What is trained, each group with its share of the learning rate."""
        plan, method = self.plan, self.method
        shares = ((method.tokens, plan.token_rate), (method.readout, plan.readout_rate))
        apart = [(learned, share) for learned, share in shares if learned is not None]
        rest = [p for p in method.parameters() if all(p is not learned for learned, _ in apart)]
        rest += [] if self.pmm is None else list(self.pmm.parameters())
        groups: list[dict[str, object]] = [{"params": rest, "share": 1.0}]
        return groups + [{"params": [learned], "share": share} for learned, share in apart]

    def loss(self, kept: KeptView, rng: np.random.Generator) -> Tensor:
        """Of one step: some objects of the view, or all of them at once (automatic mode)."""
        if self.method.tokens is not None and rng.random() < self.plan.automatic:
            return self._loss_of_all(kept)
        chosen = rng.permutation(kept.targets)[: self.plan.batch_size]
        truths = [kept.ids == number for number in chosen]
        embedding = self._embedding(kept)
        points = self._asked(embedding, truths, kept, rng)
        logits, quality, features = self._answers(embedding, points)
        target, valid = self._compared(np.stack(truths), kept.valid, logits)
        weights = self.plan.weights
        loss = mask_loss(logits, quality, target, valid, weights)
        if self.pmm is not None:
            matching = outline_loss(self.pmm, features, logits, target, weights.points)
            loss = loss if matching is None else loss + weights.matching * matching
        return loss

    def _loss_of_all(self, kept: KeptView) -> Tensor:
        logits = self.method.decode(self.backbone, self._embedding(kept))
        target, valid = self._compared(kept.ids[None] > 0, kept.valid, logits)
        return ptsam_loss(logits, target, valid)

    def _embedding(self, kept: KeptView) -> Embedding:
        return tuple(level[None].to(self.backbone.device).float() for level in kept.embedding)

    def _compared(
        self, truths: NDArray[np.bool_], valid: NDArray[np.bool_], logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """KxSxS truths and SxS valid pixels, averaged to the resolution of the logits."""
        size, device = (logits.shape[-2], logits.shape[-1]), self.backbone.device
        target, counted = (
            functional.adaptive_avg_pool2d(torch.from_numpy(m).to(device).float()[:, None], size)
            for m in (truths, valid[None])
        )
        return target, (counted > 0.5).expand_as(logits)

    def _asked(
        self,
        embedding: Embedding,
        truths: Sequence[NDArray[np.bool_]],
        kept: KeptView,
        rng: np.random.Generator,
    ) -> Points:
        """A click or a box for each object, and as many corrections as this step draws."""
        points = [_first(truth & kept.valid, self.plan.boxes, rng) for truth in truths]
        for _ in range(int(rng.choice(len(self.plan.rounds), p=self.plan.rounds))):
            with torch.no_grad():
                logits = resize_logits(self._answers(embedding, points)[0], len(kept.ids))
            for found, truth, known in zip(logits[:, 0] > 0, truths, points, strict=True):
                click = correction(found.cpu().numpy(), truth, rng, kept.valid)
                kind = OBJECT if click and click.positive else BACKGROUND
                known.append((click.x, click.y, kind) if click else (0.0, 0.0, NOTHING))
        return points

    def _answers(self, embedding: Embedding, points: Points) -> tuple[Tensor, Tensor, Tensor]:
        """See `answer_points`."""
        given = torch.tensor(points, dtype=torch.float32)
        return answer_points(
            self.backbone, self.method, embedding, given[..., :2], given[..., 2].long()
        )


def _first(
    mask: NDArray[np.bool_], boxes: float, rng: np.random.Generator
) -> list[tuple[float, float, int]]:
    """A click or a box: two points in either case, so that both go together in a batch."""
    if rng.random() >= boxes:
        click = click_in(mask, rng)
        return [(click.x, click.y, OBJECT), (0.0, 0.0, NOTHING)]
    box = box_around(mask, rng)
    return [(box.left, box.top, FIRST_CORNER), (box.right, box.bottom, LAST_CORNER)]
