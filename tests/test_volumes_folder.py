"""A folder of images: a mirrored tree, what is done is not done again, errors do not stop it."""

from __future__ import annotations

import csv
import uuid
from pathlib import Path

import numpy as np
import pytest
import tifffile
from stacks import any_specialist, drained, spots

from napari_ptsam.errors import InputError
from napari_ptsam.planes import open_planes
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Settings
from napari_ptsam.volumes.folder import Batch, segment_folder


@pytest.fixture(scope="module")
def specialist(tiny_backbone: Path) -> Specialist:
    return any_specialist(tiny_backbone)


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    tifffile.imwrite(images / "a.tif", spots(40, 50), photometric="minisblack")
    np.save(images / "sub" / "b.npy", spots(3, 30, 40))
    return images


def test_the_tree_is_mirrored_with_the_same_masks_as_one_by_one(specialist, folder, tmp_path):
    batch = Batch(specialist, folder, tmp_path / "out", Settings(probability=True))
    steps, value = drained(segment_folder(batch))
    assert value == tmp_path / "out"
    assert [step.state for step in steps] == ["done", "done"]
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.tif"))
    assert files == [
        "images/a.tif",
        "out/a.tif",
        "out/sub/b.tif",
        "out_probability/a.tif",
        "out_probability/sub/b.tif",
    ]
    image = tifffile.imread(folder / "a.tif")
    predicted = specialist.predict(image)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif") > 0, predicted.mask)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out_probability/a.tif"), predicted.probability
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "out", "out_probability"]


def states(batch):
    return [step.state for step in drained(segment_folder(batch))[0]]


def test_only_what_changed_is_done_again(specialist, folder, tmp_path):
    batch = Batch(specialist, folder, tmp_path / "out")
    assert states(batch) == ["done", "done"]
    assert states(batch) == ["skipped", "skipped"]
    tifffile.imwrite(folder / "a.tif", spots(40, 60), photometric="minisblack")
    assert states(batch) == ["done", "skipped"]
    assert states(Batch(specialist, folder, tmp_path / "out", overwrite=True)) == ["done"] * 2
    assert states(Batch(specialist, folder, tmp_path / "out", Settings(minimum_size=5))) == [
        "done",
        "done",
    ]
    (tmp_path / "out/a.tif").unlink()
    assert states(Batch(specialist, folder, tmp_path / "out", Settings(minimum_size=5))) == [
        "done",
        "skipped",
    ]


def test_a_file_that_fails_is_reported_and_the_others_are_done(specialist, folder, tmp_path):
    (folder / "c.png").write_bytes(b"no picture")
    batch = Batch(specialist, folder, tmp_path / "out")
    steps = []
    with pytest.raises(InputError, match=r"1 of 3 files.*c\.png"):
        steps.extend(segment_folder(batch))
    with batch.report.open(encoding="utf-8-sig", newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "a.tif": "done",
        "b.npy": "done",
        "c.png": "failed",
    }
    assert "is not a PNG" in rows["c.png"]["message"]
    (folder / "c.png").unlink()
    assert states(batch) == ["skipped", "skipped"]
    assert not batch.report.exists()


def test_objects_are_measured_for_each_file_and_all_together(specialist, folder, tmp_path):
    batch = Batch(specialist, folder, tmp_path / "out", Settings(objects=True))
    assert states(batch) == ["done", "done"]
    objects = tmp_path / "out_objects"
    labels = [tifffile.imread(objects / name) for name in ("a.tif", "sub/b.tif")]
    assert labels[1].shape == (3, 30, 40)
    with (objects / "all_objects.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = [sum(row["file"] == name for row in rows) for name in ("a.tif", "sub/b.npy")]
    assert counts == [int(numbers.max()) for numbers in labels]
    assert (objects / "sub/b.csv").is_file()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tif", "sub"]
    assert states(batch) == ["skipped", "skipped"]
    # A file of which a table is missing is not done.
    (objects / "sub/b.csv").unlink()
    assert states(batch) == ["skipped", "done"]
    assert (objects / "sub/b.csv").is_file()


def write_series(folder, data, names):
    """A stack over several OME-TIFF files, as Micro-Manager saves long ones."""
    ids = [f"urn:uuid:{uuid.uuid4()}" for _ in names]
    each = len(data) // len(names)
    places = "".join(
        f'<TiffData FirstZ="{z}" FirstC="0" FirstT="0" IFD="{z % each}" PlaneCount="1">'
        f'<UUID FileName="{names[z // each]}">{ids[z // each]}</UUID></TiffData>'
        for z in range(len(data))
    )
    height, width = data[0].shape
    for number, (name, own) in enumerate(zip(names, ids, strict=True)):
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}">'
            '<Image ID="Image:0" Name="s"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            f'Type="uint16" SizeX="{width}" SizeY="{height}" SizeZ="{len(data)}" SizeC="1" '
            f'SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{places}</Pixels></Image>'
            "</OME>"
        )
        with tifffile.TiffWriter(folder / name) as file:
            for plane in data[number * each : (number + 1) * each]:
                file.write(
                    plane, photometric="minisblack", metadata=None, contiguous=False,
                    description=text,
                )  # fmt: skip


@pytest.mark.parametrize("settings", [Settings(), Settings(objects=True)])
def test_each_file_of_an_ome_tiff_of_several_gives_its_own_planes(specialist, tmp_path, settings):
    images = tmp_path / "images"
    images.mkdir()
    data = spots(4, 40, 50)
    write_series(images, data, ["s_0.ome.tif", "s_1.ome.tif"])
    # As training on the folder sees them.
    assert open_planes(images).keys == ["s_0/0000", "s_0/0001", "s_1/0000", "s_1/0001"]
    steps, _ = drained(segment_folder(Batch(specialist, images, tmp_path / "out", settings)))
    assert [step.planes for step in steps] == [2, 2]
    masks = [tifffile.imread(tmp_path / "out" / f"s_{number}.tif") for number in (0, 1)]
    expected = [specialist.predict(plane).mask for plane in data]
    np.testing.assert_array_equal(np.concatenate(masks) > 0, expected)


def test_an_output_that_would_mix_with_the_images_is_refused(specialist, folder):
    with pytest.raises(InputError, match="lies within the input"):
        Batch(specialist, folder, folder / "out")
    with pytest.raises(InputError, match="name of a file"):
        Batch(specialist, folder, folder.parent / "out.tif")
