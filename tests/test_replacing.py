"""Nothing is replaced that another made, and never an input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from stacks import any_specialist, drained, spots, write_source

from napari_ptsam.cli import main
from napari_ptsam.errors import InputError
from napari_ptsam.planes import Part, open_planes
from napari_ptsam.replacing import is_ours
from napari_ptsam.sinks import TiffSink, ZarrSink
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Settings, segment_volume
from napari_ptsam.volumes.folder import Batch, segment_folder
from napari_ptsam.writing import open_output

PLANE = np.full((8, 9), 7, np.uint8)
PLANES = open_planes(np.zeros((8, 9)))


@pytest.fixture(scope="module")
def specialist(tiny_backbone: Path) -> Specialist:
    return any_specialist(tiny_backbone)


def painted(path: Path) -> Path:
    """Labels as napari saves them, with what writes our own results too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = (ZarrSink if path.suffix == ".zarr" else TiffSink)(path, Part("labels"), PLANE)
    sink.write(PLANE)
    sink.finish()
    return path


def is_painted(path: Path) -> bool:
    return bool((open_planes(path).read(0) == 7).all())


def write(path, planes=PLANES, **options):
    with open_output(path, planes, **options) as writer:
        for index in range(len(planes)):
            writer.write(index, np.zeros(planes.shape_of(index)))


# ---- planes


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif", "out.zarr"])
def test_what_is_not_ours_is_replaced_only_when_told_to(tmp_path, name):
    path = painted(tmp_path / name)
    assert not is_ours(path)
    with pytest.raises(InputError, match=r"out\.\S+ exists and may be.*wrote it\..*--overwrite"):
        write(path)
    assert is_painted(path)
    write(path, overwrite=True)
    assert is_ours(path)
    assert not is_painted(path)
    write(path)  # our own needs no permission


@pytest.mark.parametrize("name", ["out_probability.tif", "out_probability.zarr"])
def test_that_holds_for_probabilities_too(tmp_path, name):
    path = painted(tmp_path / name)
    with pytest.raises(InputError, match="somebody's work"):
        write(tmp_path / name.replace("_probability", ""), probability=True)
    assert is_painted(path)


def test_an_empty_file_is_nobodys_work(tmp_path):
    (tmp_path / "out.tif").touch()
    write(tmp_path / "out.tif")
    assert (tmp_path / "out.tif").stat().st_size > 0


@pytest.mark.parametrize("content", [b"II*\x00 half a file", b"notes"])
def test_a_file_that_cannot_be_read_is_not_ours(tmp_path, content):
    path = tmp_path / "out.tif"
    path.write_bytes(content)
    with pytest.raises(InputError, match="somebody's work"):
        write(path)
    assert path.read_bytes() == content


