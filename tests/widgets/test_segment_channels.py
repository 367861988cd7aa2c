"""Which image and which of its channels the third step and the comparison look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.layers import Image
from segmentable import choose, expected, make_specialist, segment, wait_for

from napari_ptsam._widgets.annotate import AnnotateSection
from napari_ptsam._widgets.channels import channel_in
from napari_ptsam._widgets.choices import LayerChoice
from napari_ptsam._widgets.comparing import Comparison
from napari_ptsam._widgets.layers import RESULT_MARK, image_over, labels_like
from napari_ptsam._widgets.segment import SegmentSection

if TYPE_CHECKING:
    from qtpy.QtWidgets import QComboBox

    from napari_ptsam._widgets.state import PluginState
    from napari_ptsam.backbones import Backbone
    from napari_ptsam.specialist import Specialist

AXES = ("z", "channel", "y", "x")


@pytest.fixture
def section(state: PluginState, qtbot: Any) -> SegmentSection:
    """The step without an image and without a specialist."""
    made = SegmentSection(state)
    qtbot.addWidget(made)
    choose(made, "layer")
    return made


@pytest.fixture
def of_channel(tiny_backbone_loaded: Backbone, discs: Any) -> Any:
    """Makes a specialist that learned on a channel."""

    def made(channel: int | str | None) -> Specialist:
        specialist = make_specialist(
            tiny_backbone_loaded, channels={"axes": None, "channel": channel}
        )
        specialist.threshold = float(np.median(specialist.predict(discs[0]).probability))
        return specialist

    return made


def two_channels(discs: Any) -> Any:
    """ZCYX: the second of two channels holds the discs."""
    return np.stack([255 - discs, discs], 1)


def segment_folder(section: SegmentSection, folder: Path, out: Path, qtbot: Any) -> None:
    choose(section, "folder")
    section.folders.source_edit.setText(str(folder))
    section.folders.target_edit.setText(str(out))
    section.segment()
    wait_for(section, qtbot)


def pick(box: QComboBox, value: object) -> None:
    box.setCurrentIndex(box.findData(value))
    box.activated.emit(box.currentIndex())


@pytest.mark.parametrize("what", ["layer", "selected"])
@pytest.mark.parametrize("channel", [1, "green"])
def test_a_channel_is_asked_of_an_image_that_has_some_only(
    section: SegmentSection,
    state: PluginState,
    discs: Any,
    of_channel: Any,
    qtbot: Any,
    channel: int | str,
    what: str,
) -> None:
    specialist = of_channel(channel)
    state.add_specialist(specialist, "disc")
    state.viewer.add_image(discs, name="grey")
    target = segment(section, qtbot, what)
    assert target.channel is None
    np.testing.assert_array_equal(target.labels.data > 0, expected(specialist, discs))


def test_the_channel_of_the_specialist_is_taken_and_shown(
    section: SegmentSection, state: PluginState, discs: Any, of_channel: Any, qtbot: Any
) -> None:
    state.viewer.add_image(two_channels(discs), axis_labels=AXES)
    assert section.channels.channel.currentData() is None
    specialist = of_channel(1)
    state.add_specialist(specialist, "disc")
    assert section.channels.channel.currentData() == 1
    target = segment(section, qtbot)
    np.testing.assert_array_equal(target.labels.data[:, 0] > 0, expected(specialist, discs))
    # Not yet chosen for the annotated image: the specialist's own stands in there, too.
    state.annotations.image = target.source
    assert section.channels.channel.currentData() == 1
    state.add_specialist(of_channel(0), "other")
    assert section.channels.channel.currentData() == 0


def test_an_axis_that_is_told_to_hold_channels_gives_the_specialists(
    section: SegmentSection, state: PluginState, discs: Any, of_channel: Any
) -> None:
    state.viewer.add_image(two_channels(discs))
    state.add_specialist(of_channel(1), "disc")
    pick(section.channels.axis, 1)
    assert section.channels.channel.currentData() == 1


def test_a_channel_that_is_chosen_here_stays_while_one_paints(
    section: SegmentSection, state: PluginState, discs: Any, of_channel: Any
) -> None:
    annotations = state.annotations
    image = state.viewer.add_image(two_channels(discs), axis_labels=AXES)
    annotations.image = image
    annotations.channel = 0
    state.add_specialist(of_channel(0), "disc")
    assert section.channels.channel.currentData() == 0
    pick(section.channels.channel, 1)
    labels = labels_like(state.viewer, image, "mine")
    annotations.labels = labels
    labels.paint((2, 0, 30, 30), 1)
    assert section.channels.channel.currentData() == 1
    assert section.embed._channel == 1


def test_several_layers_and_a_folder_are_asked_for_a_channel(
    section: SegmentSection,
    state: PluginState,
    discs: Any,
    of_channel: Any,
    qtbot: Any,
    tmp_path: Path,
) -> None:
    specialist = of_channel(None)
    state.add_specialist(specialist, "disc")
    image = state.viewer.add_image(two_channels(discs), axis_labels=AXES)
    grey = state.viewer.add_image(discs, name="grey")
    assert not section.channel.isVisibleTo(section)
    choose(section, "selected")
    assert section.channel.isVisibleTo(section)
    section.channel.setText(" 1 ")
    state.viewer.layers.selection = {image, grey}
    segment(section, qtbot, "selected")
    assert [t.channel for t in section.segmenter.results] == [1, None]
    for target in section.segmenter.results:
        found = target.labels.data.reshape(discs.shape) > 0
        np.testing.assert_array_equal(found, expected(specialist, discs))

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    both = two_channels(discs)
    tifffile.imwrite(folder / "two.ome.tif", both, metadata={"axes": "ZCYX"})
    segment_folder(section, folder, out, qtbot)
    assert section.channel.isVisibleTo(section)
    np.testing.assert_array_equal(tifffile.imread(out / "two.tif") > 0, expected(specialist, discs))


def test_a_folder_of_grey_and_colourful_files_is_read_like_the_training(
    section: SegmentSection,
    state: PluginState,
    discs: Any,
    of_channel: Any,
    qtbot: Any,
    tmp_path: Path,
) -> None:
    specialist = of_channel(1)
    state.add_specialist(specialist, "disc")
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", discs, photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "b.tif", two_channels(discs), metadata={"axes": "ZCYX"}, imagej=True)
    segment_folder(section, folder, out, qtbot)
    for name in ("a.tif", "b.tif"):
        np.testing.assert_array_equal(tifffile.imread(out / name) > 0, expected(specialist, discs))


def test_a_channel_is_named_as_the_list_names_it(discs: Any) -> None:
    colour = Image(np.stack([discs[0]] * 3, -1), rgb=True)
    assert [channel_in(colour, c) for c in (None, "green", 1, "2", 7)] == [
        None,
        "green",
        "green",
        "blue",
        7,
    ]
    several = Image(two_channels(discs), axis_labels=AXES)
    assert [channel_in(several, c) for c in (None, 1, "1", "dapi")] == [None, 1, 1, "dapi"]
    for plain in (Image(discs), Image(discs[:, None], axis_labels=AXES)):
        assert channel_in(plain, 1) is None


def test_a_comparison_asks_grey_images_for_no_channel(
    state: PluginState, discs: Any, of_channel: Any, qtbot: Any
) -> None:
    state.viewer.add_image(discs)
    specialist = of_channel(1)
    entry = state.add_specialist(specialist, "a")
    said: list[str] = []
    Comparison(state).run([entry], said.append)
    qtbot.waitUntil(lambda: bool(said), timeout=30_000)
    shown = state.viewer.dims.current_step[0]
    np.testing.assert_array_equal(
        state.viewer.layers[f"plane {shown}: a"].data > 0, specialist.predict(discs[shown]).mask
    )


# The plugin's own images.


def test_computed_images_are_not_taken_for_the_users(
    section: SegmentSection, state: PluginState, discs: Any, of_channel: Any
) -> None:
    viewer = state.viewer
    state.add_specialist(of_channel(None), "disc")
    first = viewer.add_image(discs, name="A")
    viewer.add_layer(image_over(first, "preview", np.zeros(discs.shape, np.uint8)))
    viewer.layers.remove(first)
    assert section.image.layer is None
    assert "Open an image" in section.note.text()
    second = viewer.add_image(discs, name="B")
    assert section.image.layer is second
    viewer.layers.selection = set(viewer.layers)
    choose(section, "selected")
    assert [image for image, *_ in section.input.layers()] == [second]
    comparison = Comparison(state)
    viewer.layers.selection.active = viewer.layers["preview"]
    assert comparison.image() is second


def test_what_is_annotated_is_an_image_of_the_user(
    state: PluginState, discs: Any, qtbot: Any
) -> None:
    annotate = AnnotateSection(state)
    qtbot.addWidget(annotate)
    first = state.viewer.add_image(discs, name="A")
    assert state.annotations.image is first
    state.viewer.add_layer(image_over(first, "preview", np.zeros(discs.shape, np.uint8)))
    state.viewer.layers.remove(first)
    second = state.viewer.add_image(discs, name="B")
    assert state.annotations.image is second
    assert annotate.image.count() == 1


def test_all_images_that_are_computed_say_so(
    section: SegmentSection, state: PluginState, discs: Any, of_channel: Any, qtbot: Any
) -> None:
    viewer = state.viewer
    given = viewer.add_image(discs)
    entry = state.add_specialist(of_channel(None), "disc")
    section.probability.setChecked(True)
    target = segment(section, qtbot)
    said: list[str] = []
    Comparison(state).run([entry], said.append)
    qtbot.waitUntil(lambda: bool(said), timeout=30_000)
    images = [x for x in viewer.layers if isinstance(x, Image)]
    assert len(images) == 3
    assert target.probability in images
    assert [x for x in images if RESULT_MARK not in x.metadata] == [given]
    choice = LayerChoice(viewer, Image, "none")
    qtbot.addWidget(choice)
    assert choice.count() == 1
    choice.release()
