"""What files say of pixel sizes and samples is taken as far as it can be."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import zarr

from napari_ptsam.errors import InputError
from napari_ptsam.planes import open_planes
from napari_ptsam.planes.microscopes import open_microscope
from napari_ptsam.planes.part import usable_scale

RNG = np.random.default_rng(0)
USELESS = ["0", "-1", "nan", "inf", "1e999", "wide", ""]


def noise(*shape):
    return RNG.integers(0, 200, shape, dtype=np.uint8)


# ---- pixel sizes


@pytest.mark.parametrize("size", [*USELESS, 0, -0.5, float("nan"), None, [], 10**400])
def test_a_size_that_is_no_length_counts_as_not_stated(size):
    assert usable_scale({"X": (size, "µm"), "Y": ("0.25", "nm")}) == {"Y": (0.25, "nm")}


@pytest.mark.parametrize("size", USELESS)
def test_a_useless_size_in_ome_tiff_is_passed_over(tmp_path, size):
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.125, "TimeIncrement": 4}
    tifffile.imwrite(path, noise(3, 8, 9), metadata={"axes": "TYX", **sizes})
    text = tifffile.tiffcomment(path)
    text = text.replace('"0.25"', f'"{size}"').replace(
        'TimeIncrement="4"', f'TimeIncrement="{size}"'
    )
    tifffile.tiffcomment(path, text.encode())
    assert open_planes(path).parts[0].scale == {"Y": (0.125, "µm")}


@pytest.mark.parametrize("spacing", [0, -2, float("nan"), "wide"])
def test_a_useless_distance_in_imagej_tiff_is_passed_over(tmp_path, spacing):
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "unit": "um", "spacing": spacing}
    tifffile.imwrite(path, noise(3, 8, 9), imagej=True, resolution=(10, 5), metadata=metadata)
    assert set(open_planes(path).parts[0].scale) == {"Y", "X"}


@pytest.mark.parametrize("size", [0, -1.0, None, "wide"])
def test_a_useless_size_in_ome_zarr_is_passed_over(tmp_path, size):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=noise(3, 8, 9))
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    moves = [{"type": "scale", "scale": [size, 0.5, 0.25]}]
    datasets = [{"path": "0", "coordinateTransformations": moves}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets}]
    scale = open_planes(tmp_path / "a.zarr").parts[0].scale
    assert scale == {"Y": (0.5, "µm"), "X": (0.25, "µm")}


@pytest.mark.parametrize("size", [0, None, float("nan"), float("inf")])
def test_a_useless_size_of_a_microscope_is_passed_over(tmp_path, monkeypatch, size):
    image = SimpleNamespace(
        dask_data=noise(3, 8, 9),
        dims=SimpleNamespace(order="ZYX"),
        channel_names=None,
        physical_pixel_sizes=SimpleNamespace(Z=size, Y=0.1, X=0.1),
    )
    bioio = SimpleNamespace(BioImage=lambda path, reader: image)
    monkeypatch.setitem(sys.modules, "bioio", bioio)
    monkeypatch.setitem(sys.modules, "bioio_nd2", SimpleNamespace(Reader=None))
    assert set(open_microscope(tmp_path / "a.nd2", "").scale) == {"Y", "X"}


# ---- samples


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("count", [2, 4])
def test_samples_of_unknown_meaning_are_channels_to_choose_from(
    tmp_path, count, planar, photometric
):
    data, path = noise(8, 9, count), tmp_path / "a.tif"
    stored = data if planar == "contig" else data.transpose(2, 0, 1)
    tifffile.imwrite(path, stored, photometric=photometric, planarconfig=planar)
    with pytest.raises(InputError, match=f"has {count} channels"):
        open_planes(path)
    for channel in range(count):
        planes = open_planes(path, channel=channel)
        np.testing.assert_array_equal(planes.read(0), data[..., channel])


def test_the_black_of_a_picture_for_print_is_not_taken_for_alpha(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(8, 9, 4), photometric="separated")
    with pytest.raises(InputError, match="has 4 channels"):
        open_planes(tmp_path / "a.tif")


@pytest.mark.parametrize("alpha", ["ASSOCALPHA", "UNASSALPHA"])
@pytest.mark.parametrize(
    ("count", "photometric", "others"),
    [(2, "minisblack", []), (4, "rgb", []), (4, "minisblack", ["UNSPECIFIED"] * 2)],
)
def test_samples_with_alpha_are_a_picture(tmp_path, count, photometric, others, alpha):
    data, path = noise(8, 9, count), tmp_path / "a.tif"
    kinds = {"photometric": photometric, "extrasamples": [*others, alpha]}
    tifffile.imwrite(path, data, planarconfig="contig", **kinds)
    np.testing.assert_array_equal(open_planes(path).read(0), data)


@pytest.mark.parametrize("options", [{}, {"extrasamples": ["UNSPECIFIED"]}])
def test_colours_are_a_picture_whatever_comes_with_them(tmp_path, options):
    data = noise(8, 9, 3 + len(options))
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", **options)
    np.testing.assert_array_equal(open_planes(tmp_path / "a.tif").read(0), data)


def test_the_user_may_call_samples_a_picture(tmp_path):
    data, path = noise(8, 9, 4), tmp_path / "a.tif"
    tifffile.imwrite(path, data, photometric="minisblack", planarconfig="contig")
    for axes in ("YXS", "YXC"):
        np.testing.assert_array_equal(open_planes(path, axes=axes).read(0), data)
