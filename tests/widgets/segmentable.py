"""A specialist that has learned nothing, and how the third step is used in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_ptsam._widgets.segment import SegmentSection
    from napari_ptsam.backbones import Backbone
    from napari_ptsam.specialist import Specialist


def make_specialist(backbone: Backbone, seed: int = 0, **values: Any) -> Specialist:
    """Of random prompts.

    Parameters
    ----------
    values
        What its metadata say.
    """
    from napari_ptsam.methods import build_method
    from napari_ptsam.normalize import Normalization
    from napari_ptsam.promptfile import PromptMetadata
    from napari_ptsam.specialist import Specialist

    method = build_method("ptsam", {}, backbone, seed)
    metadata = PromptMetadata(
        backbone_name=backbone.name,
        backbone_identity=backbone.identity,
        backbone_architecture=backbone.architecture,
        method=method.name,
        method_settings=method.settings_dict,
        normalization=Normalization().to_dict(),
        working_scale={"mode": "fit"},
        class_name="disc",
        **values,
    )
    return Specialist(method, backbone, metadata)


def choose(section: SegmentSection, what: str) -> None:
    section.what.setCurrentIndex(section.what.findData(what))


def wait_for(section: SegmentSection, qtbot: Any) -> None:
    def over() -> bool:
        return section._state.jobs.running is None and section.segmenter.settled

    qtbot.waitUntil(over, timeout=60_000)


def segment(section: SegmentSection, qtbot: Any, what: str = "layer") -> Any:
    choose(section, what)
    section.segment()
    wait_for(section, qtbot)
    return section.adjust.target


def expected(specialist: Specialist, discs: Any) -> Any:
    return np.stack([specialist.predict(plane).mask for plane in discs])
