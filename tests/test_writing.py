"""What is written has the shape of what was read, and is never half there."""

from __future__ import annotations

import errno
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_ptsam import sinks
from napari_ptsam.errors import InputError
from napari_ptsam.planes import open_planes
from napari_ptsam.writing import open_output

RNG = np.random.default_rng(0)


def masks_for(planes):
    return [RNG.random(planes.shape_of(index)) > 0.5 for index in range(len(planes))]


def write(path, planes, masks=None, **options):
    masks = masks_for(planes) if masks is None else masks
    with open_output(path, planes, **options) as writer:
        for index, mask in enumerate(masks):
            writer.write(index, mask)
    return writer.path, masks


def check(path, masks):
    back = open_planes(path)
    assert len(back) == len(masks)
    for index, mask in enumerate(masks):
        read = back.read(index)
        assert read.dtype == (np.uint8 if mask.dtype == bool else np.float32)
        np.testing.assert_array_equal(read, mask)
    return back


def files_in(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(images / "a.png")
    np.save(images / "sub" / "b.npy", np.zeros((5, 6, 7)))
    tifffile.imwrite(images / "c.ome.tif", np.zeros((1, 9)))
    return images


# ---- shapes


def test_a_folder_gives_a_folder_of_the_same_names(tmp_path, folder):
    planes = open_planes(folder)
    path, masks = write(tmp_path / "out", planes)
    assert path == tmp_path / "out"
    assert files_in(path) == ["a.tif", "c.tif", "sub/b.tif"]
    assert list(check(path, masks).keys) == list(planes.keys)


def test_a_part_of_a_folder_gives_its_files_with_the_chosen_planes(tmp_path, folder):
    chosen = open_planes(folder).subset([0, 3, 5])
    path, masks = write(tmp_path / "out", chosen)
    assert files_in(path) == ["a.tif", "sub/b.tif"]
    assert len(check(path, masks)) == 3


@pytest.mark.parametrize("name", ["out.tif", "out.tiff", "out.ome.tif", "new/out.zarr"])
@pytest.mark.parametrize("shape", [(4, 8, 9), (8, 9), (3, 1, 7), (5, 1)])
def test_a_stack_or_image_gives_one_file(tmp_path, name, shape):
    path, masks = write(tmp_path / name, open_planes(np.zeros(shape)))
    assert path == tmp_path / name
    check(path, masks)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "TZCYX", "CZYX", "RYX"])
def test_time_and_depth_stay_axes(tmp_path, name, axes):
    sizes = {"T": 2, "Z": 3, "C": 2, "R": 4, "Y": 8, "X": 9}
    data = np.zeros([sizes[a] for a in axes], np.uint8)
    planes = open_planes(data, axes=axes, channel=1 if "C" in axes else None)
    path, masks = write(tmp_path / name, planes)
    kept = axes.replace("C", "").replace("R", "Z")
    (part,) = check(path, masks).parts
    assert part.axes + "YX" == kept
    assert part.shape == planes.parts[0].shape
    with_all = tifffile.imread(path) if name.endswith("tif") else zarr.open(str(path))["0"][:]
    assert with_all.shape == (*part.shape, 8, 9)


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_pixel_sizes_are_passed_on(tmp_path, name):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeY": 5.0, "PhysicalSizeZ": 50.0}
    metadata |= {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    source = tmp_path / "in.ome.tif"
    tifffile.imwrite(source, np.zeros((3, 8, 9), np.uint8), metadata=metadata)
    planes = open_planes(source)
    path, _ = write(tmp_path / name, planes)
    scale = {"X": (4.0, "nm"), "Y": (5.0, "nm"), "Z": (50.0, "nm")}
    assert open_planes(path).parts[0].scale == planes.parts[0].scale == scale


def test_a_folder_as_output_of_a_stack_gets_a_file_of_the_source_name(tmp_path):
    source = tmp_path / "em.ome.tif"
    tifffile.imwrite(source, np.zeros((3, 8, 9), np.uint8), metadata={"axes": "ZYX"})
    path, masks = write(tmp_path / "out", open_planes(source))
    assert path == tmp_path / "out" / "em.tif"
    check(path, masks)


def test_chosen_planes_of_a_stack_give_a_stack_of_these(tmp_path):
    planes = open_planes(np.zeros((2, 3, 8, 9)), axes="TZYX").subset([1, 4, 5])
    path, masks = write(tmp_path / "out.tif", planes)
    assert check(path, masks).parts[0].shape == (3,)


def test_probabilities_are_written_beside_the_masks(tmp_path, folder):
    stack = open_planes(np.zeros((3, 8, 9)))
    values = list(RNG.random((3, 8, 9), dtype=np.float32))
    for name, beside in (
        ("out.tif", "out_probability.tif"),
        ("a.ome.tif", "a_probability.ome.tif"),
        ("out.zarr", "out_probability.zarr"),
        ("results", "results/image_probability.tif"),
    ):
        path, _ = write(tmp_path / name, stack, values, probability=True)
        assert path == tmp_path / beside
        check(path, values)
    planes = open_planes(folder)
    values = [np.full(planes.shape_of(n), n / 7, np.float32) for n in range(len(planes))]
    path, _ = write(tmp_path / "masks", planes, values, probability=True)
    assert path == tmp_path / "masks_probability"
    check(path, values)


def test_masks_are_0_and_1_in_an_ordinary_compressed_file(tmp_path):
    planes = open_planes(np.zeros((3, 64, 64)))
    path, _ = write(tmp_path / "out.tif", planes, [np.full((64, 64), 255)] * 3)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert not file.is_bigtiff
        assert file.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert (file.asarray() == 1).all()
    assert path.stat().st_size < 3000


def test_large_stacks_become_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, "_CLASSIC_TIFF", 3 * 8 * 9 - 1)
    path, masks = write(tmp_path / "out.tif", open_planes(np.zeros((3, 8, 9))))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
    check(path, masks)


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_the_stack_is_never_in_memory(tmp_path, name):
    class Endless:
        shape = (500, 256, 256)
        dtype = np.dtype(np.uint8)

        def __getitem__(self, index):
            return np.full((256, 256), index[0] % 2, np.uint8)

    planes = open_planes(Endless())
    with open_output(tmp_path / name, planes) as writer:
        writer.write(0, planes.read(0))  # imports are not what is measured
        tracemalloc.start()
        for index in range(1, 500):
            writer.write(index, planes.read(index))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8_000_000  # of 33 million
    back = open_planes(writer.path)
    assert [int(back.read(n).max()) for n in (0, 7, 498, 499)] == [0, 1, 0, 1]


