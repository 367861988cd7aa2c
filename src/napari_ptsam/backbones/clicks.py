"""The embedded backbone's way to answer clicks and boxes.

Its mask decoder is shaped by prompts that stand for a whole task; clicks on single objects need
another one. That differs from it by matrices of low rank (LoRA, arXiv 2106.09685) in the
transformer, and by own copies of the parts that only the first mask uses. Clicks and boxes also
reach it as maps of the distance to them, as in other click segmenters (RITM, arXiv 2102.06583),
and as maps of the likeness to what was clicked, as an object is often of one look. Both take SAM's
own way for dense prompts: they are added to the image embedding. Specialists without clicks never
see any of this: for them the decoder is what it was.
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

SPREADS = (0.3, 1.0)
"""Squared differences of features over which the likeness to a click falls to a third. Features
have a variance of 1 in each image, so between two pixels taken at random it is 2."""

LEVELS = 3
"""Of an embedding."""

REACHED = 96
"""Pixels, at a quarter of the input's resolution, that a connection can be long."""

MAPS = 2 * len(REACHES) + 2 + 2 * len(SPREADS) * LEVELS + 2
"""Nearness and likeness to clicks of each sign, two for a box, and two of connections."""

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
            self.bent = nn.Sequential(
                nn.Conv2d(MAPS, FINE_WIDTH, 1), nn.GELU(), nn.Conv2d(FINE_WIDTH, FINE_WIDTH, 1)
            )
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
        """The embedding of each prompt's image, with the maps of the prompt added.

        Parameters
        ----------
        embedding
            Of N images, or of one that all prompts are for.
        points, labels
            NxPx2 model pixels (x, y) and NxP SAM labels: 1 object, 0 background, 2 and 3 a box's
            corners, -1 none.
        """
        image, quarter, half = embedding
        near = distance_maps(points, labels, (half.shape[-2], half.shape[-1]))
        maps = torch.cat([near, likeness_maps(embedding, points, labels)], 1)
        coarse = self.coarse(
            functional.adaptive_avg_pool2d(maps, (image.shape[-2], image.shape[-1]))
        )
        return image + coarse, quarter, half + self.fine(maps) + self.bent(maps)

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
    """How near each pixel is to clicks and to a box, Nx8xhxw, values 0 to 1 (-1 outside).

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


def likeness_maps(embedding: tuple[Tensor, ...], points: Tensor, labels: Tensor) -> Tensor:
    """How like each pixel is to what was clicked, Nx14xhxw, values 0 to 1; h, w the finest level's.

    For each level of the embedding, coarsest first, and each of `SPREADS`: likeness to the nearest
    in features of the clicks on the object, or to the middle of the box; then of those on the
    background. 0 where there is no such click. Last, for the two finer levels, how like a pixel is
    *connected* to a click on the object: the least likeness on the best way there.

    Parameters
    ----------
    embedding, points, labels
        As for `ClickDecoder.prompted`.
    """
    height, width = embedding[-1].shape[-2:]
    points = points.float()
    middle = _middle_of_box(points, labels)
    boxed = torch.where((labels == 2).any(1), 1, -1)[:, None]
    points, labels = torch.cat([points, middle[:, None]], 1), torch.cat([labels, boxed], 1)
    # The finest level has half the resolution of the points.
    places = ((points + 0.5) / torch.tensor([width, height], device=points.device) - 1)[:, None]
    spreads = torch.tensor(SPREADS, device=points.device)[:, None, None]
    maps, crossed = [], []
    # In 16 bits little would be left of a difference of squares.
    with torch.autocast(points.device.type, enabled=False):
        for level in embedding:
            difference = _differences(level.float(), places)
            for kind in (1, 0):
                missing = (labels != kind)[..., None, None]
                nearest = difference.masked_fill(missing, torch.inf).amin(1, keepdim=True)
                likeness = torch.exp(-nearest / spreads)
                maps.append(functional.interpolate(likeness, (height, width), mode="bilinear"))
                if kind == 1 and level is not embedding[0]:
                    crossed.append(_at_size(likeness[:, -1:], embedding[1].shape[-1]))
        connected = _connected(torch.cat(crossed, 1), points, labels)
        maps.append(functional.interpolate(connected, (height, width), mode="bilinear"))
    return torch.cat(maps, 1)


def _at_size(likeness: Tensor, side: int) -> Tensor:
    """The least of each pixel's parts, so that thin borders stay closed."""
    return likeness if likeness.shape[-1] == side else -functional.max_pool2d(-likeness, 2)


