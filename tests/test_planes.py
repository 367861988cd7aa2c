"""Any usual image is read lazily, or refused in words."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import dask.array
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_ptsam.errors import InputError
from napari_ptsam.planes import as_stack, open_planes, parse_plane_ranges, tiff

RNG = np.random.default_rng(0)


def noise(*shape, dtype=np.uint8):
    return RNG.integers(0, 250, shape).astype(dtype)


def save(path: Path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        colour = array.ndim > 2 and array.shape[-1] in (3, 4)
        tifffile.imwrite(path, array, photometric="rgb" if colour else "minisblack")
    elif suffix == ".npy":
        np.save(path, array)
    elif suffix == ".zarr":
        zarr.create_array(str(path), data=array)
    else:
        Image.fromarray(array).save(path)
    return path


# ---- arrays and axes


@pytest.mark.parametrize(
    "dtype",
    ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">f4"],
)
def test_every_real_type_is_read_as_stored(tmp_path, dtype):
    image = noise(7, 9).astype(dtype)
    for suffix in (".npy", ".tif"):
        path = tmp_path / f"a{suffix}"
        save(path, image)
        read = open_planes(path).read(0)
        assert read.dtype.newbyteorder("=") == image.dtype.newbyteorder("=")
        np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize("dtype", [np.complex64, object, "U3", "M8[s]"])
def test_types_that_are_no_grey_values_are_refused(dtype):
    with pytest.raises(InputError, match="not grey values"):
        open_planes(np.zeros((4, 4), dtype))


@pytest.mark.parametrize(
    ("shape", "count", "plane"),
    [
        ((5, 6), 1, (5, 6)),
        ((5, 6, 3), 1, (5, 6, 3)),
        ((5, 6, 4), 1, (5, 6, 4)),
        ((5, 6, 1), 1, (5, 6)),
        ((4, 5, 6), 4, (5, 6)),
        ((3, 5, 6), 3, (5, 6)),
        ((4, 5, 6, 3), 4, (5, 6, 3)),
        ((1, 5, 6), 1, (5, 6)),
        ((1, 1, 5, 6), 1, (5, 6)),
        ((1, 4, 1, 5, 6), 4, (5, 6)),
        ((5, 1), 1, (5, 1)),
        ((1, 1), 1, (1, 1)),
        ((4, 1, 6), 4, (1, 6)),
    ],
)
def test_axes_are_guessed_from_the_shape(shape, count, plane):
    planes = open_planes(np.zeros(shape, np.uint8))
    assert len(planes) == count
    assert planes.read(count - 1).shape == plane
    assert planes.shape_of(0) == plane[:2]
    assert planes.kind == ("stack" if count > 1 else "image")


def test_more_unnamed_axes_are_asked_for():
    with pytest.raises(InputError, match=r"\(2, 5, 8, 9\).*'axes'.*TZCYX"):
        open_planes(np.zeros((2, 5, 8, 9)))


def test_time_and_depth_are_flattened_in_order():
    data = noise(2, 3, 5, 6)
    planes = open_planes(data, axes="TZYX")
    assert list(planes.keys) == ["0000", "0001", "0002", "0003", "0004", "0005"]
    for number in range(6):
        np.testing.assert_array_equal(planes.read(number), data[number // 3, number % 3])
    (part,) = planes.parts
    assert (part.axes, part.shape, part.count) == ("TZ", (2, 3), 6)


@pytest.mark.parametrize("axes", ["CYX", "YCX", "YXC", "XYC", "CXY", "zcyx", "YZXC", "CTZYX"])
def test_channels_are_found_on_any_axis(axes):
    sizes = {"T": 2, "Z": 4, "C": 3, "Y": 5, "X": 6}
    data = noise(*(sizes[a] for a in axes.upper()))
    planes = open_planes(data, axes=axes)
    order = [a for a in "TZ" if a in axes.upper()] + ["Y", "X", "C"]
    expected = data.transpose([axes.upper().index(a) for a in order]).reshape(-1, 5, 6, 3)
    assert len(planes) == len(expected)
    np.testing.assert_array_equal(planes.read(len(planes) - 1), expected[-1])
    one = open_planes(data, axes=axes, channel=1)
    np.testing.assert_array_equal(one.read(0), expected[0, ..., 1])


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((7, 5, 6), "CYX"), ((2, 5, 6), "CYX"), ((4, 5, 6), "CYX"), ((5, 6, 5), "YXC")],
)
def test_microscopy_channels_have_to_be_chosen(shape, axes):
    count = shape[axes.index("C")]
    with pytest.raises(InputError, match=f"{count} channels: 0, 1.*'channel'"):
        open_planes(np.zeros(shape), axes=axes)
    assert open_planes(np.zeros(shape), axes=axes, channel=count - 1).read(0).shape == (5, 6)


@pytest.mark.parametrize("channel", [-1, 5, "5", "GFP", "", "²"])
def test_a_channel_that_does_not_exist_is_refused_with_the_list(channel):
    with pytest.raises(InputError, match=r"5 channels: 0, 1, 2, 3, 4"):
        open_planes(np.zeros((5, 8, 9)), axes="CYX", channel=channel)


def test_a_colour_can_be_chosen_by_name_or_number():
    data = noise(5, 6, 3)
    for channel in ("green", "Green", 1, "1"):
        np.testing.assert_array_equal(open_planes(data, channel=channel).read(0), data[..., 1])


def test_channel_of_a_single_channel_image():
    assert open_planes(np.zeros((5, 6)), channel=0).read(0).shape == (5, 6)
    with pytest.raises(InputError, match="single channel"):
        open_planes(np.zeros((5, 6)), channel=1)


@pytest.mark.parametrize("channel", ["DAPI", 0, 3])
def test_the_channel_of_a_training_is_no_matter_where_there_is_a_single_one(channel):
    taught = {"axes": None, "channel": channel}
    assert open_planes(np.zeros((5, 6)), taught=taught).read(0).shape == (5, 6)
    assert open_planes(np.zeros((4, 5, 6)), taught=taught, axes="ZYX").read(0).shape == (5, 6)
    with pytest.raises(InputError, match=r"'GFP' was asked for.*single channel"):
        open_planes(np.zeros((5, 6)), taught=taught, channel="GFP")


@pytest.mark.parametrize("channel", ["DAPI", 7])
def test_a_channel_of_a_training_that_is_missing_is_told_apart_from_one_asked_for(
    tmp_path, channel
):
    path, data = tmp_path / "a.ome.tif", noise(5, 8, 9)
    metadata = {"axes": "CYX", "Channel": {"Name": [f"dye {n}" for n in range(5)]}}
    tifffile.imwrite(path, data, metadata=metadata, photometric="minisblack")
    taught = {"axes": None, "channel": channel}
    with pytest.raises(
        InputError, match=rf"specialist was trained on .*{channel}.* 0 \(dye 0\), 1.*--channel"
    ):
        open_planes(path, taught=taught)
    with pytest.raises(InputError, match=rf"^There is no channel .*{channel}.* 0 \(dye 0\), 1"):
        open_planes(path, channel=channel)
    np.testing.assert_array_equal(open_planes(path, taught=taught, channel=4).read(0), data[4])
    taught["channel"] = "dye 2"
    np.testing.assert_array_equal(open_planes(path, taught=taught).read(0), data[2])


def test_axes_of_a_training_hold_for_arrays_of_as_many_axes():
    taught, data = {"axes": "CZYX", "channel": 1}, noise(2, 3, 8, 9)
    np.testing.assert_array_equal(open_planes(data, taught=taught).read(2), data[1, 2])
    assert len(open_planes(data[0], taught=taught)) == 3
    assert open_planes(data[0, 0], taught=taught).read(0).shape == (8, 9)
    assert len(open_planes(data, taught=taught, axes="ZCYX")) == 2
    with pytest.raises(InputError, match="name 4 axes"):
        open_planes(data[0], axes="CZYX")


def test_files_of_a_folder_take_of_a_training_what_fits_each(tmp_path):
    data = noise(2, 3, 8, 9)
    save(tmp_path / "a.npy", data)
    save(tmp_path / "b.npy", data[0, 0])
    save(tmp_path / "c.png", data[0, 1])
    planes = open_planes(tmp_path, taught={"axes": "CZYX", "channel": 1})
    for index, plane in enumerate([*data[1], data[0, 0], data[0, 1]]):
        np.testing.assert_array_equal(planes.read(index), plane)


def test_channels_of_colour_pictures():
    data = noise(2, 5, 6, 3)
    with pytest.raises(InputError, match="2 channels"):
        open_planes(data, axes="CYXS")
    np.testing.assert_array_equal(open_planes(data, axes="CYXS", channel=1).read(0), data[1])


@pytest.mark.parametrize("axes", ["YY", "ZY", "Y?X", "", "TZCYX", "ZYXC"])
def test_axes_that_do_not_fit_are_refused(axes):
    with pytest.raises(InputError, match="axes"):
        open_planes(np.zeros((4, 8, 9)), axes=axes)


def test_axes_may_leave_out_those_of_length_one():
    assert open_planes(np.zeros((1, 3, 1, 8, 9)), axes="CYX").read(0).shape == (8, 9, 3)


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (5, 0), (0, 5, 5), (5, 5, 0)])
def test_arrays_without_an_image_are_refused(shape):
    with pytest.raises(InputError, match="holds no image"):
        open_planes(np.zeros(shape))


@pytest.mark.parametrize("source", [None, 3, [np.zeros((4, 4))]])
def test_other_objects_are_refused(source):
    with pytest.raises(InputError, match=r"not an image source.*numpy\.stack"):
        open_planes(source)


def test_planes_are_given_back_as_they_are():
    planes = open_planes(np.zeros((4, 4)))
    assert open_planes(planes) is planes


def test_only_the_plane_asked_for_is_computed():
    computed = []

    def block(block_info=None):
        computed.append(block_info[None]["chunk-location"][0])
        return np.full((1, 8, 9), len(computed))

    lazy = dask.array.map_blocks(block, chunks=((1,) * 50, (8,), (9,)), dtype=np.int64)
    computed.clear()
    planes = open_planes(lazy)
    assert len(planes) == 50
    assert computed == []
    assert isinstance(planes.read(7), np.ndarray)
    assert computed == [7]


@pytest.mark.parametrize("index", [-1, 4])
def test_planes_out_of_range_are_refused(index):
    planes = open_planes(np.zeros((4, 8, 9)))
    for call in (planes.read, planes.shape_of, planes.read_labels, planes.path_of):
        with pytest.raises(InputError, match="numbered from 0 to 3"):
            call(index)


# ---- files


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".JPEG", ".tif", ".npy", ".zarr"])
@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3)])
def test_image_files_are_read(tmp_path, suffix, shape):
    image = np.full(shape, 77, np.uint8)
    planes = open_planes(save(tmp_path / f"a{suffix}", image))
    assert (planes.kind, list(planes.keys), len(planes)) == ("image", ["a"], 1)
    assert planes.shape_of(0) == (8, 9)
    np.testing.assert_array_equal(planes.read(0), image)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 2), (8, 9, 3), (8, 9, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_of_every_depth_and_colour(tmp_path, shape, dtype):
    image = noise(*shape, dtype=dtype) * dtype(200)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(image))
    np.testing.assert_array_equal(open_planes(path).read(0), image)


def test_a_palette_picture_has_colours_as_image_and_indices_as_labels(tmp_path):
    indices = noise(8, 9) % 3
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 128, 255])
    picture.save(tmp_path / "a.png")
    for source in (tmp_path, tmp_path / "a.png"):
        planes = open_planes(source)
        colours = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 255]])
        np.testing.assert_array_equal(planes.read(0), colours[indices])
        np.testing.assert_array_equal(planes.read_labels(0), indices)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits"])
@pytest.mark.parametrize("options", [{}, {"ome": True}, {"imagej": True}, {"bigtiff": True}])
def test_tiff_stacks(tmp_path, compression, options):
    data = noise(5, 16, 17, dtype=np.uint16)
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, data, compression=compression, metadata={"axes": "ZYX"}, **options)
    planes = open_planes(path)
    assert (planes.kind, len(planes), planes.keys[4]) == ("stack", 5, "0004")
    for number in range(5):
        np.testing.assert_array_equal(planes.read(number), data[number])


def test_tiff_pages_are_decoded_one_at_a_time(tmp_path):
    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path) as writer:
        for number in range(120):
            plane = np.full((256, 256), number, np.uint8)
            writer.write(plane, compression="zlib", metadata=None, contiguous=False)
    planes = open_planes(path)
    tracemalloc.start()
    for number in range(120):
        assert planes.read(number)[0, 0] == number
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000  # the stack has 7.9 million bytes


def test_npy_stacks_do_not_add_up_in_memory(tmp_path):
    data = noise(6, 8, 9)
    planes = open_planes(save(tmp_path / "s.npy", data))
    plane = planes.read(3)
    np.testing.assert_array_equal(plane, data[3])
    assert not isinstance(plane, np.memmap)
    assert not isinstance(plane.base, np.memmap)


@pytest.mark.parametrize("axes", ["TZCYX", "CZYX", "ZCYX", "YXC"])
def test_ome_tiff_axes_and_channel_names(tmp_path, axes):
    sizes = {"T": 2, "Z": 3, "C": 5, "Y": 8, "X": 9}
    data = noise(*(sizes[a] for a in axes))
    path = tmp_path / "a.ome.tif"
    names = [f"dye {n}" for n in range(5)]
    metadata = {"axes": axes, "Channel": {"Name": names}}
    if axes == "YXC":
        data, metadata["axes"] = data.transpose(2, 0, 1), "CYX"
    tifffile.imwrite(path, data, metadata=metadata)
    with pytest.raises(InputError, match=r"5 channels: 0 \(dye 0\), 1 \(dye 1\)"):
        open_planes(path)
    planes = open_planes(path, channel="Dye 3")
    expected = data.take(3, axis=metadata["axes"].index("C")).reshape(-1, 8, 9)
    assert len(planes) == len(expected)
    np.testing.assert_array_equal(planes.read(len(planes) - 1), expected[-1])


def test_axes_of_the_user_go_before_those_of_the_file(tmp_path):
    data = noise(3, 8, 9)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, metadata={"axes": "ZYX"}, ome=True)
    assert open_planes(path).read(0).shape == (8, 9)
    np.testing.assert_array_equal(open_planes(path, axes="CYX").read(0), data.transpose(1, 2, 0))


def test_colour_tiff_stored_by_planes_or_by_pixels(tmp_path):
    data = noise(4, 8, 9, 3)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, photometric="rgb")
    np.testing.assert_array_equal(open_planes(path).read(2), data[2])
    tifffile.imwrite(path, data.transpose(0, 3, 1, 2), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(open_planes(path).read(2), data[2])


def test_pixel_sizes_are_known(tmp_path):
    data = noise(4, 8, 9)
    ome = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "nm", "PhysicalSizeZ": 2}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=ome)
    assert open_planes(tmp_path / "a.ome.tif").parts[0].scale == {
        "X": (0.25, "nm"),
        "Z": (2.0, "µm"),
    }
    tifffile.imwrite(
        tmp_path / "b.tif",
        data,
        imagej=True,
        resolution=(10, 5),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 3},
    )
    scale = open_planes(tmp_path / "b.tif").parts[0].scale
    assert scale == {"X": (0.1, "µm"), "Y": (0.2, "µm"), "Z": (3.0, "µm")}


def test_imagej_stacks_of_one_page_and_the_rest_behind_it(tmp_path):
    data = noise(5, 8, 9, dtype=np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "ZYX"}, truncate=True)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
    np.testing.assert_array_equal(open_planes(path).read(4), data[4])


def test_tiff_with_images_of_several_sizes_is_refused_but_thumbnails_are_not(tmp_path):
    path = tmp_path / "a.tif"
    for second, refused in (((60, 64), True), ((8, 8), False)):
        with tifffile.TiffWriter(path) as writer:
            writer.write(noise(64, 64))
            writer.write(noise(*second))
        if refused:
            with pytest.raises(InputError, match="holds 2 images of different"):
                open_planes(path)
        else:
            assert open_planes(path).read(0).shape == (64, 64)


def test_ome_tiff_pyramids_give_the_full_resolution(tmp_path):
    data = noise(3, 64, 64)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(data, subifds=1, metadata={"axes": "ZYX"}, tile=(16, 16))
        writer.write(data[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    planes = open_planes(path)
    assert len(planes) == 3
    np.testing.assert_array_equal(planes.read(1), data[1])


def test_files_are_closed_when_no_longer_used(tmp_path):
    planes = open_planes(save(tmp_path / "a.tif", noise(4, 8, 9)))
    planes.read(0)
    handle = planes._stored.read._handle
    assert not handle.closed
    del planes
    gc.collect()
    assert handle.closed


# ---- Zarr


@pytest.mark.parametrize("version", ["0.1", "0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    data = noise(2, 5, 3, 8, 9)
    path = tmp_path / "a.ome.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("big", data=data)
    group.create_array("small", data=data[..., ::2, ::2])
    image = {
        "datasets": [
            {
                "path": name,
                "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 0.5, 0.5]}],
            }
            for name in ("big", "small")
        ],
    }
    if version != "0.1":
        kinds = {"t": "time", "c": "channel"}
        image["axes"] = [{"name": a, "type": kinds.get(a, "space")} for a in "tczyx"]
        for axis in image["axes"][2:]:
            axis["unit"] = "micrometer"
    omero = {"channels": [{"label": f"dye {n}"} for n in range(5)]}
    metadata = {"multiscales": [image], "omero": omero}
    group.attrs.update({"ome": metadata} if version == "0.5" else metadata)
    with pytest.raises(InputError, match=r"1 \(dye 1\)"):
        open_planes(path)
    for source in (path, group):
        planes = open_planes(source, channel="dye 1")
        assert len(planes) == 6
        np.testing.assert_array_equal(planes.read(4), data[1, 1, 1])
    if version != "0.1":
        assert planes.parts[0].scale["Z"] == (2.0, "µm")
    assert open_planes(path, channel=0).keys[5] == "0005"


def test_zarr_groups(tmp_path):
    path = tmp_path / "g.zarr"
    group = zarr.open_group(str(path), mode="w")
    data = noise(4, 8, 9)
    group.create_array("raw", data=data)
    np.testing.assert_array_equal(open_planes(path).read(2), data[2])
    np.testing.assert_array_equal(open_planes(path / "raw").read(2), data[2])
    np.testing.assert_array_equal(open_planes(group["raw"]).read(2), data[2])
    group.create_array("labels", data=data)
    with pytest.raises(InputError, match=r"labels, raw.*Give one of them"):
        open_planes(path)
    shutil.rmtree(path)
    zarr.open_group(str(path), mode="w", attributes={"plate": {}})
    with pytest.raises(InputError, match="whole plate"):
        open_planes(path)


# ---- folders


def test_a_folder_gives_its_images_in_natural_order(tmp_path):
    for name in ("img10.png", "img2.PNG", "sub/a.tif", "img1.jpg", "Sub2/b.npy", "x.ome.tif"):
        save(tmp_path / name, noise(8, 9))
    save(tmp_path / "vol.zarr", noise(8, 9))
    for name in (".hidden.png", "sub/.DS_Store", ".git/c.png", "__MACOSX/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    for name in ("Thumbs.db", "readme.txt", "table.csv"):
        (tmp_path / name).write_text("?")
    planes = open_planes(tmp_path)
    assert planes.kind == "folder"
    assert list(planes.keys) == ["img1", "img2", "img10", "sub/a", "Sub2/b", "vol", "x"]
    assert planes.path_of(3) == tmp_path / "sub" / "a.tif"
    for number in range(len(planes)):
        assert planes.read(number).shape == planes.shape_of(number) == (8, 9)


def test_stacks_in_a_folder_give_all_their_planes(tmp_path):
    stack = noise(3, 8, 9)
    save(tmp_path / "b.tif", stack)
    single = noise(5, 6)
    save(tmp_path / "a.png", single)
    save(tmp_path / "c.npy", noise(2, 4, 5))
    planes = open_planes(tmp_path)
    assert list(planes.keys) == ["a", "b/0000", "b/0001", "b/0002", "c/0000", "c/0001"]
    assert [(part.key, part.count) for part in planes.parts] == [("a", 1), ("b", 3), ("c", 2)]
    np.testing.assert_array_equal(planes.read(0), single)
    np.testing.assert_array_equal(planes.read(2), stack[1])
    assert planes.describe(2) == f"plane 1 of {tmp_path / 'b.tif'}"
    assert planes.describe(0) == str(tmp_path / "a.png")
    assert not planes.in_stack(0)
    assert planes.in_stack(1)


def test_only_headers_of_stacks_are_read_when_a_folder_is_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    planes = open_planes(tmp_path)
    with pytest.raises(InputError, match=r"a\.png"):
        planes.read(0)


def test_two_files_of_one_name_are_refused(tmp_path):
    save(tmp_path / "a.png", noise(4, 4))
    save(tmp_path / "a.tif", noise(4, 4))
    with pytest.raises(InputError, match=r"a\.png and .*a\.tif have the same name"):
        open_planes(tmp_path)


def test_options_apply_to_every_file_of_a_folder(tmp_path):
    save(tmp_path / "a.png", noise(8, 9, 3))
    planes = open_planes(tmp_path, channel="red")
    assert planes.read(0).shape == (8, 9)
    with pytest.raises(InputError, match=r"'ZYXS'.*a\.png"):
        open_planes(tmp_path, axes="ZYXS").read(0)


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="It is empty"):
        open_planes(tmp_path)
    (tmp_path / "notes.txt").write_text("?")
    with pytest.raises(InputError, match=r"holds notes\.txt.*Valid are PNG"):
        open_planes(tmp_path)


def test_ome_tiffs_of_several_files_in_a_folder_do_not_repeat_planes(tmp_path):
    """Micro-Manager writes positions as files that name each other."""
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="9" SizeY="8" SizeC="1" '
        'SizeZ="1" SizeT="2"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<TiffData FirstT="0" IFD="0"><UUID FileName="a.ome.tif">urn:uuid:a</UUID></TiffData>'
        '<TiffData FirstT="1" IFD="0"><UUID FileName="b.ome.tif">urn:uuid:b</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    data = noise(2, 8, 9)
    for name, plane in zip("ab", data, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", plane, description=xml, metadata=None)
    folder = open_planes(tmp_path)
    assert list(folder.keys) == ["a", "b"]
    np.testing.assert_array_equal(folder.read(1), data[1])
    whole = open_planes(tmp_path / "a.ome.tif")
    assert len(whole) == 2
    np.testing.assert_array_equal(whole.read(1), data[1])


# ---- damage


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_planes(tmp_path / "nothing.tif")


@pytest.mark.parametrize("name", ["a.czi", "a.txt", "a"])
def test_other_kinds_of_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(InputError, match="Valid are PNG") as caught:
        open_planes(tmp_path / name)
    assert ("Bio-Formats" in str(caught.value)) == name.endswith("czi")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".npy"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95])
def test_files_that_are_cut_off_are_refused(tmp_path, suffix, keep):
    path = save(tmp_path / f"a{suffix}", noise(64, 65))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=f"a{suffix}"):
        open_planes(path).read(0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".npy"])
def test_files_of_something_else_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("<html>404</html>" * 10)
    with pytest.raises(InputError, match=f"a{suffix}"):
        open_planes(path)


def test_pickles_in_npy_are_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError):
        open_planes(tmp_path / "a.npy")
    assert not (tmp_path / "ran").exists()


def test_damaged_zarr_is_refused(tmp_path):
    path = save(tmp_path / "a.zarr", noise(8, 9))
    (path / "zarr.json").write_text(json.dumps({"zarr_format": 3}))
    with pytest.raises(InputError, match=r"a\.zarr"):
        open_planes(path)


def test_cmyk_is_refused(tmp_path):
    Image.fromarray(noise(8, 9, 3)).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="CMYK"):
        open_planes(tmp_path / "a.jpg")


# ---- subsets and ranges


def test_a_subset_is_a_view_with_its_own_numbers():
    data = noise(6, 8, 9)
    planes = open_planes(data).subset([4, 1])
    assert list(planes.keys) == ["0004", "0001"]
    np.testing.assert_array_equal(planes.read(0), data[4])
    np.testing.assert_array_equal(planes.subset([1]).read(0), data[1])
    (part,) = planes.parts
    assert (part.axes, part.shape, part.count) == ("Z", (2,), 2)
    with pytest.raises(InputError, match="numbered from 0 to 5"):
        open_planes(data).subset([6])


def test_a_subset_of_everything_keeps_the_axes():
    planes = open_planes(np.zeros((2, 3, 8, 9)), axes="TZYX")
    assert planes.subset(range(6)).parts[0].shape == (2, 3)
    assert planes.subset(range(5)).parts[0].shape == (5,)


def test_a_subset_of_a_folder_keeps_the_files_of_its_planes(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.png", noise(4, 4))
    planes = open_planes(tmp_path).subset([0, 2])
    assert [part.key for part in planes.parts] == ["a", "c"]
    assert planes.path_of(1) == tmp_path / "c.png"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("0,3,7-9", [0, 3, 7, 8, 9]),
        (" 4 , 2 - 3 ", [2, 3, 4]),
        ("5", [5]),
        ("1,1-2", [1, 2]),
    ],
)
def test_plane_ranges(text, numbers):
    assert parse_plane_ranges(text) == numbers


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "-1", "1,,2", "1.5", "1 2", "3-1", "0-99999999999"]
)
def test_wrong_plane_ranges_are_refused(text):
    with pytest.raises(InputError, match=r"0-15|backwards|beyond"):
        parse_plane_ranges(text)


# ---- windows, series, microscopes


@pytest.mark.parametrize("axes", ["YX", "TZYX", "YXS", "ZSYX"])
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "tiled", "strips", "plain"])
def test_a_window_is_a_part_of_its_plane(tmp_path, monkeypatch, axes, kind):
    monkeypatch.setattr(tiff, "_LARGE_PAGE", 0)
    sizes = {"T": 2, "Z": 3, "S": 3, "Y": 130, "X": 150}
    data = RNG.integers(0, 60000, [sizes[a] for a in axes]).astype(np.uint16)
    path = tmp_path / "a.tif"
    if kind in ("numpy", "dask", "zarr"):
        wrap = {"numpy": np.asarray, "dask": dask.array.from_array, "zarr": zarr.array}[kind]
        planes = open_planes(wrap(data), axes=axes)
    else:
        options = {"tiled": {"tile": (32, 48)}, "strips": {"rowsperstrip": 16}, "plain": {}}[kind]
        compression = None if kind == "plain" else "zlib"
        colour = {"photometric": "rgb" if "S" in axes else "minisblack"}
        if axes == "ZSYX":
            colour["planarconfig"] = "separate"
        tifffile.imwrite(path, data, compression=compression, **options, **colour)
        planes = open_planes(path, axes=axes)
    for index in range(len(planes)):
        part = planes.read_window(index, slice(30, 101), slice(7, 150))
        np.testing.assert_array_equal(part, planes.read(index)[30:101, 7:150])
    last = planes.subset([len(planes) - 1])
    part = last.read_window(0, slice(0, 5), slice(2, 3))
    np.testing.assert_array_equal(part, planes.read(len(planes) - 1)[:5, 2:3])


def test_a_window_of_a_large_page_decodes_only_its_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_LARGE_PAGE", 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(512, 512), tile=(64, 64), compression="zlib")
    planes = open_planes(path)
    monkeypatch.setattr(tiff, "_decode", lambda page: pytest.fail("the whole page was decoded"))
    assert planes.read_window(0, slice(100, 120), slice(300, 310)).shape == (20, 10)


def test_of_a_multiscale_image_the_full_resolution_is_read():
    levels = [np.zeros((3, 64, 64)), np.zeros((3, 32, 32)), np.zeros((3, 16, 16))]
    assert open_planes(levels).shape_of(0) == (64, 64)
    with pytest.raises(InputError, match="not an image source"):
        open_planes(levels[::-1])


def test_a_folder_of_equal_images_can_be_one_stack(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((4, 5), number))
    stack = as_stack(open_planes(tmp_path))
    assert (stack.kind, stack.parts[0].axes, stack.parts[0].shape) == ("stack", "Z", (3,))
    assert [int(stack.read(n).max()) for n in range(3)] == [0, 1, 2]
    assert as_stack(stack) is stack
    np.save(tmp_path / "3.npy", np.zeros((5, 4)))
    with pytest.raises(InputError, match="different sizes are no stack"):
        as_stack(open_planes(tmp_path))


def test_microscope_files_are_read_with_bioio(tmp_path, monkeypatch):
    opened = []
    data = RNG.integers(0, 99, (1, 2, 3, 8, 9)).astype(np.uint16)

    class Image:
        dask_data = dask.array.from_array(data, chunks=(1, 1, 1, 8, 9))
        dims = SimpleNamespace(order="TCZYX")
        channel_names = ("nuclei", "actin")
        physical_pixel_sizes = SimpleNamespace(Z=0.5, Y=0.1, X=0.1)

        def __init__(self, path, reader):
            opened.append((path, reader))

    path = tmp_path / "a.nd2"
    path.touch()
    monkeypatch.setitem(sys.modules, "bioio", SimpleNamespace(BioImage=Image))
    monkeypatch.setitem(sys.modules, "bioio_nd2", SimpleNamespace(Reader="nd2"))
    planes = open_planes(path, channel="actin")
    np.testing.assert_array_equal(planes.read(2), data[0, 1, 2])
    assert opened == [(path, "nd2")]
    assert planes.parts[0].scale["Z"] == (0.5, "µm")


@pytest.mark.filterwarnings("ignore")  # of the reader's own
def test_a_real_file_of_a_microscope_is_read(tmp_path):
    pytest.importorskip("bioio_czi", reason="pip install bioio bioio-czi")
    czi = pytest.importorskip("pylibCZIrw.czi")
    data = RNG.integers(0, 999, (2, 2, 3, 20, 30)).astype(np.uint16)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for t, c, z in np.ndindex(2, 2, 3):
            file.write(data[t, c, z][..., None], plane={"T": t, "C": c, "Z": z})
        sizes = {"scale_x": 1e-7, "scale_y": 1e-7, "scale_z": 5e-7}
        file.write_metadata("a", channel_names={0: "nuclei", 1: "actin"}, **sizes)
    planes = open_planes(tmp_path / "a.czi", channel="actin")
    part = planes.parts[0]
    assert (part.axes, part.shape) == ("TZ", (2, 3))
    assert part.scale == {"Z": (0.5, "µm"), "Y": (0.1, "µm"), "X": (0.1, "µm")}
    np.testing.assert_array_equal(planes.read(4), data[1, 1, 1])
    window = planes.read_window(2, slice(3, 9), slice(1, 4))
    np.testing.assert_array_equal(window, data[0, 1, 2, 3:9, 1:4])


def test_without_bioio_microscope_files_are_refused_with_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.lif").touch()
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(InputError, match="pip install bioio bioio-lif"):
        open_planes(tmp_path / "a.lif")
