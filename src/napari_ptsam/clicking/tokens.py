"""Clicks and boxes to prompt tokens, through SAM's own prompt encoder, and on to masks.

Coordinates are those of a view: (x, y) in model pixels, 0 being the centre of the first one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_ptsam.backbones import Backbone, Embedding
from napari_ptsam.backbones.backbone import decode_features
from napari_ptsam.backbones.clicks import point_tokens
from napari_ptsam.backbones.embedded import read_out
from napari_ptsam.clicking.plane import Seen
from napari_ptsam.clicking.prompt import ClickPrompt
from napari_ptsam.methods.plm import Plm

NOTHING, BACKGROUND, OBJECT, FIRST_CORNER, LAST_CORNER = -1, 0, 1, 2, 3
"""SAM's kinds of points; `NOTHING` is its "not a point"."""

PLAIN_MASK = 0
"""SAM's mask for prompts that leave no doubt."""

PRETRAINED_TOKENS = 5
"""The embedded backbone learned to answer so many tokens, the rest being "not a point"."""


def prompt_tokens(backbone: Backbone, points: Tensor, kinds: Tensor) -> Tensor:
    """Tokens of B prompts, each as `segment_anything` makes them of points and of a box.

    On the embedded backbone "not a point" is added up to the number of tokens that it was
    pre-trained with (`pretraining/episodes.py`, `draw_instances`).

    Parameters
    ----------
    points, kinds
        BxTx2 (x, y), and BxT of the five kinds.

    Returns
    -------
    Tensor
        BxTx256, or more tokens.
    """
    missing = max(_least_tokens(backbone) - points.shape[1], 0)
    points, kinds = F.pad(points, (0, 0, 0, missing)), F.pad(kinds, (0, missing), value=NOTHING)
    return point_tokens(backbone.clicking, points, kinds)


def _least_tokens(backbone: Backbone) -> int:
    return PRETRAINED_TOKENS if backbone.architecture == "embedded" else 0


def points_in_view(prompt: ClickPrompt, seen: Seen) -> tuple[Tensor, Tensor]:
    """Points 1xTx2 (x, y) and kinds 1xT of one prompt, as seen in a view of the plane.

    Points without a box are followed by a "not a point", as in SAM.
    """
    places = [(click.y, click.x) for click in prompt.clicks]
    kinds = [OBJECT if click.positive else BACKGROUND for click in prompt.clicks]
    if prompt.box is None:
        places.append((0.0, 0.0))
        kinds.append(NOTHING)
    else:
        box = prompt.box
        places += [(box.top, box.left), (box.bottom, box.right)]
        kinds += [FIRST_CORNER, LAST_CORNER]
    points = torch.tensor([seen.position(y, x)[::-1] for y, x in places], dtype=torch.float32)
    return points[None], torch.tensor([kinds])


def answer_points(
    backbone: Backbone, method: Plm | None, embedding: Embedding, points: Tensor, kinds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What a backbone makes of B prompts on one image; the only way to it, in training and in use.

    Parameters
    ----------
    method
        Moves the prompts' tokens; None for plain SAM.
    embedding
        Of the one image.
    points, kinds
        See `prompt_tokens`.

    Returns
    -------
    tuple
        Logits Bx1xhxw, expected IoU B, and features Bx32xhxw that masks are read from.
    """
    points, kinds = points.to(backbone.device), kinds.to(backbone.device)
    tokens, index = prompt_tokens(backbone, points, kinds), PLAIN_MASK
    if method is not None:
        tokens, index = method.move(backbone, embedding, tokens), method.settings.mask_index
    each = tuple(level.expand(len(tokens), -1, -1, -1) for level in embedding)
    prompted, only = backbone.prompted(each, points, kinds), slice(index, index + 1)
    chosen, quality, features = decode_features(backbone.clicking, prompted, tokens, only)
    if method is not None and method.readout is not None:
        chosen = chosen + read_out(embedding, method.readout[None])
    return chosen.float(), quality[:, 0], features
