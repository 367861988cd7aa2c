"""The third step: planes come in, stop and go on, and follow the sliders without the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from segmentable import choose, expected, make_specialist, segment, wait_for

from napari_ptsam.errors import InputError
from napari_ptsam.objects import split_objects, without_small

if TYPE_CHECKING:
    from napari_ptsam._widgets.segment import SegmentSection
    from napari_ptsam._widgets.state import PluginState
    from napari_ptsam.backbones import Backbone
    from napari_ptsam.specialist import Specialist


@pytest.fixture
def specialist(tiny_backbone_loaded: Backbone, discs: Any) -> Specialist:
    made = make_specialist(tiny_backbone_loaded)
    made.threshold = float(np.median(made.predict(discs[0]).probability))
    return made


@pytest.fixture
def section(state: PluginState, specialist: Specialist, discs: Any, qtbot: Any) -> Any:
    from napari_ptsam._widgets.segment import SegmentSection

    state.viewer.add_image(
        discs,
        name="cells",
        scale=(2, 0.5, 0.5),
        translate=(10, 1, 2),
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
    )
    made = SegmentSection(state)
    qtbot.addWidget(made)
    state.add_specialist(specialist, "disc")
    return made


def test_a_layer_is_segmented_as_the_library_does_and_lies_on_its_image(
    section: SegmentSection, specialist: Specialist, discs: Any, qtbot: Any
) -> None:
    section.probability.setChecked(True)
    target = segment(section, qtbot)
    np.testing.assert_array_equal(target.labels.data > 0, expected(specialist, discs))
    probability = np.stack([specialist.predict(plane).probability for plane in discs])
    np.testing.assert_array_equal(target.probability.data, probability)
    for layer in (target.labels, target.probability):
        for name in ("scale", "translate"):
            np.testing.assert_array_equal(getattr(layer, name), getattr(target.source, name))
        assert (layer.units, layer.axis_labels) == (
            target.source.units,
            target.source.axis_labels,
        )
    assert target.labels.name == "disc: cells"


def picture(discs: Any) -> Any:
    return discs[0]


def colours(discs: Any) -> Any:
    return np.stack([discs[:2], discs[2:4], discs[4:]], -1)


def channels(discs: Any) -> Any:
    """TZCYX: the second of two channels holds the discs."""
    return np.stack([255 - discs, discs], 1).reshape(2, 3, 2, 64, 64)


@pytest.mark.parametrize(
    ("form", "options", "channel"),
    [
        (picture, {}, None),
        (colours, {"rgb": True}, None),
        (channels, {"axis_labels": ("t", "z", "channel", "y", "x")}, 1),
    ],
)
def test_images_of_any_form_are_segmented(
    state: PluginState,
    specialist: Specialist,
    discs: Any,
    qtbot: Any,
    form: Any,
    options: dict[str, Any],
    channel: int | None,
) -> None:
    from napari_ptsam._widgets.segment import SegmentSection

    image = state.viewer.add_image(form(discs), **options)
    section = SegmentSection(state)
    qtbot.addWidget(section)
    state.add_specialist(specialist, "disc")
    if channel is not None:
        box = section.channels.channel
        box.setCurrentIndex(box.findData(channel))
        box.activated.emit(box.currentIndex())
    target = segment(section, qtbot)
    masks = {
        picture: lambda: expected(specialist, discs[:1])[0],
        colours: lambda: expected(specialist, form(discs)),
        channels: lambda: expected(specialist, discs).reshape(2, 3, 1, 64, 64),
    }[form]()
    np.testing.assert_array_equal(target.labels.data > 0, masks)
    assert target.source is image
    if form is channels:
        section.adjust.numbered.setChecked(True)
        section.adjust.through.setCurrentIndex(1)
        wait_for(section, qtbot)
        first = split_objects(masks[0, :, 0])
        np.testing.assert_array_equal(target.labels.data[0, :, 0], first)
        assert target.labels.data[1].max() == first.max() + split_objects(masks[1, :, 0]).max()


def test_the_plane_in_view_alone_is_segmented_and_more_join_its_layer(
    section: SegmentSection, specialist: Specialist, discs: Any, qtbot: Any
) -> None:
    from napari_ptsam._widgets.layers import go_to_plane

    viewer, image = section._state.viewer, section.image.layer
    go_to_plane(viewer, image, 4)
    first = segment(section, qtbot, "plane")
    assert first.result.done() == [4]
    go_to_plane(viewer, image, 1)
    assert segment(section, qtbot, "plane") is first
    masks = expected(specialist, discs)
    masks[[0, 2, 3, 5]] = False
    np.testing.assert_array_equal(first.labels.data > 0, masks)
    assert not section.resume_button.isVisibleTo(section)


def test_all_selected_layers_are_segmented(
    section: SegmentSection, specialist: Specialist, discs: Any, qtbot: Any
) -> None:
    viewer = section._state.viewer
    other = viewer.add_image(discs[:2, :50], name="other")
    viewer.layers.selection = {other, viewer.layers["cells"]}
    segment(section, qtbot, "selected")
    assert [t.source.name for t in section.segmenter.results] == ["cells", "other"]
    for target in section.segmenter.results:
        np.testing.assert_array_equal(
            target.labels.data > 0, expected(specialist, target.source.data)
        )


def test_stop_keeps_what_is_done_and_resume_goes_on(
    section: SegmentSection,
    specialist: Specialist,
    discs: Any,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    predict = type(specialist).predict

    def counted(self: Specialist, image: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            section.segmenter.running.stop()
        return predict(self, image)

    monkeypatch.setattr(type(specialist), "predict", counted)
    target = segment(section, qtbot)
    # napari shows the plane in the middle first, and so does the run.
    assert target.result.done() == [2, 3, 4]
    assert target.missing() == [0, 1, 5]
    assert section.resume_button.isVisibleTo(section)
    assert "3 left" in section.resume_button.text()
    section.resume()
    wait_for(section, qtbot)
    assert len(calls) == 6
    monkeypatch.undo()
    np.testing.assert_array_equal(target.labels.data > 0, expected(specialist, discs))
    assert not section.resume_button.isVisibleTo(section)


def test_threshold_and_size_change_the_result_without_the_network(
    section: SegmentSection,
    specialist: Specialist,
    discs: Any,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = segment(section, qtbot)
    probability = np.stack([specialist.predict(plane).probability for plane in discs])

    def never(*_: Any) -> None:
        raise AssertionError("the network ran")

    monkeypatch.setattr(type(specialist), "predict", never)
    own = section.adjust.threshold.value()
    for percent in (own + 1, own - 1, own):
        section.adjust.threshold.setValue(percent)
        wait_for(section, qtbot)
        wanted = specialist.threshold if percent == own else percent / 100
        np.testing.assert_array_equal(target.labels.data > 0, probability >= wanted)
    section.adjust.minimum_size.setValue(40)
    wait_for(section, qtbot)
    kept = np.stack([without_small(p >= specialist.threshold, 40) for p in probability])
    np.testing.assert_array_equal(target.labels.data > 0, kept)


def test_objects_get_numbers_that_no_other_plane_has(
    section: SegmentSection, specialist: Specialist, discs: Any, qtbot: Any
) -> None:
    target = segment(section, qtbot)
    section.adjust.numbered.setChecked(True)
    wait_for(section, qtbot)
    masks = expected(specialist, discs)
    first = 0
    for plane, mask in zip(target.labels.data, masks, strict=True):
        wanted = split_objects(mask)
        np.testing.assert_array_equal(plane, np.where(wanted > 0, wanted + first, 0))
        first += wanted.max()
    section.adjust.numbered.setChecked(False)
    wait_for(section, qtbot)
    np.testing.assert_array_equal(target.labels.data, masks)


def test_objects_through_planes_have_one_number(
    section: SegmentSection, specialist: Specialist, discs: Any, qtbot: Any
) -> None:
    target = segment(section, qtbot)
    section.adjust.numbered.setChecked(True)
    section.adjust.through.setCurrentIndex(1)
    wait_for(section, qtbot)
    np.testing.assert_array_equal(target.labels.data, split_objects(expected(specialist, discs)))


def test_planes_corrected_by_hand_are_left_as_they_are(
    section: SegmentSection, discs: Any, qtbot: Any
) -> None:
    target = segment(section, qtbot)
    section._state.viewer.dims.set_point(0, 10 + 2 * 2)
    target.labels.data_setitem((np.array([2]), np.array([5]), np.array([6])), 7)
    by_hand = target.labels.data[2].copy()
    assert target.result.edited == {2}
    before = target.labels.data[3].copy()
    section.adjust.threshold.setValue(section.adjust.threshold.value() + 2)
    wait_for(section, qtbot)
    np.testing.assert_array_equal(target.labels.data[2], by_hand)
    assert (target.labels.data[3] != before).any()
    assert "planes 2" in section.adjust.note.text()
    # Another run does not write over it either.
    assert segment(section, qtbot) is not target
    np.testing.assert_array_equal(target.labels.data[2], by_hand)


def test_undo_gives_a_plane_back_and_redo_takes_it_again(
    section: SegmentSection, qtbot: Any
) -> None:
    target = segment(section, qtbot)
    labels, threshold = target.labels, section.adjust.threshold
    section._state.viewer.dims.set_point(0, 10 + 2 * 2)
    labels.paint((2, 30, 30), 7)
    labels.data_setitem((np.array([4]), np.array([5]), np.array([6])), 7)
    assert target.result.edited == {2, 4}
    assert "planes 2, 4" in section.adjust.note.text()
    labels.undo()
    labels.undo()
    assert target.result.edited == set()
    assert "by hand" not in section.adjust.note.text()
    labels.redo()
    assert target.result.edited == {2}
    labels.undo()
    threshold.setValue(threshold.value() + 2)
    wait_for(section, qtbot)
    wanted = target.planes.read(2)
    wanted = target.entry.specialist.predict(wanted).probability >= threshold.value() / 100
    np.testing.assert_array_equal(labels.data[2] > 0, wanted)
    # And another run writes into the same layer.
    assert segment(section, qtbot) is target


def test_the_look_that_a_plane_missed_is_made_up_for_after_an_undo(
    section: SegmentSection, specialist: Specialist, discs: Any, qtbot: Any
) -> None:
    target = segment(section, qtbot)
    labels, adjust = target.labels, section.adjust
    section._state.viewer.dims.set_point(0, 10 + 2 * 2)
    labels.paint((2, 30, 30), 7)
    adjust.numbered.setChecked(True)
    adjust.through.setCurrentIndex(1)
    wait_for(section, qtbot)
    assert labels.data[2].max() == 7 or (labels.data[2] == 7).any()
    labels.undo()
    assert target.result.edited == set()
    wait_for(section, qtbot)
    np.testing.assert_array_equal(labels.data, split_objects(expected(specialist, discs)))


def test_a_plane_that_is_not_segmented_yet_is_given_back_blank(
    section: SegmentSection, qtbot: Any
) -> None:
    from napari_ptsam._widgets.layers import go_to_plane

    go_to_plane(section._state.viewer, section.image.layer, 4)
    target = segment(section, qtbot, "plane")
    go_to_plane(section._state.viewer, section.image.layer, 1)
    target.labels.paint((1, 30, 30), 7)
    assert target.result.edited == {1}
    target.labels.undo()
    assert target.result.edited == set()


def test_the_bar_of_a_run_begins_empty(
    section: SegmentSection, specialist: Specialist, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(section, qtbot)
    assert section.bar.text() == "6 of 6 planes"
    texts: list[str] = []
    predict = type(specialist).predict

    def noted(self: Specialist, image: Any) -> Any:
        texts.append(section.bar.text())
        return predict(self, image)

    monkeypatch.setattr(type(specialist), "predict", noted)
    segment(section, qtbot)
    assert "6 of 6" not in texts[0]


def test_a_table_of_objects_goes_to_the_features_and_to_a_file(
    section: SegmentSection, qtbot: Any, tmp_path: Path
) -> None:
    target = segment(section, qtbot)
    assert not section.adjust.csv_button.isEnabled()
    section.adjust.measure()
    wait_for(section, qtbot)
    qtbot.waitUntil(lambda: section.adjust.table is not None)
    features = target.labels.features
    assert len(features) == target.labels.data.max() > 0
    label = int(features["index"].iloc[0])
    pixels = np.argwhere(target.labels.data == label)
    row = features.iloc[0]
    assert row["plane"] == pixels[0, 0]
    assert row["pixels"] == len(pixels)
    assert row["area (µm²)"] == pytest.approx(len(pixels) * 0.25)
    assert row["centroid_y (µm)"] == pytest.approx(pixels[:, 1].mean() * 0.5 + 1)
    section.adjust.save_table(tmp_path / "objects.csv")
    qtbot.waitUntil((tmp_path / "objects.csv").exists)
    assert len((tmp_path / "objects.csv").read_text("utf-8-sig").splitlines()) == 1 + len(features)
    section.adjust.threshold.setValue(section.adjust.threshold.value() + 3)
    assert not section.adjust.csv_button.isEnabled()


def test_a_folder_is_segmented_stopped_and_gone_on_with(
    section: SegmentSection,
    specialist: Specialist,
    discs: Any,
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", discs[:1])
    tifffile.imwrite(
        tmp_path / "in" / "b.tif", discs[1:4], photometric="minisblack", metadata={"axes": "ZYX"}
    )
    tifffile.imwrite(tmp_path / "in" / "c.tif", discs[4], photometric="minisblack")
    choose(section, "folder")
    assert "folder of images" in section.note.text()
    section.folders.source_edit.setText(str(tmp_path / "in"))
    section.folders.target_edit.setText(str(tmp_path / "out"))
    predict, calls = type(specialist).predict, []

    def counted(self: Specialist, image: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            section.stop()
        return predict(self, image)

    monkeypatch.setattr(type(specialist), "predict", counted)
    section.segment()
    wait_for(section, qtbot)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tif"]
    assert "1 of 5" in section.note.text()
    section.resume()
    wait_for(section, qtbot)
    assert len(calls) == 3 + 4
    monkeypatch.undo()
    masks = expected(specialist, discs)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "b.tif") > 0, masks[1:4])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "c.tif") > 0, masks[4])


def test_what_cannot_be_done_yet_says_why(state: PluginState, qtbot: Any, specialist: Any) -> None:
    from napari_ptsam._widgets.segment import SegmentSection

    section = SegmentSection(state)
    qtbot.addWidget(section)
    assert "Train a specialist first" in section.note.text()
    assert not section.segment_button.isEnabled()
    state.add_specialist(specialist, "disc")
    assert "Open an image" in section.note.text()
    state.viewer.add_image(np.zeros((3, 20, 20), np.uint8))
    choose(section, "layer")
    assert section.note.text() == ""
    assert section.segment_button.isEnabled()
    choose(section, "plane")
    state.viewer.dims.ndisplay = 3
    assert "single plane" in section.note.text()
    choose(section, "selected")
    state.viewer.layers.selection.clear()
    assert "Select" in section.note.text()


def test_removing_the_result_layer_stops_the_run_and_nothing_else(
    section: SegmentSection, discs: Any, qtbot: Any, specialist: Any, monkeypatch: Any
) -> None:
    viewer = section._state.viewer
    choose(section, "layer")
    section.segment()
    qtbot.waitUntil(lambda: "disc: cells" in viewer.layers)
    viewer.layers.remove("disc: cells")
    wait_for(section, qtbot)
    assert section.segmenter.results == []
    assert section.segment_button.isEnabled()
    # Without its image a run goes on: the pixels are still there.
    section.segment()
    target = section.adjust.target
    viewer.layers.remove("cells")
    wait_for(section, qtbot)
    np.testing.assert_array_equal(target.labels.data > 0, expected(specialist, discs))


def test_an_image_renamed_and_reshaped_during_a_run_does_not_disturb_it(
    section: SegmentSection, discs: Any, qtbot: Any, specialist: Any
) -> None:
    choose(section, "layer")
    section.segment()
    target = section.adjust.target
    target.source.name = "another name"
    target.source.data = np.zeros((2, 20, 24), np.uint8)
    wait_for(section, qtbot)
    np.testing.assert_array_equal(target.labels.data > 0, expected(specialist, discs))
    # What does not fit any more is not written into.
    successor = segment(section, qtbot)
    assert successor is not target
    assert successor.labels.data.shape == (2, 20, 24)


def test_an_error_in_the_network_keeps_what_is_done(
    section: SegmentSection, qtbot: Any, specialist: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, calls = type(specialist).predict, []

    def fails(self: Specialist, image: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise InputError("The network is tired.")
        return predict(self, image)

    monkeypatch.setattr(type(specialist), "predict", fails)
    target = segment(section, qtbot)
    assert target.result.done() == [2, 3]
    assert section.segment_button.isEnabled()
    section.resume()
    wait_for(section, qtbot)
    assert target.missing() == []


# The same in a terminal.


@pytest.fixture
def from_file(
    state: PluginState, tiny_backbone: Path, discs: Any, tmp_path: Path, qtbot: Any
) -> Callable[[Path], SegmentSection]:
    from napari_ptsam._widgets.segment import SegmentSection
    from napari_ptsam.backbones import load_backbone

    specialist = make_specialist(load_backbone(tiny_backbone))
    specialist.threshold = float(np.median(specialist.predict(discs[0]).probability))
    path = specialist.save(tmp_path / "disc")

    def opened(image: Path) -> SegmentSection:
        state.viewer.open(image, plugin="napari")
        section = SegmentSection(state)
        qtbot.addWidget(section)
        state.add_specialist(specialist, "disc", path)
        return section

    return opened


def copied(section: SegmentSection, qtbot: Any) -> str:
    from qtpy.QtWidgets import QApplication

    section.command.note.setText("")
    section.command.copy()
    qtbot.waitUntil(lambda: bool(section.command.note.text()))
    assert section.command.note.text().startswith("Copied"), section.command.note.text()
    return str(QApplication.clipboard().text())


def test_the_copied_command_gives_the_same_mask_bit_for_bit(
    from_file: Any, discs: Any, qtbot: Any, tmp_path: Path, tiny_backbone: Path
) -> None:
    import shlex

    from napari_ptsam.cli import main

    tifffile.imwrite(
        tmp_path / "my cells.tif", discs, photometric="minisblack", metadata={"axes": "ZYX"}
    )
    section = from_file(tmp_path / "my cells.tif")
    target = segment(section, qtbot)
    section.adjust.threshold.setValue(section.adjust.threshold.value() - 1)
    section.adjust.minimum_size.setValue(30)
    wait_for(section, qtbot)
    words = shlex.split(copied(section, qtbot))
    assert words[:2] == ["napari-ptsam", "segment"]
    assert words[words.index("--backbone") + 1] == "tiny"
    assert "--backbone" in section.command.note.text().splitlines()[-1]
    words[words.index("--backbone") + 1] = str(tiny_backbone)
    assert main(words[1:]) == 0
    written = tifffile.imread(tmp_path / "my cells_segmented.tif")
    np.testing.assert_array_equal(written, target.labels.data)


def test_looking_from_four_sides_gives_another_result_and_is_in_the_command(
    from_file: Any, discs: Any, qtbot: Any, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "cells.tif", discs, photometric="minisblack")
    section = from_file(tmp_path / "cells.tif")
    assert not section.careful.isChecked()  # as the specialist's file says
    section.probability.setChecked(True)
    once = segment(section, qtbot)
    section.careful.click()
    averaged = segment(section, qtbot)
    assert averaged is not once
    assert once.labels in section._state.viewer.layers
    specialist = section._state.current.specialist
    found, single = averaged.probability.data[0], once.probability.data[0]
    np.testing.assert_array_equal(
        found, specialist.applied(rotations=4).predict(discs[0]).probability
    )
    assert np.abs(found - single).max() > 1e-4
    assert specialist.rotations == 1
    assert "--rotations 4" in copied(section, qtbot)


def test_a_command_for_one_channel_of_a_file_names_the_channel(
    from_file: Any, discs: Any, qtbot: Any, tmp_path: Path
) -> None:
    both = np.stack([discs, 255 - discs], axis=1)
    tifffile.imwrite(tmp_path / "two.ome.tif", both, metadata={"axes": "ZCYX"})
    section = from_file(tmp_path / "two.ome.tif")
    (layer,) = section._state.viewer.layers
    # As viewers show it: each channel a layer of the same file.
    layer.data = both[:, 1]
    target = segment(section, qtbot)
    assert len(target.planes) == 6
    assert "--channel 1" in copied(section, qtbot)


def test_there_is_no_command_for_what_is_in_no_file(
    section: SegmentSection, specialist: Specialist, qtbot: Any, tmp_path: Path
) -> None:
    segment(section, qtbot)
    section.command.copy()
    qtbot.waitUntil(lambda: bool(section.command.note.text()))
    assert "does not come from a file" in section.command.note.text()


def test_there_is_no_command_for_a_layer_that_was_changed(
    from_file: Any, discs: Any, qtbot: Any, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", discs, photometric="minisblack", metadata={"axes": "ZYX"})
    section = from_file(tmp_path / "a.tif")
    section._state.viewer.layers[0].data = 255 - discs
    segment(section, qtbot)
    section.command.copy()
    qtbot.waitUntil(lambda: bool(section.command.note.text()))
    assert "does not show what is in its file" in section.command.note.text()


def test_closing_during_a_run_stops_it_and_lets_go_of_all(
    section: SegmentSection, qtbot: Any, specialist: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import threading
    import weakref

    state, calls, going = section._state, [], threading.Event()
    predict = type(specialist).predict

    def slow(self: Specialist, image: Any) -> Any:
        calls.append(1)
        going.wait(20)
        return predict(self, image)

    monkeypatch.setattr(type(specialist), "predict", slow)
    choose(section, "layer")
    section.segment()
    kept = weakref.ref(section.adjust.target.result)
    qtbot.waitUntil(lambda: bool(calls))
    jobs = [state.jobs.job]
    state.close()
    going.set()
    qtbot.waitUntil(lambda: not jobs[0].running, timeout=20_000)
    assert len(calls) == 1
    section.adjust.target = None
    state.viewer.layers.clear()
    jobs.clear()
    gc.collect()
    qtbot.waitUntil(lambda: gc.collect() >= 0 and kept() is None, timeout=5_000)


def test_a_second_run_is_refused_in_words(
    section: SegmentSection, qtbot: Any, specialist: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(section, "layer")
    section.segment()
    with pytest.raises(InputError, match="'Segmenting' is still running"):
        section.segmenter.run([(section.adjust.target, [0])])
    assert "is running" in section.reason()
    assert not section.segment_button.isEnabled()
    wait_for(section, qtbot)
    assert section.segment_button.isEnabled()
    assert len(section.segmenter.results) == 1


# Encoded ahead.


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tiles each call of the encoder was given."""
    from napari_ptsam.backbones import Backbone

    calls: list[int] = []
    encode = Backbone.encode

    def counted(self: Backbone, images: Any, prompts: Any = None) -> Any:
        calls.append(len(images))
        return encode(self, images, prompts)

    monkeypatch.setattr(Backbone, "encode", counted)
    # A tiny encoder is as fast as a disk.
    monkeypatch.setattr("napari_ptsam.embeddings._Costs.too_high", property(lambda _: False))
    return calls


