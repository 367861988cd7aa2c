"""napari's layers as planes: any axes, any place in the world."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image

from napari_ptsam._widgets.layers import (
    axes_of,
    blank,
    go_to_plane,
    image_over,
    labels_like,
    labels_over,
    plane_count,
    plane_index,
    plane_name,
    planes_of,
    set_channel_axis,
    slot,
)
from napari_ptsam.errors import InputError


def numbered(shape: tuple[int, ...]) -> Any:
    """Each plane is filled with its number."""
    count = int(np.prod(shape[:-2]))
    return np.broadcast_to(np.arange(count, dtype=np.uint16)[:, None, None], (count, *shape[-2:]))


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
@pytest.mark.parametrize("shape", [(8, 9), (5, 8, 9), (2, 3, 8, 9), (2, 1, 3, 8, 9)])
def test_planes_are_read_in_stored_order_whatever_the_array(
    shape: tuple[int, ...], kind: str
) -> None:
    array = numbered(shape).reshape(shape)
    data: Any = array
    if kind == "dask":
        data = da.from_array(array, chunks=(*(1 for _ in shape[:-2]), 8, 9))
    elif kind == "zarr":
        data = zarr.array(np.ascontiguousarray(array))
    layer = Image(data, name="x")
    planes = planes_of(layer)
    assert len(planes) == plane_count(layer) == int(np.prod(shape[:-2]))
    for index in range(len(planes)):
        assert (planes.read(index) == index).all()
        assert planes.read(index).shape == (8, 9)


def test_only_the_plane_that_is_asked_for_is_computed() -> None:
    read: list[Any] = []

    def block(block_info: Any = None) -> Any:
        read.append(block_info[None]["chunk-location"][0])
        return np.zeros((1, 8, 9), np.uint8)

    lazy = da.map_blocks(block, chunks=((1,) * 50, (8,), (9,)), dtype=np.uint8)
    layer = Image(lazy, contrast_limits=(0, 1))
    read.clear()
    planes_of(layer).read(7)
    assert read == [7]


def test_rgb_has_one_plane_of_three_colours_and_a_channel_by_name() -> None:
    picture = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    layer = Image(picture, rgb=True)
    assert planes_of(layer).read(0).shape == (8, 9, 3)
    assert (planes_of(layer, "green").read(0) == picture[..., 1]).all()


def test_of_several_resolutions_the_finest_is_read() -> None:
    full = np.arange(3 * 16 * 16, dtype=np.uint16).reshape(3, 16, 16)
    layer = Image([full, full[:, ::2, ::2]], multiscale=True)
    assert (planes_of(layer).read(1) == full[1]).all()
    assert plane_count(layer) == 3


def test_axis_labels_name_the_channels_and_none_is_guessed() -> None:
    data = np.arange(4 * 2 * 8 * 9, dtype=np.uint16).reshape(4, 2, 8, 9)
    layer = Image(data)
    assert (axes_of(layer), plane_count(layer)) == ("TZYX", 8)
    set_channel_axis(layer, 1)
    assert (axes_of(layer), plane_count(layer)) == ("ZCYX", 4)
    assert (planes_of(layer, 1).read(3) == data[3, 1]).all()
    with pytest.raises(InputError, match="2 channels"):
        planes_of(layer)
    set_channel_axis(layer, None)
    assert plane_count(layer) == 8


def test_the_pixel_size_of_the_layer_goes_with_the_planes() -> None:
    layer = Image(np.zeros((4, 8, 9)), scale=(2, 0.5, 0.25), units=("um", "um", "um"))
    (part,) = planes_of(layer).parts
    assert part.scale == {"Z": (2.0, "µm"), "Y": (0.5, "µm"), "X": (0.25, "µm")}


def test_plane_in_view_is_found_and_gone_to_under_scale_and_translate(
    windowless: ViewerModel,
) -> None:
    layer = windowless.add_image(
        np.zeros((3, 5, 8, 9)), scale=(2, 0.7, 1, 1), translate=(10, -3, 0, 0)
    )
    for index in (0, 7, 14, 4):
        go_to_plane(windowless, layer, index)
        assert plane_index(windowless, layer) == index
    assert plane_name(layer, 7) == "T 1, Z 2"


def test_no_plane_is_in_view_in_3d_with_rolled_axes_or_beyond_the_layer(
    windowless: ViewerModel,
) -> None:
    layer = windowless.add_image(np.zeros((5, 8, 9)))
    windowless.add_image(np.zeros((20, 8, 9)))
    windowless.dims.set_point(0, 12)
    assert plane_index(windowless, layer) is None
    windowless.dims.set_point(0, 2)
    assert plane_index(windowless, layer) == 2
    windowless.dims.ndisplay = 3
    assert plane_index(windowless, layer) is None
    windowless.dims.ndisplay = 2
    windowless.dims.order = (1, 0, 2)
    assert plane_index(windowless, layer) is None


def test_a_2d_layer_in_a_deep_viewer_has_its_one_plane(windowless: ViewerModel) -> None:
    flat = windowless.add_image(np.zeros((8, 9)))
    windowless.add_image(np.zeros((20, 8, 9)))
    assert plane_index(windowless, flat) == 0
    go_to_plane(windowless, flat, 0)


def test_labels_lie_on_the_image(windowless: ViewerModel) -> None:
    layer = windowless.add_image(
        np.zeros((4, 8, 9)),
        scale=(3, 0.5, 0.5),
        translate=(1, 2, 3),
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
    )
    labels = labels_like(windowless, layer, "mine")
    assert labels.data.shape == (4, 8, 9)
    assert np.array_equal(labels.scale, layer.scale)
    assert np.array_equal(labels.translate, layer.translate)
    assert labels.units == layer.units
    assert labels.axis_labels == layer.axis_labels
    assert image_over(layer, "p", np.zeros((4, 8, 9), np.float32)).scale[0] == 3


@pytest.mark.parametrize("axis", [0, 1])
def test_labels_of_an_image_with_channels_are_seen_from_each_channel(
    windowless: ViewerModel, axis: int
) -> None:
    shape = (3, 5, 8, 9) if axis == 0 else (5, 3, 8, 9)
    layer = windowless.add_image(np.zeros(shape), scale=(2, 4, 1, 1))
    set_channel_axis(layer, axis)
    labels = labels_like(windowless, layer, "mine")
    assert plane_count(labels) == plane_count(layer) == 5
    for channel in range(3):
        windowless.dims.set_point(axis, channel * layer.scale[axis])
        go_to_plane(windowless, layer, 3)
        assert plane_index(windowless, labels) == 3
        where = labels.world_to_data(windowless.dims.point)
        labels.paint(where, channel + 1)
        assert labels.data[slot(labels, 3)].max() == channel + 1


TILTED = {
    "rotated": {"rotate": 30},
    "sheared": {"shear": [0.4]},
    "both": {"rotate": 30, "shear": [0.4]},
    "affine": {"affine": [[0.9, 0.3, 5], [-0.2, 1.1, 7], [0, 0, 1]]},
}


@pytest.mark.parametrize("tilt", TILTED)
@pytest.mark.parametrize("axis", [0, 1])
def test_results_lie_on_a_tilted_image_with_channels(axis: int, tilt: str) -> None:
    shape = (3, 5, 8, 9) if axis == 0 else (5, 3, 8, 9)
    # As napari reads them: what is said of the last axes holds for these.
    layer = Image(np.zeros(shape), scale=(2, 4, 0.5, 0.7), translate=(1, 2, 3, 4), **TILTED[tilt])
    set_channel_axis(layer, axis)
    for made in (
        labels_over(layer, "mine"),
        image_over(layer, "p", np.zeros((5, 8, 9) if axis == 0 else (5, 1, 8, 9))),
    ):
        for corner in ((0, 0), (7, 0), (0, 8), (7, 8)):
            for plane in (0, 4):
                there = (1, plane, *corner) if axis == 0 else (plane, 1, *corner)
                here = (plane, *corner) if axis == 0 else (plane, 0, *corner)
                wanted, found = layer.data_to_world(there), made.data_to_world(here)
                np.testing.assert_allclose(found, wanted[-made.ndim :], atol=1e-9)


@pytest.mark.parametrize("tilt", TILTED)
def test_results_lie_on_a_tilted_stack(tilt: str) -> None:
    layer = Image(np.zeros((5, 8, 9)), scale=(2, 0.5, -0.7), translate=(2, 3, 4), **TILTED[tilt])
    labels = labels_over(layer, "mine")
    for place in ((0, 0, 0), (4, 7, 0), (1, 0, 8)):
        np.testing.assert_allclose(labels.data_to_world(place), layer.data_to_world(place))


def test_a_layer_along_a_tilted_channel_axis_lies_in_its_middle() -> None:
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    layer = Image(np.zeros((5, 3, 8, 9)), scale=(2, 4, 1, 1), rotate=turned)
    set_channel_axis(layer, 1)
    labels = labels_over(layer, "mine")
    np.testing.assert_allclose(
        labels.data_to_world((4, 0, 5, 6)), layer.data_to_world((4, 1, 5, 6))
    )


def test_huge_labels_take_memory_only_where_they_are_painted() -> None:
    huge = blank((100_000, 2048, 2048), np.uint16)
    huge[77_000, 5, 6] = 3
    assert huge[77_000].max() == 3
    assert huge[3].max() == 0
