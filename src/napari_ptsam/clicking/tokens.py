"""Clicks and boxes to prompt tokens, through SAM's own prompt encoder.

Coordinates are those of a view: (x, y) in model pixels, 0 being the centre of the first one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_ptsam.backbones import Backbone
from napari_ptsam.clicking.plane import Seen
from napari_ptsam.clicking.prompt import ClickPrompt

NOTHING, BACKGROUND, OBJECT, FIRST_CORNER, LAST_CORNER = -1, 0, 1, 2, 3
"""SAM's kinds of points; `NOTHING` is its "not a point"."""

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
    encoder = backbone.clicking.prompt_encoder
    tokens: Tensor = encoder._embed_points(points, kinds, pad=False)
    for kind in (FIRST_CORNER, LAST_CORNER):
        # SAM gives its boxes' corners to a function of their own, which does just this.
        tokens[kinds == kind] += encoder.point_embeddings[kind].weight
    return tokens


def _least_tokens(backbone: Backbone) -> int:
    return PRETRAINED_TOKENS if backbone.architecture == "embedded" else 0


def tokens_in_view(backbone: Backbone, prompt: ClickPrompt, seen: Seen) -> Tensor:
    """Tokens of one prompt, 1xnx256, as seen in a view of the plane.

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
    return prompt_tokens(
        backbone, points[None].to(backbone.device), torch.tensor([kinds], device=backbone.device)
    )
