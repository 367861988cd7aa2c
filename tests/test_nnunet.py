"""The real nnU-Net, where it is installed: planned, trained for three steps, and applied."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import bright_discs

from napari_ptsam.baselines.nnunet import NnUnetBaseline

paths: Any = pytest.importorskip("nnunetv2.paths", reason="nnU-Net is not installed")

BRIEF = """
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class BriefTrainer(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.num_val_iterations_per_epoch = 1
        self.num_iterations_per_epoch = 3
"""


@pytest.mark.skipif(
    not hasattr(paths, "nnUNet_extTrainer") or shutil.which("nnUNetv2_train") is None,
    reason="this nnU-Net takes no trainers from elsewhere, or its commands are not on the path",
)
@pytest.mark.filterwarnings("default")  # of nnU-Net's own imports
def test_the_real_nnunet_is_planned_trained_and_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "brief.py").write_text(BRIEF)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "trainers"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    examples = bright_discs(4, radius=16)
    images, masks = [e.image for e in examples], [e.mask for e in examples]
    baseline = NnUnetBaseline(tmp_path / "work", trainer="BriefTrainer", device="cpu")
    assert baseline.missing is None
    predict = baseline.fit(images, masks, seed=0)
    probability = predict(images[0])
    assert probability.shape == masks[0].shape
    assert (probability >= 0).all()
    assert (probability <= 1).all()
    planned = json.loads(
        next((tmp_path / "work" / "preprocessed").rglob("nnUNetPlans.json")).read_text()
    )
    widths = planned["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"]
    assert predict.parameters is not None
    # The widest stage alone has as many.
    assert predict.parameters > 9 * max(widths) * widths[-2]
    assert predict.nbytes is not None
    assert predict.nbytes > 4 * predict.parameters
    assert np.isfinite(probability).all()