@pytest.fixture
def embedding(
    encoded: list[int], state: PluginState, specialist: Specialist, discs: Any, qtbot: Any
) -> Any:
    """The step with a whole layer chosen, whose specialist looks for what is kept."""
    from napari_ptsam._widgets.segment import SegmentSection
    from napari_ptsam.cache import DiskCache
    from napari_ptsam.embeddings import Embeddings

    state.viewer.add_image(discs, name="cells")
    made = SegmentSection(state)
    qtbot.addWidget(made)
    specialist.embeddings = Embeddings(limit=0, disk=DiskCache())
    state.add_specialist(specialist, "disc")
    choose(made, "layer")
    made.show()
    encoded.clear()
    return made


def click_embed(section: SegmentSection, qtbot: Any) -> None:
    from qtpy.QtCore import Qt

    qtbot.mouseClick(section.embed.button, Qt.MouseButton.LeftButton)
    assert not section.embed.button.isEnabled()
    qtbot.waitUntil(lambda: "embedded" in section.embed.note.text(), timeout=30_000)


def test_a_layer_that_was_embedded_is_segmented_without_the_encoder(
    embedding: SegmentSection, specialist: Specialist, discs: Any, encoded: list[int], qtbot: Any
) -> None:
    from napari_ptsam.ahead import disk_space
    from napari_ptsam.cache import DiskCache
    from napari_ptsam.planes import open_planes

    assert "of disk" in embedding.embed.note.text()
    click_embed(embedding, qtbot)
    assert sum(encoded) == 6
    assert "6 of 6 planes" in embedding.embed.note.text()
    expected_bytes = disk_space(specialist.backbone, open_planes(discs), specialist.scaling)
    # Beside the numbers each file has some kilobytes of its own.
    assert 0.5 * expected_bytes < DiskCache().in_use() < expected_bytes + 6 * 4000
    encoded.clear()
    target = segment(embedding, qtbot)
    assert encoded == []
    np.testing.assert_array_equal(target.labels.data > 0, expected(specialist, discs))