# ---- never half there


def write_and_stop(path, planes, masks, error):
    with open_output(path, planes) as writer:
        for index, mask in enumerate(masks):
            writer.write(index, mask)
            assert planes.kind == "folder" or not path.exists()
        raise error


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, ValueError])
def test_an_interrupted_stack_leaves_nothing(tmp_path, name, error):
    planes = open_planes(np.zeros((3, 8, 9)))
    with pytest.raises(error):
        write_and_stop(tmp_path / name, planes, masks_for(planes)[:2], error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_an_interrupted_run_leaves_the_earlier_result(tmp_path, name):
    planes = open_planes(np.zeros((3, 8, 9)))
    path, masks = write(tmp_path / name, planes)
    with pytest.raises(InputError, match="Only 1 of 3 planes"):
        write(path, planes, masks[:1])
    check(path, masks)
    path, masks = write(tmp_path / name, planes)
    check(path, masks)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_complete_files_of_an_interrupted_folder_stay(tmp_path, folder):
    planes = open_planes(folder)
    masks = masks_for(planes)
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(tmp_path / "out", planes, masks[:4], KeyboardInterrupt)
    assert files_in(tmp_path / "out") == ["a.tif", "c.tif"]


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_a_full_disk_is_explained(tmp_path, monkeypatch, name):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    planes = open_planes(np.zeros((2, 8, 9)))
    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    with pytest.raises(InputError, match="No space left on device"):
        write(tmp_path / name, planes)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("?")
    entered = []
    with (
        pytest.raises(InputError, match="cannot be written"),
        open_output(tmp_path / "file" / "out.tif", open_planes(np.zeros((8, 9)))),
    ):
        entered.append(True)
    assert not entered


# ---- what is refused


@pytest.mark.parametrize("out", ["images", "images/results"])
def test_output_into_the_input_folder_is_refused(tmp_path, folder, out):
    before = files_in(folder)
    with pytest.raises(InputError, match="within the input"):
        write(tmp_path / out, open_planes(folder))
    assert files_in(folder) == before


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_the_input_is_not_overwritten(tmp_path, suffix):
    source = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(source, np.zeros((8, 9)))
    else:
        zarr.create_array(str(source), data=np.zeros((8, 9)))
    for out in (source, tmp_path / "x" / ".." / f"a{suffix}"):
        with pytest.raises(InputError, match="is an input file"):
            write(out, open_planes(source))


def test_a_zarr_that_holds_the_input_is_not_replaced(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("raw", data=np.zeros((8, 9)))
    planes = open_planes(tmp_path / "a.zarr" / "raw")
    for out in ("a.zarr", "a.zarr/raw/masks.zarr"):
        with pytest.raises(InputError, match="the input"):
            write(tmp_path / out, planes)
    assert open_planes(tmp_path / "a.zarr" / "raw").shape_of(0) == (8, 9)


@pytest.mark.parametrize("name", ["out.png", "out.npy", "out.JPG"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"\.tif or \.zarr"):
        write(tmp_path / name, open_planes(np.zeros((8, 9))))


def test_file_and_folder_are_not_confused(tmp_path, folder):
    for name in ("out.tif", "out.zarr"):
        with pytest.raises(InputError, match="need a folder"):
            write(tmp_path / name, open_planes(folder))
    for name in ("x.tif", "x.zarr"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="is a folder"):
            write(tmp_path / name, open_planes(np.zeros((8, 9))))


def test_planes_come_in_order_and_fit(tmp_path):
    planes = open_planes(np.zeros((3, 8, 9)))
    mask = np.zeros((8, 9), bool)
    with (
        pytest.raises(InputError, match="in order, and 0 of 3"),
        open_output(tmp_path / "a.tif", planes) as writer,
    ):
        writer.write(1, mask)
    with pytest.raises(InputError, match=r"\(9, 8\) does not fit"):
        write(tmp_path / "a.tif", planes, [mask, mask.T])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="in order, and 3 of 3"):
        write(tmp_path / "a.tif", planes, [mask] * 4)


def test_a_selection_that_mixes_files_or_is_empty_is_refused(tmp_path, folder):
    planes = open_planes(folder)
    with pytest.raises(InputError, match="ascending"):
        write(tmp_path / "out", planes.subset([2, 0, 3]))
    with pytest.raises(InputError, match="No plane"):
        write(tmp_path / "out", planes.subset([]))


def test_relative_and_home_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    planes = open_planes(np.zeros((8, 9)))
    for name, expected in ((".", "image.tif"), ("~/b.tif", "b.tif"), ("c/../d.tif", "d.tif")):
        Path("c").mkdir(exist_ok=True)
        write(name, planes)
        assert (tmp_path / expected).is_file()
