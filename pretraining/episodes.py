"""Episodes: a few scenes of one type, and the tasks that are asked of them.

A task is "all pixels of this kind". A backbone that has learned to be told
the task by eight tokens, for thousands of procedural types, is one that a user
can specialise with eight learned prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pretraining.pool import TypeScenes

LOSS_STRIDE = 2
"""Masks come out at half the input's resolution, and are compared there."""

PADDED = 0.2
"""Share of the episodes whose images are padded."""

Task = tuple[tuple[int, ...], bool]
"""Kinds whose pixels are asked for, and whether it is everything else instead."""


@dataclass(frozen=True)
class Crops:
    """K crops of scenes of one type.

    Attributes
    ----------
    images
        Kx3xSxS float32, 0..255, stretched as a user's images are.
    kinds, instances
        KxSxS int64.
    valid
        Kx1xSxS float32, 0 on the padding below and right of small images.
    """

    images: Tensor
    kinds: Tensor
    instances: Tensor
    valid: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order in which they are given to the constructor."""
        return self.images, self.kinds, self.instances, self.valid

    def to(self, device: torch.device) -> Crops:
        """The same on a device."""
        return Crops(*(t.to(device) for t in self.tensors))


def join(parts: Sequence[Crops]) -> Crops:
    """Crops of several types, one after the other."""
    return Crops(*(torch.cat(t) for t in zip(*(p.tensors for p in parts), strict=True)))


def split(crops: Crops, types: int) -> list[Crops]:
    """Joined crops of `types` types, each on its own again."""
    parts = (t.chunk(types) for t in crops.tensors)
    return [Crops(*part) for part in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Look:
    """Intensity changes shared by all crops of an episode: the type stays one type."""

    invert: bool
    gamma: float
    order: tuple[int, int, int]
    gains: tuple[float, float, float]
    grey: bool
    low: float
    high: float


def draw_look(rng: np.random.Generator) -> Look:
    """A random look; most are mild."""
    colour = rng.random() < 0.3
    return Look(
        invert=bool(rng.random() < 0.2),
        gamma=float(np.exp(rng.normal(0, 0.25))),
        order=tuple(rng.permutation(3)) if colour else (0, 1, 2),
        gains=tuple(np.exp(rng.normal(0, 0.15, 3))) if colour else (1.0, 1.0, 1.0),
        grey=bool(rng.random() < 0.15),
        low=float(rng.uniform(0.0, 1.0)),
        high=float(rng.uniform(99.0, 100.0)),
    )


def apply_look(image: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
    """HxWx3 in 0..255 to the same, percentiles stretched as in `normalize`."""
    sample = image[::4, ::4]
    low, high = np.percentile(sample, [look.low, look.high])
    image = np.clip((image - low) / max(high - low, 1.0), 0, 1)
    if look.invert:
        image = 1 - image
    image = image**look.gamma
    if look.grey:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    image = image[..., list(look.order)] * np.asarray(look.gains, np.float32)
    return np.asarray(np.clip(image, 0, 1) * 255, np.float32)


def draw_crops(
    scenes: TypeScenes, count: int, size: int, rng: np.random.Generator, whole: float = 0.1
) -> Crops:
    """Random crops at one random zoom, each flipped and turned on its own.

    Parameters
    ----------
    whole
        Share of episodes that show nearly whole scenes: what is told by its surroundings
        cannot be learned from small windows.
    """
    look = draw_look(rng)
    side = scenes.images.shape[1]
    zoom = float(np.exp(rng.uniform(np.log(0.6), np.log(1.8))))
    window = int(np.clip(size / zoom, 64, side))
    if rng.random() < whole:
        window = int(rng.uniform(0.7, 1.0) * side)
    parts = [
        _crop(scenes, int(k), window, size, look, rng)
        for k in rng.choice(len(scenes.images), count, replace=False)
    ]
    images, kinds, instances = (torch.stack(p) for p in zip(*parts, strict=True))
    return _padded(Crops(images, kinds, instances, torch.ones(count, 1, size, size)), rng)


def _padded(crops: Crops, rng: np.random.Generator) -> Crops:
    """Now and then, images that do not fill the input, as narrow ones of a user do not."""
    if rng.random() < PADDED:
        for valid in crops.valid:
            rows, columns = (int(s * rng.uniform(0.4, 1.0)) for s in valid.shape[1:])
            if rng.random() < 0.5:
                valid[:, rows:] = 0
            else:
                valid[:, :, columns:] = 0
    there = crops.valid[:, 0].long()
    return Crops(crops.images, crops.kinds * there, crops.instances * there, crops.valid)


def _crop(
    scenes: TypeScenes, k: int, window: int, size: int, look: Look, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    side = scenes.images.shape[1]
    places = [tuple(rng.integers(0, side - window + 1, 2)) for _ in range(2)]
    y, x = max(places, key=lambda p: len(np.unique(_cut(scenes.kinds[k], p, window)[::4, ::4])))
    image = apply_look(_cut(scenes.images[k], (y, x), window).astype(np.float32), look)
    labels = np.stack(
        [_cut(scenes.kinds[k], (y, x), window), _cut(scenes.instances[k], (y, x), window)]
    )
    turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
    image, labels = np.rot90(image, turns, (0, 1)), np.rot90(labels, turns, (1, 2))
    if flip:
        image, labels = image[:, ::-1], labels[:, :, ::-1]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)[0]
    marks = torch.from_numpy(np.ascontiguousarray(labels).astype(np.float32))[None]
    marks = F.interpolate(marks, (size, size), mode="nearest")[0].long()
    return pixels, marks[0], marks[1]


def _cut(plane: NDArray[Any], corner: tuple[int, int], window: int) -> NDArray[Any]:
    y, x = corner
    return np.asarray(plane[y : y + window, x : x + window])


def draw_tasks(crops: Crops, count: int, rng: np.random.Generator) -> list[Task]:
    """`count` tasks that are asked of all crops of the episode."""
    areas = np.bincount(crops.kinds.cpu().numpy().ravel(), minlength=1)
    present = [int(k) for k in np.flatnonzero(areas) if k > 0]
    if not present:
        return [((1,), False)] * count
    rng.shuffle(present)
    tasks: list[Task] = []
    for i in range(count):
        wanted: tuple[int, ...] = (present[i % len(present)],)
        if len(present) > 2 and rng.random() < 0.12:
            wanted = (wanted[0], present[(i + 1) % len(present)])
        tasks.append((wanted, bool(rng.random() < 0.06)))
    return tasks


def task_masks(crops: Crops, task: Task) -> Tensor:
    """Kx1xSxS float masks of one task."""
    wanted, complement = task
    mask = torch.zeros_like(crops.kinds, dtype=torch.bool)
    for kind in wanted:
        mask |= crops.kinds == int(kind)
    return (mask ^ complement)[:, None].float()


def draw_instances(
    crops: Crops, rng: np.random.Generator, more: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One object in each crop, and a click or a box on it.

    Parameters
    ----------
    more
        At most so many further clicks on each object or beside it.

    Returns
    -------
    tuple
        Kx1xSxS masks, KxPx2 points (x, y), KxP SAM point labels (1 object, 0
        background, 2 and 3 box corners, -1 none), K bool "there was an object"; P = 2 + more.
    """
    masks, points, labels, present = [], [], [], []
    for instances in crops.instances.cpu():
        areas = np.bincount(instances.numpy().ravel())
        ids = np.flatnonzero(areas[1:] >= 24) + 1
        found = len(ids) > 0
        mask = instances == int(rng.choice(ids)) if found else instances < 0
        point, label = _prompt(mask, rng) if found else (torch.zeros(2, 2), [-1, -1])
        further = _further_clicks(mask, more if found else 0, rng)
        point, label = torch.cat([point, further[0]]), label + further[1]
        point = F.pad(point, (0, 0, 0, 2 + more - len(point)))
        label = label + [-1] * (2 + more - len(label))
        masks.append(mask)
        points.append(point)
        labels.append(torch.tensor(label))
        present.append(found)
    drawn = (
        torch.stack(masks)[:, None].float(),
        torch.stack(points).float(),
        torch.stack(labels),
        torch.tensor(present),
    )
    mask, point, kind, there = (t.to(crops.instances.device) for t in drawn)
    return mask, point, kind, there