@pytest.mark.parametrize(("own", "careful"), [(1, True), (4, False), (4, True)])
def test_a_layer_is_embedded_in_the_positions_that_segmenting_looks_in(
    embedding: SegmentSection,
    specialist: Specialist,
    encoded: list[int],
    qtbot: Any,
    own: int,
    careful: bool,
) -> None:
    state = embedding._state
    specialist.rotations = own
    state.current = None
    state.current = state.specialists[0]
    assert embedding.careful.isChecked() == (own > 1)
    cost = embedding.embed._estimated[1]
    if embedding.careful.isChecked() != careful:
        embedding.careful.click()
        assert embedding.embed._estimated[1] == cost * (4 if careful else 0.25)
    click_embed(embedding, qtbot)
    assert sum(encoded) == 6 * (4 if careful else 1)
    encoded.clear()
    segment(embedding, qtbot)
    assert encoded == []


def test_embedding_is_stopped_and_goes_on_from_there(
    embedding: SegmentSection, encoded: list[int], qtbot: Any
) -> None:
    from qtpy.QtCore import Qt

    embedding._state.jobs.progressed.connect(lambda *_: embedding.stop_button.click())
    click_embed(embedding, qtbot)
    assert 1 <= sum(encoded) < 6
    assert embedding.segment_button.isEnabled()
    embedding._state.jobs.progressed.disconnect()
    qtbot.mouseClick(embedding.embed.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "6 of 6" in embedding.embed.note.text(), timeout=30_000)
    assert sum(encoded) == 6


