"""The page on procedural pictures: its code runs, its pictures are there and small."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from napari_ptsam.synthetic import SceneType, kind, render

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "synthetic.md").read_text(encoding="utf-8")


def test_code_of_the_page_runs() -> None:
    known: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        # Training and napari are tested elsewhere.
        if "Specialist" not in block and "viewer" not in block:
            exec(block.replace("range(16)", "range(2)"), known)
    assert known["mask"].shape == (320, 320)
    assert len(known["training"]) == 2
    assert known["cells"].image.shape == (24, 192, 192)
    style = known["yeast"].style(np.random.default_rng(0))
    scene = render(SceneType(known["yeast"], style), 1, (96, 96))
    assert set(np.unique(scene.kinds)) == {0, kind("cell")}


def test_pictures_of_the_page_are_there_and_small() -> None:
    shown = {DOCS / name for name in re.findall(r"\((images/[^)]+)\)", PAGE)}
    assert shown == set((DOCS / "images").glob("synthetic-*"))
    assert sum(path.stat().st_size for path in shown) < 1_500_000
