"""PMM: outlines that are corrected point by point, as a lesson for the PLM.

Source: "Task-Specific Adaptation of Segmentation Foundation Model via Prompt Learning"
(arXiv 2403.09199), section 4.2. Points on the predicted outline take the decoder's features
under them, a transformer estimates where on the true outline each belongs, and what is missing
to there is a loss. The features are the decoder's, so the gradient reaches the PLM. The module
itself is dropped once training is over.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import measure
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, HIDDEN, BLOCKS = 128, 8, 1024, 3
FEATURES = 32
"""Channels of the features that SAM's masks are read from."""


class _Block(nn.Module):
    """Attention among the points of an outline, and an MLP; each added and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
        self.last_norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """BxPx128 to the same."""
        query, key, value = (functional.relu(layer(x)) for layer in self.maps)
        x = self.norm(x + self.attention(query, key, value, need_weights=False)[0])
        out: Tensor = self.last_norm(x + self.layers(x))
        return out


class Pmm(nn.Module):
    """The Point Matching Module.

    Parameters
    ----------
    seed
        Of the random initialisation.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.beside = nn.Linear(FEATURES + 2, WIDTH)
            self.entry = nn.Linear(FEATURES + 2, WIDTH)
            self.blocks = nn.Sequential(*(_Block() for _ in range(BLOCKS)))
            self.head = nn.Sequential(
                nn.Linear(2 * WIDTH, 128),
                nn.ReLU(),
                nn.Linear(128, 64),
                nn.ReLU(),
                nn.Linear(64, 2),
            )

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        """Points moved to where the outline should be.

        Parameters
        ----------
        features
            Bx32xhxw, that masks were read from.
        points
            BxPx2 (x, y), mask pixels, 0 being the centre of the first one.

        Returns
        -------
        Tensor
            BxPx2.
        """
        size = points.new_tensor([features.shape[-1], features.shape[-2]])
        places = (2 * points + 1) / size - 1
        # Bilinear: the gradient of the points' loss goes on to the features.
        under = functional.grid_sample(
            features.float(), places[:, :, None], padding_mode="border", align_corners=False
        )[..., 0]
        described = torch.cat([under.transpose(1, 2), places], 2)
        mixed = self.blocks(self.entry(described))
        offset: Tensor = self.head(torch.cat([self.beside(described), mixed], 2))
        return points + offset


def outline_points(mask: NDArray[np.float32], count: int) -> NDArray[np.float32] | None:
    """Evenly spaced points on the longest outline of a mask.

    Parameters
    ----------
    mask
        hxw, object from 0.5 on.
    count
        How many points.

    Returns
    -------
    NDArray or None
        count x 2 (x, y), in one sense of rotation for all masks; None if the mask is empty.
    """
    outlines = measure.find_contours(np.pad(mask, 1), 0.5)
    if not outlines:
        return None
    longest = max(outlines, key=len)[:, ::-1] - 1
    steps = np.hypot(*np.diff(longest, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.arange(count) * along[-1] / count
    points = [np.interp(wanted, along, longest[:, axis]) for axis in (0, 1)]
    return np.stack(points, 1).astype(np.float32)


def matching_loss(points: Tensor, truth: Tensor) -> Tensor:
    """Smooth L1 distance of two outlines, BxPx2 each, where they match best.

    An outline may begin anywhere, so of all cyclic shifts of the truth the nearest counts.

    Returns
    -------
    Tensor
        Scalar, mask pixels.
    """
    count = points.shape[1]
    steps = torch.arange(count, device=points.device)
    shifted = truth[:, (steps[:, None] + steps) % count]  # BxPxPx2, a shift in each row
    distance = functional.smooth_l1_loss(
        points[:, None].expand_as(shifted), shifted, reduction="none"
    )
    return distance.sum(3).mean(2).amin(1).mean()
