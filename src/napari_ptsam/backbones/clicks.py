"""The embedded backbone's way to answer clicks and boxes.

Its mask decoder is shaped by prompts that stand for a whole task; clicks on single objects need
another one. That differs from it by matrices of low rank (LoRA, arXiv 2106.09685) in the
transformer, and by own copies of the parts that only the first mask uses. Clicks and boxes also
reach it as maps of the distance to them, as in other click segmenters (RITM, arXiv 2102.06583),
through SAM's own way for dense prompts: by addition to the image embedding. Specialists without
clicks never see any of this: for them the decoder is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_ptsam.backbones._sam import Sam
from napari_ptsam.backbones.overlay import by_name, overlay, own_copies

RANK = 16
"""Of the changes of the transformer's matrices."""

REACHES = (4.0, 16.0, 64.0)
"""Distances in model pixels over which the nearness of a click falls to a third."""

MAPS = 8
"""Maps of nearness: three for each sign of click, two for a box."""

COARSE_WIDTH, FINE_WIDTH = 256, 32
"""Channels of the coarsest and of the finest level of an embedding."""

_OWN = (
    "mask_decoder.iou_token.",
    "mask_decoder.mask_tokens.",
    "mask_decoder.iou_prediction_head.",
    "mask_decoder.output_hypernetworks_mlps.0.",
    "mask_decoder.output_upscaling.",
    "prompt_encoder.point_embeddings.",
    "prompt_encoder.not_a_point_embed.",
)
"""Beginnings of the names of what is trained as a copy."""

_TRANSFORMER = "mask_decoder.transformer."


class ClickDecoder(nn.Module):
    """What has to be exchanged in an embedded SAM so that it answers clicks.

    Parameters
    ----------
    sam
        An embedded SAM; it is not changed.
    seed
        Of the random initialisation.
    """

    def __init__(self, sam: Sam, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
            for name, weight in _matrices(sam):
                key = name.replace(".", "/")
                rows, columns = weight.shape
                self.down[key] = nn.Parameter(torch.randn(RANK, columns) / columns**0.5)
                # A change of nothing at the start.
                self.up[key] = nn.Parameter(torch.zeros(rows, RANK))
            self.coarse = nn.Sequential(
                nn.Conv2d(MAPS, 64, 1), nn.GELU(), nn.Conv2d(64, COARSE_WIDTH, 1)
            )
            self.fine = nn.Conv2d(MAPS, FINE_WIDTH, 1)
        self.own = own_copies(sam, _own_names(sam))

    def tensors(self, sam: Sam) -> dict[str, Tensor]:
        """What to exchange in the SAM, by name."""
        low = {
            name: weight.detach() + self.up[key] @ self.down[key]
            for name, weight in _matrices(sam)
            for key in [name.replace(".", "/")]
        }
        return low | by_name(self.own)

    def prompted(
        self, embedding: tuple[Tensor, ...], points: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        """The embedding of each prompt's image, with the prompt's distance maps added.

        Parameters
        ----------
        embedding
            Of N images, or of one that all prompts are for.
        points, labels
            NxPx2 model pixels (x, y) and NxP SAM labels: 1 object, 0 background, 2 and 3 a box's
            corners, -1 none.
        """
        image, quarter, half = embedding
        maps = distance_maps(points, labels, (half.shape[-2], half.shape[-1]))
        coarse = self.coarse(
            functional.adaptive_avg_pool2d(maps, (image.shape[-2], image.shape[-1]))
        )
        return image + coarse, quarter, half + self.fine(maps)

    def applied_to(self, sam: Sam) -> Sam:
        """A shallow copy of the SAM that answers clicks; gradients flow into this module."""
        return overlay(sam, self.tensors(sam))


def point_tokens(sam: Sam, points: Tensor, labels: Tensor) -> Tensor:
    """Prompt tokens, NxPx256, as SAM makes them of points and of a box.

    Parameters
    ----------
    points, labels
        As for `ClickDecoder.prompted`.
    """
    encoder = sam.prompt_encoder
    tokens: Tensor = encoder._embed_points(points, labels, pad=False)
    for corner in (2, 3):
        # SAM gives its boxes' corners to a function of their own, which does just this.
        tokens[labels == corner] += encoder.point_embeddings[corner].weight
    return tokens


def distance_maps(points: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
    """How near each pixel is to clicks and to a box, NxMAPSxhxw, values 0 to 1 (-1 outside).

    Three maps for clicks on the object, three for clicks on the background, two for a box.

    Parameters
    ----------
    points, labels
        As for `ClickDecoder.prompted`.
    size
        Of the maps, at half the resolution of the points.
    """
    rows, columns = (
        torch.arange(n, device=points.device, dtype=torch.float32) * 2 + 0.5 for n in size
    )
    points = points.float()
    dy = rows[None, None, :, None] - points[..., 1, None, None]
    dx = columns[None, None, None, :] - points[..., 0, None, None]
    distance = (dy.square() + dx.square()).sqrt()
    maps = []
    for kind in (1, 0):
        missing = (labels != kind)[..., None, None]
        nearest = distance.masked_fill(missing, torch.inf).amin(1)
        maps += [torch.exp(-nearest / reach) for reach in REACHES]
    first, last = (
        (points * (labels == corner)[..., None]).sum(1)[..., None, None] for corner in (2, 3)
    )
    gaps = [columns - first[:, 0], last[:, 0] - columns, rows[:, None] - first[:, 1]]
    gaps.append(last[:, 1] - rows[:, None])
    inside = torch.stack([g.expand(-1, *size) for g in gaps]).amin(0)
    boxed = (labels == 2).any(1)[:, None, None].float()
    maps += [boxed * (inside >= 0).float(), boxed * (inside / REACHES[1]).clamp(-1, 1)]
    return torch.stack(maps, 1)


def _matrices(sam: Sam) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in sam.named_parameters():
        if name.startswith(_TRANSFORMER) and tensor.dim() == 2:
            yield name, tensor


def _own_names(sam: Sam) -> list[str]:
    """Also all vectors of the transformer: biases and norms are small."""
    return [
        name
        for name, tensor in sam.named_parameters()
        if name.startswith(_OWN) or (name.startswith(_TRANSFORMER) and tensor.dim() == 1)
    ]
