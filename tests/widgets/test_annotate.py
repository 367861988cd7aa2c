"""The Annotate step, as a user goes through it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image
from napari.utils.notifications import notification_manager
from numpy.typing import NDArray
from PIL import Image as Picture
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QPoint
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QToolTip

from napari_ptsam._widgets.annotate import AnnotateSection
from napari_ptsam._widgets.choices import LayerChoice
from napari_ptsam._widgets.layers import plane_index
from napari_ptsam._widgets.state import PluginState

if TYPE_CHECKING:
    from napari_ptsam.backbones import Backbone


@pytest.fixture
def section(windowless: ViewerModel, qtbot: QtBot) -> Iterator[AnnotateSection]:
    state = PluginState(windowless)
    section = AnnotateSection(state)
    qtbot.addWidget(section)
    yield section
    state.close()


@pytest.fixture
def painting(
    section: AnnotateSection, windowless: ViewerModel, discs: NDArray[np.uint8]
) -> AnnotateSection:
    windowless.add_image(discs, name="discs", scale=(3, 0.5, 0.5))
    section.new_labels.click()
    return section


def labels_of(section: AnnotateSection) -> Any:
    return section._annotations.labels


def entries(section: AnnotateSection) -> list[str]:
    return [section.planes.item(row).text() for row in range(section.planes.count())]


def test_without_an_image_the_step_says_what_to_do(section: AnnotateSection) -> None:
    assert "Open an image" in section.hint.text()
    for button in (section.new_labels, section.suggest, section.part, section.load_masks):
        assert not button.isEnabled()


def test_the_first_image_is_chosen_and_one_click_gives_labels_to_paint(
    section: AnnotateSection, windowless: ViewerModel, discs: NDArray[np.uint8]
) -> None:
    layer = windowless.add_image(discs, scale=(3, 0.5, 0.5), translate=(1, 2, 3))
    assert section.image.layer is layer
    assert "New" in section.hint.text()
    section.new_labels.click()
    labels = labels_of(section)
    assert labels.data.shape == discs.shape
    assert np.array_equal(labels.scale, layer.scale)
    assert np.array_equal(labels.translate, layer.translate)
    assert windowless.layers.selection.active is labels
    assert labels.mode == "paint"


def test_labels_that_come_with_the_image_are_taken(
    section: AnnotateSection, windowless: ViewerModel, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    windowless.add_image(discs)
    windowless.add_labels(np.ones((3, 64, 64), int), name="does not fit")
    windowless.add_labels(
        np.ones(discs.shape, int), name="computed", metadata={"napari-ptsam": True}
    )
    assert section.labels.layer is None
    fitting = windowless.add_labels((discs > 100).astype(int))
    assert section.labels.layer is fitting
    qtbot.waitUntil(lambda: section.planes.count() == 6)


def test_the_counter_and_the_list_follow_the_brush(
    painting: AnnotateSection, windowless: ViewerModel, qtbot: QtBot
) -> None:
    assert "<b>0 of 6</b>" in painting.counter.text()
    labels_of(painting).paint((2, 30, 30), 1)
    labels_of(painting).paint((4, 30, 30), 1)
    qtbot.waitUntil(lambda: "<b>2 of 6</b>" in painting.counter.text())
    assert entries(painting) == ["Plane 2", "Plane 4"]
    painting.planes.itemClicked.emit(painting.planes.item(1))
    assert plane_index(windowless, labels_of(painting)) == 4
    labels_of(painting).undo()
    qtbot.waitUntil(lambda: entries(painting) == ["Plane 2"])


def test_a_stroke_on_a_listed_plane_leaves_the_list_alone(
    painting: AnnotateSection, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels_of(painting).paint((2, 30, 30), 1)
    qtbot.waitUntil(lambda: entries(painting) == ["Plane 2"])
    filled: list[Any] = []
    monkeypatch.setattr(painting, "_fill_list", lambda *names: filled.append(names))
    labels_of(painting).paint((2, 10, 10), 1)
    painting.refresh()
    assert not filled
    labels_of(painting).paint((3, 10, 10), 1)
    qtbot.waitUntil(lambda: bool(filled))


def test_the_list_shows_the_plane_in_view(
    painting: AnnotateSection, windowless: ViewerModel, qtbot: QtBot
) -> None:
    for plane in (1, 4):
        labels_of(painting).paint((plane, 30, 30), 1)
    qtbot.waitUntil(lambda: len(entries(painting)) == 2)
    for plane, selected in ((4, ["Plane 4"]), (2, []), (1, ["Plane 1"])):
        windowless.dims.set_point(0, plane * 3)
        assert [item.text() for item in painting.planes.selectedItems()] == selected


def test_the_number_of_the_label_is_asked_for_only_where_one_is_learned(
    painting: AnnotateSection,
) -> None:
    assert not painting.label.isEnabled()
    painting.one_label.click()
    assert painting.label.isEnabled()
    assert painting._annotations.label == 1
    painting.one_label.click()
    assert not painting.label.isEnabled()


def test_this_plane_has_no_object_is_for_the_plane_in_view(
    painting: AnnotateSection, windowless: ViewerModel, qtbot: QtBot
) -> None:
    windowless.dims.set_point(0, 5 * 3)
    painting.empty.click()
    assert entries(painting) == ["Plane 5: no object"]
    windowless.dims.set_point(0, 0)
    assert not painting.empty.isChecked()
    windowless.dims.set_point(0, 5 * 3)
    assert painting.empty.isChecked()
    labels_of(painting).paint((5, 30, 30), 1)
    qtbot.waitUntil(lambda: entries(painting) == ["Plane 5"])
    assert not painting.empty.isEnabled()


def test_next_plane_goes_where_nothing_was_annotated(
    painting: AnnotateSection, windowless: ViewerModel
) -> None:
    labels_of(painting).paint((0, 30, 30), 1)
    painting.suggest.click()
    assert plane_index(windowless, labels_of(painting)) == 5


def test_masks_are_imported_from_a_stack_and_undone(
    painting: AnnotateSection, tmp_path: Path, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    masks = (discs > 100).astype(np.uint8)
    masks[3:] = 0
    tifffile.imwrite(tmp_path / "masks.tif", masks)
    painting.import_masks(tmp_path / "masks.tif")
    qtbot.waitUntil(lambda: len(entries(painting)) == 3)
    assert (labels_of(painting).data == masks).all()
    labels_of(painting).undo()
    qtbot.waitUntil(lambda: len(entries(painting)) == 2)


def test_a_single_mask_goes_to_the_plane_in_view(
    painting: AnnotateSection,
    windowless: ViewerModel,
    tmp_path: Path,
    discs: NDArray[np.uint8],
    qtbot: QtBot,
) -> None:
    Picture.fromarray(discs[4] > 100).save(tmp_path / "mask.png")
    windowless.dims.set_point(0, 4 * 3)
    painting.import_masks(tmp_path / "mask.png")
    qtbot.waitUntil(lambda: entries(painting) == ["Plane 4"])


def test_masks_of_another_size_or_number_are_refused_in_words(
    painting: AnnotateSection, tmp_path: Path, qtbot: QtBot
) -> None:
    told: list[str] = []
    keep = notification_manager.notification_ready.connect(lambda n: told.append(n.message))
    tifffile.imwrite(tmp_path / "few.tif", np.ones((5, 64, 64), np.uint8))
    painting.import_masks(tmp_path / "few.tif")
    qtbot.waitUntil(lambda: len(told) == 1)
    tifffile.imwrite(tmp_path / "small.tif", np.ones((6, 32, 32), np.uint8))
    painting.import_masks(tmp_path / "small.tif")
    qtbot.waitUntil(lambda: len(told) == 2)
    notification_manager.notification_ready.disconnect(keep)
    assert "5 masks, but the image has 6 planes" in told[0]
    assert "32 x 32" in told[1]
    assert painting.load_masks.isEnabled()
    assert not labels_of(painting).data.any()


def test_a_prediction_is_a_start_that_undo_takes_back(
    painting: AnnotateSection, tiny_backbone_loaded: Backbone, qtbot: QtBot
) -> None:
    from napari_ptsam.specialist import Specialist

    assert painting.predict.isHidden()
    discs = painting._annotations.image.data
    specialist = Specialist.train(
        discs, (discs > 100).astype(int), backbone=tiny_backbone_loaded, steps=2, preset="quick"
    )
    specialist.threshold = 0.3
    painting._state.add_specialist(specialist, "discs")
    assert not painting.predict.isHidden()
    plane = painting._annotations.plane_in_view()
    expected = specialist.predict(discs[plane]).mask
    before = labels_of(painting).data[plane].copy()
    painting.predict.click()
    assert not painting.predict.isEnabled()
    assert "Predicting" in painting.why.text()
    qtbot.waitUntil(lambda: painting.status.text() != "")
    assert (labels_of(painting).data[plane] == expected).all()
    if expected.any():
        labels_of(painting).undo()
        assert (labels_of(painting).data[plane] == before).all()


def test_channels_are_asked_for_only_where_there_may_be_some(
    section: AnnotateSection, windowless: ViewerModel, discs: NDArray[np.uint8]
) -> None:
    windowless.add_image(np.zeros((20, 32, 32)), name="stack")
    assert section.channels.isHidden()
    layer = windowless.add_image(np.zeros((5, 2, 32, 32)), name="two channels")
    section._on_image(layer)
    assert not section.channels.isHidden()
    assert section.channels.channel.isHidden()
    section.channels.axis.setCurrentIndex(section.channels.axis.findData(1))
    section.channels.axis.activated.emit(section.channels.axis.currentIndex())
    section.new_labels.click()
    assert "channel" in section._annotations.missing()
    section.channels.channel.setCurrentIndex(section.channels.channel.findData(1))
    section.channels.channel.activated.emit(2)
    assert section._annotations.channel == 1
    assert len(section._annotations.labels.data) == 5


def test_an_rgb_picture_offers_its_colours(
    section: AnnotateSection, windowless: ViewerModel
) -> None:
    windowless.add_image(np.zeros((32, 40, 3), np.uint8), rgb=True)
    texts = [section.channels.channel.itemText(i) for i in range(4)]
    assert texts == ["all (colour)", "red only", "green only", "blue only"]
    section.new_labels.click()
    assert labels_of(section).data.shape == (32, 40)


def test_renaming_and_removing_layers_keeps_the_lists_right(
    painting: AnnotateSection, windowless: ViewerModel
) -> None:
    painting._annotations.image.name = "new name"
    assert painting.image.currentText() == "new name"
    windowless.layers.remove(labels_of(painting))
    assert painting.labels.layer is None
    assert "New" in painting.hint.text()
    windowless.layers.clear()
    assert "Open an image" in painting.hint.text()


def test_every_control_has_a_tooltip_and_is_reached_by_the_keyboard(
    painting: AnnotateSection,
) -> None:
    from qtpy.QtCore import Qt

    controls = [*painting.findChildren(QAbstractButton), *painting.findChildren(QComboBox)]
    assert len(controls) > 8
    for control in controls:
        if type(control).__name__ == "QToolButton":
            continue
        assert control.toolTip(), control
        assert control.focusPolicy() & Qt.FocusPolicy.TabFocus


def test_the_step_fits_into_300_pixels(painting: AnnotateSection) -> None:
    assert painting.minimumSizeHint().width() <= 280


def test_a_long_layer_name_is_told_in_full(windowless: ViewerModel, qtbot: QtBot) -> None:
    name = "deconvolved stack of the second experiment, left hemisphere, <channel 2>"
    windowless.add_image(np.zeros((4, 4)), name=name)
    choice = LayerChoice(windowless, Image, "none")
    choice.setToolTip("The image.")
    choice.setFixedWidth(120)
    qtbot.addWidget(choice)
    choice.setCurrentIndex(0)
    choice.show()
    QApplication.sendEvent(choice, QHelpEvent(QEvent.Type.ToolTip, QPoint(5, 5), QPoint(5, 5)))
    assert QToolTip.text() == f"<b>{escape(name)}</b><br>The image."
    # The end tells layers of one file apart.
    assert len(choice.shown_name()) < len(name)
    begin, _, end = choice.shown_name().partition("…")
    assert begin
    assert name.startswith(begin)
    assert end
    assert name.endswith(end)
    choice.release()
