"""Pre-train the embedded backbone: recipe and pool in, weights out.

    python -m pretraining.train recipe.toml --pool POOL --run RUN

A run is a folder with checkpoints and `log.jsonl`; starting it again goes on
from the last checkpoint. The recipe is a list of phases, so that crops can
grow and the learning rate can fall at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ptsam.backbones.backbone import decode_masks
from napari_ptsam.backbones.embedded import (
    DECODER_WIDTH,
    PROMPT_COUNT,
    EmbeddedShape,
    build_embedded,
)
from napari_ptsam.synthetic.scene import KINDS
from pretraining import episodes
from pretraining.pool import read_type


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with one crop size; the rate goes linearly from first to last."""

    steps: int
    crop: int
    types: int
    scenes: int
    first_rate: float
    last_rate: float
    groups: tuple[str, ...]
    dense_weight: float = 0.3


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the code."""

    seed: int
    pool_types: int
    weight_decay: float
    tasks: int
    phases: tuple[Phase, ...]

    @staticmethod
    def read(path: Path) -> Recipe:
        """From a TOML file."""
        values = tomllib.loads(path.read_text())
        phases = tuple(Phase(**p) for p in values.pop("phases"))
        return Recipe(phases=phases, **values)

    def phase_at(self, step: int) -> tuple[Phase, float]:
        """Phase of a step and its learning rate."""
        for phase in self.phases:
            if step < phase.steps:
                share = step / phase.steps
                return phase, phase.first_rate + share * (phase.last_rate - phase.first_rate)
            step -= phase.steps
        raise IndexError(step)

    @property
    def steps(self) -> int:
        """All steps of all phases."""
        return sum(p.steps for p in self.phases)


class Pretrainer(nn.Module):
    """The network with what only pre-training needs.

    Beside it stand a table of free prompts for each kind of object, as a
    user's learned prompts are free of the task encoder, and a dense head that
    tells the kind of every pixel. Both are dropped afterwards.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.sam = build_embedded(EmbeddedShape(), seed)
        self.table = nn.Embedding(len(KINDS), PROMPT_COUNT * DECODER_WIDTH)
        nn.init.uniform_(self.table.weight, -0.25, 0.25)
        self.coarse_head = nn.Conv2d(DECODER_WIDTH, len(KINDS), 1)
        self.fine_head = nn.Conv2d(DECODER_WIDTH // 8, len(KINDS), 1)

    def forward(
        self, crops: episodes.Crops, types: int, rng: np.random.Generator, tasks: int, dense: float
    ) -> dict[str, Tensor]:
        """Losses of a batch of `types` episodes stacked along the first axis."""
        images = (crops.images - self.sam.pixel_mean) / self.sam.pixel_std
        embedding = self.sam.image_encoder(images)
        if torch.is_autocast_enabled(images.device.type):
            embedding = tuple(level.bfloat16() for level in embedding)
        losses = {"dense": dense * self._dense_loss(embedding, crops.kinds)}
        chunks = [
            episodes.Crops(*c)
            for c in zip(*(t.chunk(types) for t in (crops.images, crops.kinds, crops.instances)))
        ]
        drawn = [episodes.draw_tasks(c, tasks, rng) for c in chunks]
        for name, part in (
            ("task", self._task_loss(embedding, chunks, drawn, rng)),
            ("table", self._table_loss(embedding, chunks, rng)),
            ("click", self._instance_loss(embedding, crops, rng)),
        ):
            losses[name] = part
        return losses

    def _dense_loss(self, embedding: tuple[Tensor, ...], kinds: Tensor) -> Tensor:
        total = kinds.new_zeros((), dtype=torch.float32)
        for head, level in ((self.coarse_head, embedding[0]), (self.fine_head, embedding[2])):
            stride = kinds.shape[-1] // level.shape[-1]
            target = kinds[:, stride // 2 :: stride, stride // 2 :: stride]
            total = total + F.cross_entropy(head(level).float(), target)
        return total

    def _task_loss(self, embedding, chunks, drawn, rng) -> Tensor:  # type: ignore[no-untyped-def]
        """Prompts from the episode's other crops segment each crop."""
        total = embedding[0].new_zeros((), dtype=torch.float32)
        for i in range(len(drawn[0])):
            masks = torch.cat(
                [episodes.task_masks(c, t[i]) for c, t in zip(chunks, drawn, strict=True)]
            )
            statistics = self.sam.task_encoder.statistics(embedding, masks, torch.ones_like(masks))
            count = len(masks) // len(chunks)
            statistics = statistics.view(len(chunks), count, *statistics.shape[1:])
            others = torch.stack(
                [statistics[:, [k for k in self._support(count, q, rng)]] for q in range(count)],
                1,
            ).flatten(0, 1)
            prompts = self.sam.task_encoder(others)
            logits = decode_masks(self.sam, embedding, prompts)[0][:, 1:2]
            total = total + mask_loss(logits, episodes.to_loss_size(masks))
        return total

    @staticmethod
    def _support(count: int, query: int, rng: np.random.Generator) -> list[int]:
        """All crops but the query; now and then the query alone, to teach faithfulness."""
        if rng.random() < 0.1:
            return [query] * (count - 1)
        return [k for k in range(count) if k != query]

    def _table_loss(self, embedding, chunks, rng) -> Tensor:  # type: ignore[no-untyped-def]
        """Free prompts, one set for each kind whatever the scene's type."""
        tasks = [((episodes.draw_tasks(c, 1, rng)[0][0][0],), False) for c in chunks]
        masks = torch.cat([episodes.task_masks(c, t) for c, t in zip(chunks, tasks, strict=True)])
        kinds = torch.tensor([t[0][0] for t in tasks], device=masks.device)
        prompts = self.table(kinds).view(-1, PROMPT_COUNT, DECODER_WIDTH)
        prompts = prompts.repeat_interleave(len(masks) // len(chunks), 0)
        logits = decode_masks(self.sam, embedding, prompts)[0][:, 1:2]
        return mask_loss(logits, episodes.to_loss_size(masks))

    def _instance_loss(self, embedding, crops, rng) -> Tensor:  # type: ignore[no-untyped-def]
        """SAM's own clicks and boxes, answered by its single-mask output."""
        masks, points, labels, present = episodes.draw_instances(crops, rng)
        encoder = self.sam.prompt_encoder
        size = (crops.images.shape[-1],) * 2
        encoder.input_image_size = size
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


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy and soft Dice in equal parts; Bx1xhxw each."""
    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    probability = logits.sigmoid()
    overlap = (probability * target).sum((1, 2, 3))
    area = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    dice = 1 - (2 * overlap + 20) / (area + 20)
    loss = entropy + dice
    return loss.mean() if weight is None else (loss * weight).mean()


def batches(recipe: Recipe, pool: Path, first: int) -> Iterator[tuple[int, Phase, float, object]]:
    """Steps from `first` on, each with its crops; a step's content depends on its number alone."""
    for step in range(first, recipe.steps):
        phase, rate = recipe.phase_at(step)
        rng = np.random.default_rng([recipe.seed, step])
        parts = [
            episodes.draw_crops(
                read_type(
                    pool,
                    phase.groups[int(rng.integers(len(phase.groups)))],
                    int(rng.integers(recipe.pool_types)),
                ),
                phase.scenes,
                phase.crop,
                rng,
            )
            for _ in range(phase.types)
        ]
        crops = episodes.Crops(
            torch.cat([p.images for p in parts]),
            torch.cat([p.kinds for p in parts]),
            torch.cat([p.instances for p in parts]),
        )
        yield step, phase, rate, (crops, rng)


def train(recipe: Recipe, pool: Path, run: Path, device: str, until: int | None = None) -> None:
    """Go on from the run's last checkpoint to the recipe's end (or step `until`)."""
    run.mkdir(parents=True, exist_ok=True)
    model = Pretrainer(recipe.seed).to(device)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    checkpoint = run / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    (run / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    started, sums, count = time.time(), {}, 0
    for step, phase, rate, (crops, rng) in batches(recipe, pool, first):
        if until is not None and step >= until:
            break
        crops = episodes.Crops(*(getattr(crops, n).to(device) for n in crops.__annotations__))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 200)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            losses = model(crops, phase.types, rng, recipe.tasks, phase.dense_weight)
        total = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step()
        count += 1
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if (step + 1) % 25 == 0:
            means = {k: round(v / count, 4) for k, v in sums.items()}
            line = {"step": step + 1, "seconds": round(time.time() - started, 1), **means}
            with (run / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)
            sums, count = {}, 0
        if (step + 1) % 200 == 0:
            save(checkpoint, model, optimiser, step + 1)
    save(checkpoint, model, optimiser, min(recipe.steps, until or recipe.steps))


def save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write a checkpoint; an interrupted write leaves the former one in place."""
    temporary = path.with_suffix(f".{os.getpid()}.part")
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    torch.save(state, temporary)
    temporary.replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=int, help="stop before this step; run again to go on")
    given = parser.parse_args()
    recipe = Recipe.read(given.recipe)
    train(recipe, given.pool, given.run, given.device, given.until)


if __name__ == "__main__":
    main()