def _connected(likeness: Tensor, points: Tensor, labels: Tensor) -> Tensor:
    """The least likeness on the best way, straight steps alone, to a click on the object.

    Parameters
    ----------
    likeness
        NxLxhxw, at a quarter of the points' resolution.
    points, labels
        As for `ClickDecoder.prompted`.
    """
    height, width = likeness.shape[-2:]
    rows, columns = (torch.arange(n, device=points.device) * 4 + 1.5 for n in (height, width))
    far = torch.maximum(
        (rows[:, None] - points[..., 1, None, None]).abs(),
        (columns[None, :] - points[..., 0, None, None]).abs(),
    )
    clicked = (far <= 4).logical_and((labels == 1)[..., None, None]).any(1, keepdim=True)
    # With a margin of zeros, so that every step is one of slices.
    found = functional.pad(torch.where(clicked, likeness, 0.0), (1, 1, 1, 1))
    middle = found[..., 1:-1, 1:-1]
    for _ in range(REACHED):
        best = torch.maximum(found[..., :-2, 1:-1], found[..., 2:, 1:-1])
        torch.maximum(best, found[..., 1:-1, :-2], out=best)
        torch.maximum(best, found[..., 1:-1, 2:], out=best)
        torch.maximum(best, middle, out=best)
        middle.copy_(torch.minimum(best, likeness, out=best))
    return middle


def _differences(features: Tensor, places: Tensor) -> Tensor:
    """Mean squared difference of every pixel's features to those at P places, NxPxhxw.

    Parameters
    ----------
    features
        NxCxhxw, or 1xCxhxw for all.
    places
        Nx1xPx2 (x, y), -1 to 1 from border to border.
    """
    mean = features.mean((2, 3), keepdim=True)
    flat = features - mean
    # Five times as quick as `std_mean`.
    variance = flat.square().mean((2, 3), keepdim=True)
    flat = flat * ((variance + 1e-6) * features.shape[1]).rsqrt()
    # One pixel of the finest level is little to go by.
    height, width = features.shape[2:]
    pixel = 1 / torch.tensor([width, height], device=places.device)
    step = torch.tensor([-2.0, 0.0, 2.0], device=places.device)
    around = torch.stack(torch.meshgrid(step, step, indexing="xy"), -1).reshape(1, 1, 9, 2) * pixel
    near = places.transpose(1, 2) + around
    # To the middle of the outermost pixels: not every device can continue a border by itself.
    near = torch.minimum(torch.maximum(near, pixel - 1), 1 - pixel)
    each = flat.expand(len(places), -1, -1, -1)
    chosen = functional.grid_sample(each, near, align_corners=False)
    chosen = chosen.mean(3).transpose(1, 2)
    flat = flat.flatten(2)
    squares = flat.square().sum(1, keepdim=True) + chosen.square().sum(2, keepdim=True)
    found = (squares - 2 * chosen @ flat).clamp(min=0)
    return found.reshape(*found.shape[:2], height, width)


def _middle_of_box(points: Tensor, labels: Tensor) -> Tensor:
    """Nx2, in model pixels; 0 where there is no box."""
    corners = ((labels == 2) | (labels == 3))[..., None]
    return (points * corners).sum(1) / 2


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
