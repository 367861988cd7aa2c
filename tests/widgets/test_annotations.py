"""Which planes are annotated, and what training is given of them."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_ptsam._widgets.annotations import SOON_MS, Annotations
from napari_ptsam._widgets.masks import IGNORED, boxes_of, rectangle, write_plane
from napari_ptsam._widgets.state import PluginState
from napari_ptsam.errors import InputError
from napari_ptsam.examples import load_examples
from napari_ptsam.normalize import Normalization


@pytest.fixture
def state(windowless: ViewerModel, discs: NDArray[np.uint8], qtbot: QtBot) -> Any:
    state = PluginState(windowless)
    state.annotations.image = windowless.add_image(discs, name="discs")
    yield state
    state.close()


@pytest.fixture
def annotations(state: PluginState) -> Annotations:
    state.annotations.new_labels()
    return state.annotations


def paint(annotations: Annotations, plane: int, label: int = 1) -> None:
    assert annotations.labels is not None
    annotations.labels.paint((plane, 30, 30), label)


def test_painting_erasing_and_undo_keep_the_list_right(
    annotations: Annotations, qtbot: QtBot
) -> None:
    paint(annotations, 1)
    paint(annotations, 4)
    assert annotations.annotated() == [1, 4]
    paint(annotations, 4, label=0)
    assert annotations.annotated() == [1]
    annotations.labels.undo()
    qtbot.waitUntil(lambda: annotations.annotated() == [1, 4])
    annotations.labels.undo()
    qtbot.waitUntil(lambda: annotations.annotated() == [1])


def test_a_plane_declared_empty_is_annotated_until_it_is_painted(
    annotations: Annotations,
) -> None:
    annotations.declare_empty(2)
    assert annotations.annotated() == annotations.declared_empty() == [2]
    paint(annotations, 2)
    assert annotations.declared_empty() == []
    assert annotations.annotated() == [2]
    annotations.declare_empty(3)
    annotations.declare_empty(3, False)
    assert annotations.annotated() == [2]


def test_empty_planes_are_remembered_of_each_labels_layer(
    annotations: Annotations, windowless: ViewerModel, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    first, image = annotations.labels, annotations.image
    paint(annotations, 1)
    annotations.declare_empty(5)
    second = annotations.new_labels()
    assert annotations.annotated() == []
    annotations.declare_empty(3)
    annotations.labels = first
    qtbot.waitUntil(lambda: annotations.annotated() == [1, 5])
    annotations.image = windowless.add_image(255 - discs)
    annotations.image = image
    assert annotations.declared_empty() == [5]
    annotations.labels = second
    assert annotations.declared_empty() == [3]


def test_empty_planes_are_forgotten_with_the_planes_of_their_layer(
    annotations: Annotations,
) -> None:
    annotations.declare_empty(5)
    annotations.labels.data = np.zeros((3, 64, 64), np.uint16)
    assert annotations.declared_empty() == []


def test_strokes_are_told_of_together_and_all_else_at_once(
    annotations: Annotations, qtbot: QtBot
) -> None:
    qtbot.waitUntil(lambda: not annotations.searching)
    qtbot.wait(2 * SOON_MS)
    # So that a slow machine does not tell in between.
    annotations._soon.setInterval(60_000)
    told: list[list[int]] = []

    def tell() -> None:
        told.append(annotations.annotated())

    annotations.changed.connect(tell)
    for plane in (1, 2, 3):
        paint(annotations, plane)
        qtbot.wait(1)
    assert told == []
    annotations._soon.timeout.emit()
    assert told == [[1, 2, 3]]
    paint(annotations, 4)
    qtbot.wait(1)
    annotations.declare_empty(5)
    assert told[1:] == [[1, 2, 3, 4, 5]]
    assert not annotations._soon.isActive()


def test_paint_that_was_there_before_is_found_in_the_background(
    state: PluginState, windowless: ViewerModel, qtbot: QtBot
) -> None:
    data = np.zeros((6, 64, 64), np.uint8)
    data[5, 3, 3] = 1
    state.annotations.labels = windowless.add_labels(data)
    qtbot.waitUntil(lambda: state.annotations.annotated() == [5])
    state.annotations.labels.data = np.ones_like(data)
    qtbot.waitUntil(lambda: state.annotations.annotated() == list(range(6)))


def test_a_lazy_stack_of_labels_is_not_read_in_the_gui_thread(
    state: PluginState, windowless: ViewerModel, qtbot: QtBot
) -> None:
    import threading

    readers: set[int] = set()

    def block(block_info: Any = None) -> Any:
        readers.add(threading.get_ident())
        return np.ones((1, 64, 64), np.uint8)

    lazy = da.map_blocks(block, chunks=((1,) * 6, (64,), (64,)), dtype=np.uint8)
    layer = windowless.add_labels(lazy)
    readers.clear()
    state.annotations.labels = layer
    qtbot.waitUntil(lambda: len(state.annotations.annotated()) == 6)
    assert threading.get_ident() not in readers


def test_what_is_missing_is_said_step_by_step(
    windowless: ViewerModel, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    state = PluginState(windowless)
    annotations = state.annotations
    with pytest.raises(InputError, match="Open an image"):
        annotations.examples_input()
    annotations.image = windowless.add_image(discs)
    assert "labels layer" in str(annotations.missing())
    annotations.labels = windowless.add_labels(np.zeros((5, 64, 64), int))
    assert "size of the image" in str(annotations.missing())
    annotations.new_labels()
    qtbot.waitUntil(lambda: not annotations.searching)
    assert "Paint" in str(annotations.missing())
    annotations.declare_empty(0)
    assert "Paint" in str(annotations.missing())
    paint(annotations, 1)
    assert annotations.missing() is None
    state.close()


def test_examples_are_the_painted_and_the_empty_planes(
    annotations: Annotations, discs: NDArray[np.uint8]
) -> None:
    paint(annotations, 1)
    annotations.declare_empty(4)
    given = annotations.examples_input()
    given.pop("channel")
    examples, _ = load_examples(
        given.pop("images"), given.pop("masks"), normalization=Normalization(), **given
    )
    assert [example.mask.any() for example in examples] == [True, False]
    assert examples[0].image.shape == (64, 64, 3)


def test_outside_of_a_rectangle_nothing_is_learned(annotations: Annotations) -> None:
    paint(annotations, 1)
    paint(annotations, 2)
    areas = annotations.new_areas()
    areas.add_rectangles(np.array([[1, 10, 20], [1, 10, 40], [1, 39.7, 40], [1, 39.7, 20]]))
    given = annotations.examples_input()
    assert given["ignore_label"] == IGNORED
    masks = given["masks"]
    ignored = masks.read_labels(1) == IGNORED
    assert not ignored[10:40, 20:41].any()
    assert ignored.sum() == 64 * 64 - 30 * 21
    assert (masks.read_labels(2) >= 0).all()


def test_rectangles_are_found_where_layers_are_scaled_and_moved(
    windowless: ViewerModel,
) -> None:
    labels = windowless.add_labels(
        np.zeros((4, 64, 64), np.uint16), scale=(3, 0.3, 0.7), translate=(1, 2, -3)
    )
    shapes = windowless.add_shapes(ndim=3, scale=(1.5, 0.1, 0.1), translate=(4, 0, 0))
    box = (slice(10, 40), slice(20, 41))
    shapes.add_rectangles(
        np.array(
            [
                shapes.world_to_data(labels.data_to_world(corner))
                for corner in rectangle(labels, 2, box)
            ]
        )
    )
    assert boxes_of(shapes, labels) == {2: [box]}


def test_one_label_of_several_is_the_object(annotations: Annotations) -> None:
    paint(annotations, 1, label=1)
    paint(annotations, 2, label=7)
    annotations.label = 7
    given = annotations.examples_input()
    given.pop("channel")
    examples, _ = load_examples(
        given.pop("images"), given.pop("masks"), normalization=Normalization(), **given
    )
    assert [example.mask.any() for example in examples] == [False, True]


def test_a_layer_that_is_removed_renamed_or_reshaped_does_not_disturb_a_run(
    annotations: Annotations, windowless: ViewerModel
) -> None:
    paint(annotations, 1)
    given = annotations.examples_input()
    before = given["masks"].read_labels(1).copy()
    labels, image = annotations.labels, annotations.image
    labels.name = image.name = "renamed"
    labels.data = np.zeros((2, 8, 8), np.uint8)
    assert "size of the image" in str(annotations.missing())
    windowless.layers.remove(labels)
    windowless.layers.remove(image)
    assert annotations.labels is None
    assert annotations.image is None
    assert (given["masks"].read_labels(1) == before).all()
    assert given["images"].read(1).shape == (64, 64)


def test_a_written_plane_is_taken_back_by_one_undo(annotations: Annotations) -> None:
    paint(annotations, 3)
    labels: Labels = annotations.labels
    before = labels.data[3].copy()
    write_plane(labels, 3, np.triu(np.full((64, 64), 2)))
    assert (labels.data[3] == np.triu(np.full((64, 64), 2))).all()
    labels.undo()
    assert (labels.data[3] == before).all()


def test_the_suggested_plane_is_far_from_all_annotated_ones(annotations: Annotations) -> None:
    assert annotations.suggestion() == 3
    paint(annotations, 0)
    assert annotations.suggestion() == 5
    for plane in range(6):
        paint(annotations, plane)
    assert annotations.suggestion() is None


def test_a_stroke_in_3d_touches_all_its_planes(annotations: Annotations) -> None:
    annotations.labels.n_edit_dimensions = 3
    annotations.labels.brush_size = 3
    paint(annotations, 2)
    assert annotations.annotated() == [1, 2, 3]
