"""An input is known again where it was moved to, and not where it was edited."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import tifffile
import zarr
from stacks import any_specialist, drained, spots, write_source

from napari_ptsam.errors import InputError
from napari_ptsam.planes import as_stack, open_planes
from napari_ptsam.volumes import inputs, segment_volume

COUNT = 12
EDITED = 4  # no plane of which pixels are looked at


def write_folder(path, data):
    path.mkdir()
    for number, plane in enumerate(data):
        tifffile.imwrite(path / f"z{number:02d}.tif", plane, photometric="minisblack")
    return path


def edit_folder(path):
    tifffile.imwrite(
        path / f"z{EDITED:02d}.tif", np.zeros((40, 50), np.uint16), photometric="minisblack"
    )


def edit_zarr(path):
    array = zarr.open_group(path, mode="r+")["0"] if (path / "0").is_dir() else zarr.open(path)
    array[EDITED] = 0


def write_arrays(path, data, **options):
    zarr.create_array(str(path), data=data, chunks=(1, 20, 25), **options)
    return path


def write_sharded(path, data):
    return write_arrays(path, data, shards=(1, 40, 50))


def write_old(path, data):
    return write_arrays(path, data, zarr_format=2)


def identity(path, planes=None):
    stack = as_stack(open_planes(path))
    return inputs.input_identity(stack if planes is None else stack.subset(planes))


@pytest.fixture(
    params=[
        (write_folder, edit_folder),
        (write_source, edit_zarr),
        (write_arrays, edit_zarr),
        (write_sharded, edit_zarr),
        (write_old, edit_zarr),
    ],
    ids=lambda pair: pair[0].__name__,
)
def kind(request):
    return request.param


def test_an_edited_plane_is_another_input_and_a_moved_one_the_same(kind, tmp_path):
    write, edit = kind
    source = write(tmp_path / "in", spots(COUNT, 40, 50))
    first = identity(source)
    assert identity(source) == first
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(source, tmp_path / "elsewhere" / "renamed")
    assert identity(moved) == first
    shutil.copytree(moved, tmp_path / "copied")  # with its times
    assert identity(tmp_path / "copied") == first
    edit(moved)
    changed = identity(moved)
    assert [name for name in first if first[name] != changed[name]] == ["sizes and times of files"]


def test_a_folder_of_which_planes_were_chosen_may_grow(tmp_path):
    source = write_folder(tmp_path / "in", spots(COUNT, 40, 50))
    first = identity(source, range(6))
    tifffile.imwrite(source / "z99.tif", spots(40, 50), photometric="minisblack")
    assert identity(source, range(6)) == first
    edit_folder(source)
    assert identity(source, range(6)) != first


def test_labels_that_are_kept_in_an_image_do_not_change_it(tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(COUNT, 40, 50))
    first = identity(source)
    group = zarr.open_group(source, mode="r+")
    labels = group.create_group("labels").create_array("0", data=np.zeros((99, 99, 99), np.uint8))
    assert identity(source) == first
    labels[:] = 1
    assert identity(source) == first


def test_of_very_many_chunks_a_part_is_looked_at(tmp_path, monkeypatch):
    source = write_arrays(tmp_path / "in.zarr", spots(COUNT, 40, 50))
    looked = []
    measure = inputs._size_and_time
    monkeypatch.setattr(inputs, "_size_and_time", lambda path: looked.append(path) or measure(path))
    identity(source)
    assert len(set(looked)) == COUNT * 4
    assert all(path.is_file() for path in looked)
    monkeypatch.setattr(inputs, "_CHUNKS", 5)
    looked.clear()
    identity(source)
    assert len(set(looked)) == 5
    assert {path.parts[-3] for path in looked} == {"0", "2", "4", "7", "9"}


def test_a_job_on_an_edited_folder_says_what_differs(tiny_backbone, tmp_path):
    specialist = any_specialist(tiny_backbone)
    source = write_folder(tmp_path / "in", spots(COUNT, 40, 50))
    out = tmp_path / "out.zarr"
    drained(segment_volume(specialist, source, out))
    assert drained(segment_volume(specialist, source, out))[1].found
    edit_folder(source)
    with pytest.raises(InputError, match="input: sizes and times of files"):
        drained(segment_volume(specialist, source, out))
    copied = shutil.copytree(source, tmp_path / "copied", copy_function=shutil.copyfile)
    os.utime(copied / "z00.tif", ns=(1, 1))
    with pytest.raises(InputError, match="input: sizes and times of files"):
        drained(segment_volume(specialist, copied, out))