def test_foreign_masks_in_a_folder_are_named_before_anything_is_written(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abcdef":
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", PLANE)
    for name in "bcdef":
        painted(tmp_path / "masks" / f"{name}.tif")
    with pytest.raises(
        InputError, match=r"b\.tif, \S+c\.tif, \S+d\.tif and 2 more exist and.*move them"
    ):
        write(tmp_path / "masks", open_planes(tmp_path / "images"))
    assert not (tmp_path / "masks" / "a.tif").exists()


# ---- volumes


def kept(path: Path) -> dict[str, bytes]:
    """All that a file or folder holds."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


ALL = Settings(probability=True, objects=True)


@pytest.mark.parametrize(
    ("output", "in_the_way"),
    [
        ("out.tif", "out.tif"),
        ("out.tif", "out_objects.tif"),
        ("out.ome.tif", "out_probability.ome.tif"),
        ("out.tif", "out_objects.csv"),
        ("out.zarr", "out_objects.zarr"),
        ("out.zarr", "out_probability.zarr"),
    ],
)
def test_no_result_of_a_volume_replaces_what_is_not_ours(specialist, tmp_path, output, in_the_way):
    source = write_source(tmp_path / "in.zarr", spots(2, 40, 50))
    path = tmp_path / in_the_way
    if path.suffix == ".csv":
        path.write_text("name,score\na,1\n")
    else:
        painted(path)
    before = kept(path)
    run = segment_volume(specialist, source, tmp_path / output, ALL)
    with pytest.raises(InputError, match=rf"{in_the_way} exists and may be somebody's work"):
        next(run)
    assert kept(path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["in.zarr", in_the_way])
    drained(segment_volume(specialist, source, tmp_path / output, ALL, overwrite=True))
    assert kept(path) != before


def test_a_plain_folder_in_the_place_of_a_result_is_kept(specialist, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(2, 40, 50))
    (tmp_path / "res_objects.zarr").mkdir()
    (tmp_path / "res_objects.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="somebody's work"):
        next(segment_volume(specialist, source, tmp_path / "res.zarr", Settings(objects=True)))
    assert (tmp_path / "res_objects.zarr" / "notes.txt").read_text() == "mine"
    (tmp_path / "res.tif").mkdir()
    with pytest.raises(InputError, match=r"res\.tif is a folder"):
        next(segment_volume(specialist, source, tmp_path / "res.tif", overwrite=True))


def test_no_result_of_a_volume_replaces_its_input(specialist, tmp_path):
    source = tmp_path / "cells_objects.tif"
    tifffile.imwrite(source, spots(2, 40, 50), photometric="minisblack")
    whole = write_source(tmp_path / "res_probability.zarr", spots(2, 40, 50))
    before = kept(source), kept(whole)
    for path, output in ((source, "cells.tif"), (whole, "res.zarr")):
        for overwrite in (False, True):
            run = segment_volume(specialist, path, tmp_path / output, ALL, overwrite=overwrite)
            with pytest.raises(InputError, match="is an input file"):
                next(run)
    assert (kept(source), kept(whole)) == before


def test_our_own_tiff_and_its_table_are_replaced_by_another_job(specialist, tmp_path):
    source = tmp_path / "in.tif"
    tifffile.imwrite(source, spots(2, 40, 50), photometric="minisblack")
    out = tmp_path / "out.tif"
    drained(segment_volume(specialist, source, out, ALL))
    table = tmp_path / "out_objects.csv"
    table.write_text("label\n")  # to be seen as replaced
    other = Settings(probability=True, objects=True, minimum_size=3)
    drained(segment_volume(specialist, source, out, other))
    assert table.read_text(encoding="utf-8-sig") != "label\n"
    # Also what was made plane by plane.
    drained(specialist.segment(source, out, probability=True))
    drained(segment_volume(specialist, source, out, ALL))


# ---- folders


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abc":
        tifffile.imwrite(folder / f"{name}.tif", spots(40, 50), photometric="minisblack")
    return folder


@pytest.mark.parametrize(
    "in_the_way", ["masks/b.tif", "masks_probability/b.tif", "masks_objects/b.tif"]
)
def test_a_folder_run_begins_only_if_all_it_writes_is_its_own(
    specialist, images, tmp_path, in_the_way
):
    path = painted(tmp_path / in_the_way)
    with pytest.raises(InputError, match=rf"{in_the_way} exists and may be somebody's work"):
        drained(segment_folder(Batch(specialist, images, tmp_path / "masks", ALL)))
    assert is_painted(path)
    assert len(list(tmp_path.rglob("*.tif"))) == 3 + 1
    batch = Batch(specialist, images, tmp_path / "masks", ALL, overwrite=True)
    steps, _ = drained(segment_folder(batch))
    assert {step.state for step in steps} == {"done"}
    assert not is_painted(path)
    # All of it is ours now, so that another job may follow.
    drained(segment_folder(Batch(specialist, images, tmp_path / "masks", Settings(objects=True))))


@pytest.mark.parametrize("name", ["masks_report.csv", "masks_objects/all_objects.csv"])
def test_a_table_of_the_user_is_not_taken_for_a_report(specialist, images, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("what I saw\n")
    with pytest.raises(InputError, match="somebody's work"):
        drained(segment_folder(Batch(specialist, images, tmp_path / "masks", ALL)))
    assert path.read_text() == "what I saw\n"


def test_results_beside_the_masks_do_not_go_into_the_images(specialist, tmp_path, images):
    folder = tmp_path / "masks_objects"
    shutil.move(images, folder)
    with pytest.raises(InputError, match="masks_objects lies within the input"):
        Batch(specialist, folder, tmp_path / "masks", ALL)
    # A folder that holds the images is fine, unless a mask would lie among them.
    nested = tmp_path / "data" / "images" / "images"
    nested.parent.mkdir(parents=True)
    shutil.move(folder, nested)
    with pytest.raises(InputError, match="lies within the input"):
        drained(segment_folder(Batch(specialist, nested.parent, tmp_path / "data")))


# ---- the command


@pytest.fixture
def segment(specialist, tiny_backbone, tmp_path, capsys):
    prompt = specialist.save(tmp_path / "s")

    def run(*words):
        words = ["segment", prompt, *words, "--backbone", tiny_backbone, "--device", "cpu"]
        code = main([str(word) for word in words])
        return code, capsys.readouterr().err

    return run


def test_the_command_replaces_with_overwrite_only(segment, images, tmp_path):
    path = painted(tmp_path / "mask.tif")
    words = [images / "a.tif", "-o", path]
    code, said = segment(*words)
    assert code == 1
    assert "somebody's work" in said
    assert is_painted(path)
    assert segment(*words, "--overwrite")[0] == 0
    assert segment(*words)[0] == 0


def test_of_several_inputs_none_is_begun_if_the_last_has_something_in_its_way(
    segment, images, tmp_path
):
    path = painted(tmp_path / "out" / "c.tif")
    words = [*sorted(images.iterdir()), "-o", tmp_path / "out"]
    code, said = segment(*words)
    assert code == 1
    assert "c.tif exists" in said
    assert [p.name for p in path.parent.iterdir()] == ["c.tif"]
    assert segment(*words, "--overwrite")[0] == 0
    assert not is_painted(path)


def test_a_dry_run_tells_of_what_is_in_the_way(segment, images, tmp_path):
    painted(tmp_path / "masks" / "a.tif")
    code, said = segment(images, "-o", tmp_path / "masks", "--dry-run")
    assert code == 1
    assert "a.tif exists" in said


def test_an_array_in_the_place_of_a_mask_is_not_ours(tmp_path):
    zarr.create_array(str(tmp_path / "out.zarr"), data=PLANE)
    with pytest.raises(InputError, match="somebody's work"):
        write(tmp_path / "out.zarr")
