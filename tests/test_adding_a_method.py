"""The method in docs/adding-a-method.md works as it is printed there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import bright_discs

from napari_ptsam.backbones import load_backbone
from napari_ptsam.backbones.checkpoint import state_identity
from napari_ptsam.errors import InputError
from napari_ptsam.methods import METHODS, Method
from napari_ptsam.specialist import Specialist

PAGE = Path(__file__).parents[1] / "docs" / "adding-a-method.md"


@pytest.fixture
def offset(monkeypatch: pytest.MonkeyPatch) -> type[Method]:
    """The method of the page, entered among the others."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module = types.ModuleType("offset")
    monkeypatch.setitem(sys.modules, "offset", module)
    exec(compile(code, str(PAGE), "exec"), vars(module))
    method: type[Method] = module.Offset
    monkeypatch.setitem(METHODS, method.name, method)
    return method


def test_the_method_of_the_page_is_trained_saved_and_loaded(
    offset: type[Method], tiny_backbone: Path, tmp_path: Path
) -> None:
    examples = bright_discs(3)
    images = np.stack([e.image[..., 0] for e in examples]).astype(np.uint8)
    masks = np.stack([e.mask for e in examples]).astype(np.uint8)
    backbone = load_backbone(tiny_backbone)
    before = state_identity(backbone.sam.state_dict())
    options: dict[str, Any] = {"preset": "quick", "steps": 12, "scale": "fit"}
    losses: list[float] = []
    trained = Specialist.train(
        images,
        masks,
        backbone=backbone,
        method="offset",
        method_settings={"spread": 0.01},
        on_step=lambda step: losses.append(step.loss),
        **options,
    )
    losses = [loss for loss in losses if np.isfinite(loss)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert trained.trainable_parameters == 256
    assert state_identity(backbone.sam.state_dict()) == before
    loaded = Specialist.load(trained.save(tmp_path / "x"), backbone=backbone)
    assert isinstance(loaded.method, offset)
    np.testing.assert_array_equal(
        trained.predict(images[0]).probability, loaded.predict(images[0]).probability
    )


def test_the_settings_of_the_page_check_themselves(
    offset: type[Method], tiny_backbone: Path
) -> None:
    with pytest.raises(InputError, match=r"0 or more, not -1"):
        offset.build({"spread": -1}, load_backbone(tiny_backbone), 0)
