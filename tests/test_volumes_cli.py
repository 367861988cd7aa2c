"""`segment` on large inputs and many of them, as a user types it."""

from __future__ import annotations

from dataclasses import replace
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


def test_axes_and_channel_are_those_of_the_result_in_a_folder_too(segment, tmp_path):
    data = spots(2, 3, 40, 50)
    np.save(tmp_path / "two.npy", data)
    options = ["--axes", "CZYX", "--channel", "1", "--objects"]
    out = tmp_path / "out"
    assert "two.tif" in segment(tmp_path / "two.npy", "-o", out, *options)[1]
    write_source(tmp_path / "one.zarr", data[1])
    assert segment(tmp_path / "one.zarr", "-o", out, "--objects")[0] == 0
    np.testing.assert_array_equal(
        tifffile.imread(out / "two_objects.tif"), tifffile.imread(out / "one_objects.tif")
    )


def test_axes_and_channel_of_training_give_way_to_what_each_file_has(
    specialist, segment, tmp_path, monkeypatch
):
    taught = replace(specialist.metadata, channels={"axes": "CZYX", "channel": 1})
    monkeypatch.setattr(specialist, "metadata", taught)
    specialist.save(tmp_path / "s")
    data, images, out = spots(2, 3, 40, 50), tmp_path / "images", tmp_path / "out"
    images.mkdir()
    np.save(images / "a.npy", data)
    np.save(images / "b.npy", data[0, 0])
    assert "Wrote" in segment(images, "-o", out)[1]
    found = {name: tifffile.imread(out / f"{name}.tif") > 0 for name in "ab"}
    np.testing.assert_array_equal(found["a"][2], specialist.predict(data[1, 2]).mask)
    np.testing.assert_array_equal(found["b"], specialist.predict(data[0, 0]).mask)
    assert "2 files were done before" in segment(images, "-o", out)[1]
    for name in "ab":  # of a single file too
        assert segment(images / f"{name}.npy", "-o", tmp_path / f"{name}.zarr")[0] == 0
        alone = np.squeeze(stored(tmp_path / f"{name}.zarr"))
        np.testing.assert_array_equal(alone > 0, found[name])


def test_options_that_do_not_go_together_are_wrong_use(segment, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    tifffile.imwrite(images / "a.tif", spots(40, 50), photometric="minisblack")
    for words in (["--scheduler", "local:2"], ["--planes", "0", "--objects"]):
        assert segment(images, "-o", tmp_path / "masks", *words)[0] == 2
    assert segment(images, "-o", tmp_path / "masks", "--z-smooth", "-1")[0] == 2