def test_embedding_is_refused_with_the_reason(
    embedding: SegmentSection, tiny_backbone_loaded: Backbone, state: PluginState
) -> None:
    from napari_ptsam.methods import build_method

    box = embedding.embed
    assert box.button.isEnabled()
    entry = state.current
    changing = make_specialist(tiny_backbone_loaded)
    changing.method = build_method("ptsam", {"encoder_prompts": 2}, tiny_backbone_loaded, 0)
    changed = state.add_specialist(changing, "changing")
    assert not box.button.isEnabled()
    assert "changes what the model sees" in box.note.text()
    assert box.note.isVisibleTo(embedding)
    for gone in (changed, entry):
        state.remove_specialist(gone)
    assert not box.button.isEnabled()
    assert "Train a specialist first" in embedding.note.text()
    choose(embedding, "plane")
    assert not box.isVisibleTo(embedding)


def test_a_full_cache_ends_the_embedding_in_words(
    embedding: SegmentSection, encoded: list[int], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_PTSAM_CACHE_LIMIT", "20 kB")
    click_embed(embedding, qtbot)
    assert 1 <= sum(encoded) < 6
    assert "no more room in the cache" in embedding.embed.note.text()


def test_a_cache_that_may_take_nothing_is_named(
    specialist: Specialist, discs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ptsam._widgets.embedding import EmbedRun
    from napari_ptsam.planes import open_planes

    monkeypatch.setenv("NAPARI_PTSAM_CACHE_LIMIT", "0")
    run = EmbedRun(specialist, open_planes(discs))
    with pytest.raises(InputError, match="NAPARI_PTSAM_CACHE_LIMIT"):
        next(run.steps())
    assert run.summary() == "Nothing was embedded."
