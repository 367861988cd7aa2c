"""What annotating by clicks costs in user actions, against painting polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import draw, measure

from napari_ptsam.clicking import Click, Clicker, ClickPrompt
from napari_ptsam.clicking.plane import EmbeddedPlane
from napari_ptsam.clicking.prompt import well_inside
from napari_ptsam.clicking.simulate import correction
from napari_ptsam.metrics import iou

DONE = 0.8
"""IoU from which an object counts as annotated."""

MOST_CLICKS = 10
SECONDS_AN_ACTION = 1.3
"""To point at something and click: 1.1 + 0.2 s (Card, Moran and Newell 1980)."""


@dataclass(frozen=True)
class Target:
    """A plane of the test, encoded, and some of its objects."""

    plane: EmbeddedPlane
    ids: NDArray[np.int64]
    chosen: NDArray[np.int64]

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """Of the chosen objects."""
        return (self.ids == number for number in self.chosen)


def clicks_needed(clicker: Clicker, plane: EmbeddedPlane, truth: NDArray[np.bool_]) -> int | None:
    """How many clicks, each correcting the last answer, until an object is done; None if never."""
    clicks: tuple[Click, ...] = (well_inside(truth),)
    for _ in range(MOST_CLICKS):
        answer = clicker.answer(plane, ClickPrompt(clicks))
        if iou(answer.mask, truth) >= DONE:
            return len(clicks)
        further = correction(answer.mask, truth)
        if further is None:
            break
        clicks = (*clicks, further)
    return None


def corners_needed(truth: NDArray[np.bool_]) -> int:
    """Corners of the simplest polygon that an object could be painted with to be done."""
    padded = np.pad(truth, 1)
    outline = max(measure.find_contours(padded.astype(float), 0.5), key=len)
    best = len(outline)
    for tolerance in np.geomspace(0.25, max(truth.shape), 24):
        polygon = measure.approximate_polygon(outline, tolerance)
        if len(polygon) < 4:
            break
        painted = draw.polygon2mask(padded.shape, polygon)
        if iou(painted, padded) < DONE:
            break
        best = len(polygon) - 1  # the last corner is the first
    return best


def actions(clicker: Clicker, targets: Sequence[Target]) -> dict[str, Any]:
    """User actions for each object: clicks and a key to accept, against corners of polygons."""
    clicked, painted, failed, total = [], [], 0, 0
    for target in targets:
        total += len(np.setdiff1d(target.ids, [0]))
        for truth in target.masks():
            corners = corners_needed(truth) + 1  # and the double click that closes it
            clicks = clicks_needed(clicker, target.plane, truth)
            painted.append(corners)
            failed += clicks is None
            # What clicks cannot do is painted after all.
            clicked.append(MOST_CLICKS + corners if clicks is None else clicks + 1)
    return {
        "planes": len(targets),
        "objects_in_planes": total,
        "objects_simulated": len(clicked),
        "not_done_in_10_clicks": failed / len(clicked),
        "actions_per_object_clicking": float(np.mean(clicked)),
        "actions_per_object_painting": float(np.mean(painted)),
        "actions_clicking": round(float(np.mean(clicked)) * total),
        "actions_painting": round(float(np.mean(painted)) * total),
        "minutes_clicking": float(np.mean(clicked)) * total * SECONDS_AN_ACTION / 60,
        "minutes_painting": float(np.mean(painted)) * total * SECONDS_AN_ACTION / 60,
    }
