"""OME-Zarr as others read it: versions, pyramid, axes, units, blocks in any order."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr

from napari_ptsam.errors import InputError
from napari_ptsam.omezarr import OmeZarr
from napari_ptsam.planes import Part, open_planes

RNG = np.random.default_rng(0)
SCALE = {"T": (2.5, "s"), "Z": (0.5, "µm"), "Y": (0.1, "µm"), "X": (0.2, "µm")}


def movie(axes="TZ", shape=(2, 3)):
    return Part("movie", int(np.prod(shape)), axes, shape, SCALE)


def described(path, version):
    if version == "0.4":
        return json.loads((path / ".zattrs").read_text())["multiscales"][0]
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_keeps_axes_scale_and_units(tmp_path, version):
    data = RNG.integers(0, 2, (6, 300, 280), np.uint8)
    path = tmp_path / "a.zarr"
    image = OmeZarr.create(path, movie(), data.shape[1:], np.uint8, version=version)
    for number, plane in enumerate(data):
        image.write(number, plane)
    found = described(path, version)
    assert [axis["name"] for axis in found["axes"]] == list("tzyx")
    assert [axis["unit"] for axis in found["axes"]] == ["second", *["micrometer"] * 3]
    steps = [d["coordinateTransformations"][0]["scale"] for d in found["datasets"]]
    assert steps == [[2.5, 0.5, 0.1, 0.2], [2.5, 0.5, 0.2, 0.4]]
    back = open_planes(path)
    assert back.parts[0].scale == SCALE
    assert (back.parts[0].axes, back.parts[0].shape) == ("TZ", (2, 3))
    np.testing.assert_array_equal(np.stack([back.read(n) for n in range(6)]), data)
    small = zarr.open_group(path)["1"]
    np.testing.assert_array_equal(small[1, 2], data[5, ::2, ::2])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_formats_own_models_accept_it(tmp_path, version):
    models = pytest.importorskip("ome_zarr_models", reason="pip install ome-zarr-models")
    for labels in (True, False):
        path = tmp_path / f"{labels}.zarr"
        kind = np.uint8 if labels else np.float32
        OmeZarr.create(path, movie(), (600, 280), kind, version=version, labels=labels)
        group = models.open_ome_zarr(zarr.open_group(path, mode="r"))
        assert group.ome_zarr_version == version


def test_means_lie_between_their_pixels(tmp_path):
    part = Part("p", 1, "", (), {"Y": (2.0, "nm"), "X": (2.0, "nm")})
    image = OmeZarr.create(tmp_path / "a.zarr", part, (301, 300), np.float32, labels=False)
    data = RNG.random((301, 300), np.float32)
    image.write(0, data)
    small = zarr.open_group(tmp_path / "a.zarr")["1"][:]
    assert small.shape == (151, 150)
    assert small[3, 5] == pytest.approx(data[6:8, 10:12].mean())
    level = described(tmp_path / "a.zarr", "0.5")["datasets"][1]
    assert level["coordinateTransformations"][1]["translation"] == [1.0, 1.0]


def test_blocks_in_any_order_give_the_same_as_whole_planes(tmp_path):
    data = RNG.integers(0, 9, (1100, 900), np.int32)
    part = Part("p")
    whole = OmeZarr.create(tmp_path / "w.zarr", part, data.shape, np.int32)
    whole.write(0, data)
    blocks = OmeZarr.create(tmp_path / "b.zarr", part, data.shape, np.int32, block=256)
    corners = [(y, x) for y in range(0, 1100, 256) for x in range(0, 900, 256)]
    for y, x in reversed(corners):
        blocks.write(0, data[y : y + 256, x : x + 256], (y, x))
    first, second = (zarr.open_group(tmp_path / f"{n}.zarr") for n in "wb")
    assert len(list(second.array_keys())) >= 3
    for level in second.array_keys():
        np.testing.assert_array_equal(first[level][:], second[level][:])
        # A block is whole chunks, so that no two writers meet in one file.
        assert second[level].chunks[0] == 256 >> int(level)


def test_depth_before_time_is_stored_as_the_format_demands(tmp_path):
    image = OmeZarr.create(tmp_path / "a.zarr", movie("ZT", (3, 2)), (8, 9), np.uint8)
    for number in range(6):
        image.write(number, np.full((8, 9), number, np.uint8))
    assert image.axes == "TZYX"
    stored = zarr.open_group(tmp_path / "a.zarr")["0"][:]
    np.testing.assert_array_equal(stored[:, :, 0, 0], np.arange(6).reshape(3, 2).T)
    assert OmeZarr.open(tmp_path / "a.zarr", movie("ZT", (3, 2))).read(3).max() == 3


def test_other_versions_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"0\.5 and 0\.4"):
        OmeZarr.create(tmp_path / "a.zarr", Part("p"), (8, 9), np.uint8, version="0.3")


def test_time_steps_go_into_ome_tiff_and_back(tmp_path):
    from napari_ptsam.sinks import TiffSink

    plane = np.zeros((8, 9), np.uint8)
    sink = TiffSink(tmp_path / "a.ome.tif", movie(), plane)
    for _ in range(6):
        sink.write(plane)
    sink.finish()
    assert open_planes(tmp_path / "a.ome.tif").parts[0].scale == SCALE
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.series[0].axes == "TZYX"
