"""`segment` on large inputs and many of them, as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from stacks import any_specialist, spots, stored, write_source

from napari_ptsam.cli import main
from napari_ptsam.specialist import Specialist

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def specialist(tiny_backbone: Path) -> Specialist:
    return any_specialist(tiny_backbone)


@pytest.fixture
def segment(specialist, tiny_backbone, tmp_path, capsys):
    """Runs the command; gives exit code, output and errors."""
    prompt = specialist.save(tmp_path / "s")

    def run(*words):
        words = ["segment", prompt, *words, "--backbone", tiny_backbone, "--device", "cpu"]
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


def test_a_volume_with_all_that_can_be_asked_for(segment, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(3, 40, 50))
    out = tmp_path / "out.zarr"
    words = [source, "-o", out, "--objects", "--probability", "--z-smooth", "1"]
    code, said, shown = segment(*words, "--ome-zarr", "0.4")
    assert code == 0
    assert all(name in said for name in ("out.zarr", "out_probability.zarr", "out_objects.csv"))
    assert "planes 3/3" in shown
    assert "/s" in shown
    assert (out / ".zattrs").is_file()
    labels = stored(tmp_path / "out_objects.zarr")
    np.testing.assert_array_equal(labels > 0, stored(out) > 0)
    assert "there already" in segment(*words, "--ome-zarr", "0.4")[1]
    code, _, said = segment(*words)
    assert code == 1
    assert "version" in said
    assert segment(*words, "--overwrite")[0] == 0
    assert (out / "zarr.json").is_file()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(segment, tmp_path):
    source = write_source(tmp_path / "in.zarr", spots(3, 40, 50))
    images = tmp_path / "images"
    images.mkdir()
    tifffile.imwrite(images / "a.tif", spots(40, 50), photometric="minisblack")
    before = sorted(tmp_path.rglob("*"))
    assert (
        "3 planes of 40x50 (axes Z), 3 chunks"
        in segment(source, "-o", tmp_path / "o.zarr", "--dry-run")[1]
    )
    assert "3 planes" in segment(source, "-o", tmp_path / "o.tif", "--dry-run")[1]
    planned = segment(images, "-o", tmp_path / "masks", "--dry-run")[1]
    assert "a.tif: to do" in planned
    assert "To do: 1 of 1 files." in planned
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_is_done_once_and_reports_what_failed(segment, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in "ab":
        tifffile.imwrite(images / f"{name}.tif", spots(40, 50), photometric="minisblack")
    words = [images, "-o", tmp_path / "masks"]
    assert "2 planes" in segment(*words)[1]
    assert "2 files were done before" in segment(*words)[1]
    (images / "c.png").write_bytes(b"no picture")
    code, _, said = segment(*words)
    assert code == 1
    assert "masks_report.csv" in said


def test_a_folder_of_planes_can_be_one_volume(segment, tmp_path):
    data = spots(3, 40, 50)
    images = tmp_path / "images"
    images.mkdir()
    for number, plane in enumerate(data):
        tifffile.imwrite(images / f"z{number}.tif", plane, photometric="minisblack")
    whole = write_source(tmp_path / "in.zarr", data)
    assert segment(images, "-o", tmp_path / "series.zarr")[0] == 0
    assert segment(whole, "-o", tmp_path / "whole.zarr")[0] == 0
    np.testing.assert_array_equal(stored(tmp_path / "series.zarr"), stored(tmp_path / "whole.zarr"))


def test_options_that_do_not_go_together_are_wrong_use(segment, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    tifffile.imwrite(images / "a.tif", spots(40, 50), photometric="minisblack")
    for words in (["--scheduler", "local:2"], ["--planes", "0", "--objects"]):
        assert segment(images, "-o", tmp_path / "masks", *words)[0] == 2
    assert segment(images, "-o", tmp_path / "masks", "--z-smooth", "-1")[0] == 2