def _prompt(mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, list[int]]:
    rows, columns = torch.nonzero(mask, as_tuple=True)
    if rng.random() < 0.5:
        chosen = int(rng.integers(len(rows)))
        return torch.tensor([[columns[chosen], rows[chosen]], [0, 0]]), [1, -1]
    low = torch.stack([columns.min(), rows.min()]).float()
    high = torch.stack([columns.max(), rows.max()]).float()
    jitter = torch.from_numpy(rng.normal(0, 0.08, (2, 2))).float() * (high - low)
    return torch.stack([low, high]) + jitter, [2, 3]


def _further_clicks(mask: Tensor, most: int, rng: np.random.Generator) -> tuple[Tensor, list[int]]:
    """Up to `most` clicks, each inside the object, or outside it and nearer than its own size."""
    points, labels = torch.zeros(0, 2), list[int]()
    if most == 0:
        return points, labels
    rows, columns = torch.nonzero(mask, as_tuple=True)
    for _ in range(int(rng.integers(most + 1))):
        if rng.random() < 0.5:
            chosen = int(rng.integers(len(rows)))
            y, x = int(rows[chosen]), int(columns[chosen])
        else:
            low = np.array([int(rows.min()), int(columns.min())])
            high = np.array([int(rows.max()), int(columns.max())])
            y, x = rng.integers(2 * low - high - 4, 2 * high - low + 5)
            y, x = (
                int(np.clip(v, 0, side - 1)) for v, side in zip((y, x), mask.shape, strict=True)
            )
        points = torch.cat([points, torch.tensor([[x, y]], dtype=torch.float32)])
        labels.append(int(mask[y, x]))
    return points, labels


def to_loss_size(masks: Tensor) -> Tensor:
    """Masks averaged to the resolution at which they are compared."""
    return F.avg_pool2d(masks, LOSS_STRIDE)
