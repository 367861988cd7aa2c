"""What a report says of results: means, spreads, gains, findings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_ptsam.benchmark.config import read_config
from napari_ptsam.benchmark.findings import find_all
from napari_ptsam.benchmark.plots import draw_curves
from napari_ptsam.benchmark.report import write_report
from napari_ptsam.benchmark.results import Results, Status
from napari_ptsam.benchmark.tables import SCORES, Figures, Spread

STUDY = """
title = "t"
backbone = "embedded"
sizes = [16, 64]
splits = 3
seeds = [0, 1]

[[data]]
name = "a"
folder = "a"

[[methods]]
name = "md"
method = "ptsam"
family = "PTSAM"

[[methods]]
name = "both"
method = "ptsam"
settings = { encoder_prompts = 8 }
family = "PTSAM"

[[methods]]
name = "lora"
method = "lora"
family = "LoRA"

[[methods]]
name = "lora-both"
method = "lora"
settings = { encoder = true }
family = "LoRA"

[[methods]]
name = "md-16"
method = "ptsam"
settings = { decoder_prompts = 16 }
sizes = [16]

[[methods]]
name = "md-long"
method = "ptsam"
steps = 9
sizes = [16]
longer_than = "md"
"""

# Dice of split 0 by method and size; the paper's findings hold.
AS_IN_THE_PAPER = {
    "md": (0.85, 0.87), "both": (0.90, 0.91), "lora": (0.84, 0.88), "lora-both": (0.72, 0.88),
    "md-16": (0.851, 0.0), "md-long": (0.86, 0.0),
}  # fmt: skip

Make = Callable[..., Figures]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Figures of a study in which each split is a point better than the one before."""
    path = tmp_path / "t.toml"
    path.write_text(STUDY)
    config = read_config(path)

    def make(
        dices: dict[str, tuple[float, float]], losses: dict[str, float] | None = None
    ) -> Figures:
        losses = losses or {}
        results = Results(config, tmp_path / "out")
        for cell in config.cells():
            dice = dices[cell.method][cell.size == 64] + 0.01 * cell.split
            dice += 0.002 * (2 * cell.seed - 1)  # seeds differ, and their mean does not
            results.write(
                cell, None, Status.DONE, parameters=2048, curve=[[1, 0.5]], images={},
                tunes_encoder="both" in cell.method, train_seconds=4.0, seconds_per_image=0.5,
                final_loss=losses.get(cell.method, 0.5),
                scores=dict.fromkeys(SCORES, dice) | {"n": 3},
            )  # fmt: skip
        return Figures(results, {"a": None})

    return make


def test_a_score_is_the_mean_of_seeds_and_its_sd_that_of_splits(made: Make) -> None:
    figures = made(AS_IN_THE_PAPER)
    assert figures.score("a", "md", 16) == pytest.approx([85.0, 86.0, 87.0])
    spread = figures.spread("a", "md", 16)
    assert spread.mean == pytest.approx(86.0)
    assert spread.sd == pytest.approx(1.0)  # n - 1; with n it were 0.82
    assert spread.text() == "86.0 ± 1.0"


def test_a_single_split_has_no_spread() -> None:
    assert Spread.of([50.0]) == (50.0, None, 1)
    assert Spread.of([50.0]).text() == "50.0"
    assert Spread.of([]) is None
    assert math.isclose(Spread.of([1.0, 3.0]).sd, math.sqrt(2))


def test_a_gain_is_taken_split_by_split(made: Make) -> None:
    gain = made(AS_IN_THE_PAPER).gain("a", "md", "both", 16)
    assert gain.mean == pytest.approx(5.0)
    assert gain.sd == pytest.approx(0.0, abs=1e-9)


def test_a_curve_that_was_broken_off_is_not_drawn(made: Make) -> None:
    pytest.importorskip("matplotlib")
    config = (figures := made(AS_IN_THE_PAPER)).config
    results = Results(config, figures.output)
    for cell in config.cells():
        if cell.split == 0:
            path = results.path(cell)
            found = json.loads(path.read_text()) | {"curve": [[1, 0.9]], "resumed": True}
            path.write_text(json.dumps(found))
    (axis,) = draw_curves(Figures(results, {"a": None})).axes
    assert {float(line.get_ydata()[0]) for line in axis.get_lines()} == {0.5}


def verdicts(figures: Figures) -> list[str]:
    return [finding.verdict for finding in find_all(figures)]


def test_the_papers_findings_are_recognised(made: Make) -> None:
    assert verdicts(made(AS_IN_THE_PAPER)) == ["holds", "holds", "holds", "holds"]


def test_what_learned_less_does_not_overfit(made: Make) -> None:
    assert verdicts(made(AS_IN_THE_PAPER, {"lora-both": 0.4}))[2] == "holds"
    assert verdicts(made(AS_IN_THE_PAPER, {"lora-both": 0.6}))[2] == "does not hold"


def test_other_results_refute_them(made: Make) -> None:
    other = AS_IN_THE_PAPER | {
        "both": (0.80, 0.92), "lora-both": (0.86, 0.86), "md-16": (0.87, 0.0), "lora": (0.84, 0.85),
    }  # fmt: skip
    assert verdicts(made(other)) == [
        "holds in part", "does not hold", "does not hold", "does not hold",
    ]  # fmt: skip


def test_what_was_not_run_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(STUDY)
    results = Results(read_config(tmp_path / "t.toml"), tmp_path / "out")
    figures = Figures(results, {"a": None})
    assert verdicts(figures) == ["not tested"] * 4


def test_more_steps_are_compared_with_fewer_in_the_report(made: Make) -> None:
    figures = made(AS_IN_THE_PAPER)
    results = Results(figures.config, figures.output)
    text = write_report(results, {"a": None}, {}).read_text()
    assert "| md-long | md | a | 16 | 1.0 ± 0.0 |" in text
    assert "| both | **91.0 ± 1.0** | **92.0 ± 1.0** |" in text
    assert "| md-16 | 86.1 ± 1.0 |" in text
    assert "(a) Encoder prompts improve on decoder prompts alone.** Here: **holds**" in text


def test_prompts_are_counted_from_settings(made: Make) -> None:
    counts = made(AS_IN_THE_PAPER).prompt_counts()
    assert counts == {"decoder": {8: "md", 16: "md-16"}, "encoder": {8: "both"}}


def test_numbers_of_prompts_are_compared_where_all_were_tried(made: Make) -> None:
    figures = made(AS_IN_THE_PAPER)
    path = figures.output / "cells" / "a" / "md-16" / "n16-split2-seed0.json"
    path.unlink()
    path.with_name("n16-split2-seed1.json").unlink()
    figures = Figures(Results(figures.config, figures.output), {"a": None})
    series = figures.by_prompts()
    assert list(series) == ["decoder"]  # of encoder prompts there is one number alone
    assert series["decoder"].data == ("a",)
    # Without the third split, which 16 prompts lack, and which is a point above the second.
    assert series["decoder"].dice == pytest.approx({8: 85.5, 16: 85.6})
