"""The benchmark of clicks counts actions and draws its table as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import disc

from benchmarks import clicks
from benchmarks.click_actions import clicks_needed, corners_needed
from benchmarks.record import RESULTS
from napari_ptsam.clicking import ClickPrompt, EmbeddedPlane
from napari_ptsam.clicking.answers import ClickAnswer

DOCS = Path(__file__).parents[1] / "docs" / "clicks.md"


def test_a_square_is_painted_with_four_corners_and_a_disc_with_more() -> None:
    square = np.zeros((40, 40), bool)
    square[8:30, 8:30] = True
    assert corners_needed(square) <= 4
    star = disc((60, 60), (30, 30), 6)
    star[28:33, 4:57] = star[4:57, 28:33] = True
    assert corners_needed(star) > corners_needed(disc((60, 60), (30, 30), 20)) >= 4


class Obedient:
    """Answers right once it was told twice."""

    def __init__(self, truth: Any, after: int) -> None:
        self.truth, self.after = truth, after

    def answer(self, _: EmbeddedPlane, prompt: ClickPrompt) -> ClickAnswer:
        mask = self.truth if len(prompt.clicks) >= self.after else self.truth & False
        everywhere = slice(0, 60), slice(0, 60)
        return ClickAnswer(mask, mask.astype(np.float32), 0.5, 0.0, everywhere)


def test_clicks_are_counted_until_the_object_is_done() -> None:
    truth = disc((60, 60), (30, 30), 9)
    plane: Any = None
    for after, wanted in ((1, 1), (3, 3), (11, None)):
        clicker: Any = Obedient(truth, after)
        assert clicks_needed(clicker, plane, truth) == wanted


def test_the_table_has_means_and_their_sd_over_seeds() -> None:
    cell = {"iou_centre": 0.5, "boundary_f_centre": 0.6, "iou_random": 0.4}
    cells = {
        "emps/plain": cell | {"spread_sd": 0.1},
        "emps/plm/n16/seed0": cell | {"iou_centre": 0.7},
        "emps/plm/n16/seed1": cell | {"iou_centre": 0.8},
    }
    lines = clicks.table(cells).splitlines()
    assert lines[2] == "| emps, plain SAM | 50.0 | 60.0 | 40.0 | 10.0 |"
    assert lines[3] == "| emps, PLM, 16 images | 75.0 ± 7.1 | 60.0 ± 0.0 | 40.0 ± 0.0 | - |"


def test_the_documentation_shows_what_was_measured() -> None:
    results = RESULTS / "clicks.json"
    if not results.is_file():
        pytest.skip("the benchmark of clicks has not run")
    assert clicks.table(json.loads(results.read_text())["cells"]) in DOCS.read_text()
