"""Data sets of a study: folders, stacks, and published ones from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from test_cli import local_server

from napari_ptsam.benchmark import published
from napari_ptsam.benchmark.config import BenchmarkConfig, DataConfig, MethodConfig
from napari_ptsam.benchmark.datasets import data_folder, keep_splits, open_data, split_file
from napari_ptsam.benchmark.pool import Pool
from napari_ptsam.benchmark.published import (
    SOURCE,
    PublishedSet,
    fetch_published,
    find_published,
)
from napari_ptsam.errors import DownloadError, InputError
from napari_ptsam.fetching import Checksum, Patience

IMPATIENT = Patience(timeout=20, attempts=2, pause=0.001)


def picture(value: int, kind: str = "png") -> bytes:
    """A grey image of 8x8 with a bright square."""
    pixels = np.full((8, 8), 20, np.uint8)
    pixels[2:5, 2:5] = value
    written = io.BytesIO()
    if kind == "tif":
        tifffile.imwrite(written, pixels)
    else:
        Image.fromarray(pixels).save(written, kind)
    return written.getvalue()


def mask(kind: str = "png") -> bytes:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:5, 2:5] = 255
    written = io.BytesIO()
    if kind == "tif":
        tifffile.imwrite(written, pixels)
    else:
        Image.fromarray(pixels).save(written, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return written.getvalue()


def coco(names: list[str]) -> bytes:
    """Squares of 3x3 pixels, in one image as a list of two polygons."""
    images = [
        {"id": i, "file_name": f"{n}.tif", "width": 8, "height": 8} for i, n in enumerate(names)
    ]
    square = [2, 2, 4, 2, 4, 4, 2, 4]
    annotations = [{"image_id": i, "segmentation": [square]} for i in range(len(names))]
    return json.dumps({"images": images, "annotations": annotations}).encode()


# What each archive holds, as far as is known of the real ones; three images each.
CONTENTS: dict[str, dict[str, dict[str, bytes] | bytes]] = {
    "emps": {
        "emps.zip": {
            "emps-main/README.md": b"emps",
            **{f"emps-main/images/{n}.png": picture(200) for n in "abc"},
            **{f"emps-main/segmaps/{n}.png": mask() for n in "abc"},
        }
    },
    "livecell": {
        "images.zip": {
            "images/livecell_train_val_images/A172/A172_1.tif": picture(200, "tif"),
            "images/livecell_train_val_images/BV2_1.tif": picture(200, "tif"),
            "images/livecell_test_images/BV2/BV2_2.tif": picture(200, "tif"),
        },
        "livecell_coco_train.json": coco(["A172_1", "unknown"]),
        "livecell_coco_val.json": coco(["BV2_1"]),
        "livecell_coco_test.json": coco(["BV2_2"]),
    },
    "organoid-basic": {
        "OrganoidBasic_v20211206.zip": {
            f"OrganoidBasic_v20211206/{part}/{n}{end}": content
            for part, n in (("train", "1"), ("val", "1"), ("eval", "2"))
            for end, content in (("_img.jpg", picture(200, "jpeg")),
                                 ("_masks_organoid.png", mask()))
        }
    },
    "kvasir-seg": {
        "kvasir-seg.zip": {
            "Kvasir-SEG/kavsir_bboxes.json": b"{}",
            **{f"Kvasir-SEG/images/{n}.jpg": picture(200, "jpeg") for n in "abc"},
            **{f"Kvasir-SEG/masks/{n}.jpg": mask("jpeg") for n in "abc"},
        }
    },
    "dsb2018": {
        "dsb2018.zip": {
            f"dsb2018/{part}/{kind}/{n}.tif": content
            for part, n in (("train", "a"), ("train", "b"), ("test", "a"))
            for kind, content in (("images", picture(200, "tif")), ("masks", mask("tif")))
        }
    },
}  # fmt: skip

Serve = Callable[[str], PublishedSet]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves made-up archives; gives a data set with the addresses of these."""
    home = tmp_path / "server"
    home.mkdir()

    with local_server(home) as address:

        def served(name: str) -> PublishedSet:
            data, files = find_published(name), []
            for file in data.files:
                content = CONTENTS[name][file.name]
                path = home / file.name
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    with zipfile.ZipFile(path, "w") as archive:
                        for member, value in content.items():
                            archive.writestr(member, value)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                checksum = file.checksum and Checksum("sha256", digest)
                files.append(replace(file, url=f"{address}/{file.name}", checksum=checksum))
            return replace(data, files=tuple(files))

        yield served


def test_every_published_set_is_tested_and_described() -> None:
    assert set(CONTENTS) == {data.name for data in published._SETS}
    for data in published._SETS:
        assert data.licence
        assert "doi:" in data.citation
        for file in data.files:
            assert file.url.startswith("https://")
            assert file.checksum is None or len(file.checksum.digest) == 64


@pytest.mark.parametrize("name", list(CONTENTS))
def test_a_published_set_becomes_images_and_masks_of_the_same_names(
    name: str, serve: Serve, tmp_path: Path
) -> None:
    told: list[str] = []
    home = fetch_published(serve(name), tmp_path / name, lambda n, *_: told.append(n), IMPATIENT)
    pool = Pool.open(home / "images", home / "masks")
    assert len(pool.keys) == 3
    for key in pool.keys:
        assert pool.read(key).truth.sum() == 9
    assert set(told) == set(CONTENTS[name])
    origin = json.loads((home / SOURCE).read_text())
    assert [len(file["sha256"]) for file in origin["files"]] == [64] * len(CONTENTS[name])
    assert origin["licence"] == find_published(name).licence
    assert not (home / "downloads").exists()


def test_a_set_that_is_there_is_not_downloaded_again(serve: Serve, tmp_path: Path) -> None:
    data = serve("emps")
    fetch_published(data, tmp_path / "emps", patience=IMPATIENT)
    gone = tuple(replace(file, url="http://127.0.0.1:9/gone") for file in data.files)
    assert fetch_published(replace(data, files=gone), tmp_path / "emps") == tmp_path / "emps"


def test_another_file_than_the_published_one_is_refused(serve: Serve, tmp_path: Path) -> None:
    data = serve("kvasir-seg")
    wrong = tuple(replace(f, checksum=Checksum("sha256", "0" * 64)) for f in data.files)
    with pytest.raises(
        DownloadError, match=r"expected sha256 0{64}, got sha256 (?!0{64})[0-9a-f]{64}"
    ):
        fetch_published(replace(data, files=wrong), tmp_path / "k", patience=IMPATIENT)
    assert not (tmp_path / "k" / SOURCE).exists()


def test_a_web_page_is_taken_for_no_archive_even_without_a_checksum(
    serve: Serve, tmp_path: Path
) -> None:
    data = serve("emps")
    (tmp_path / "server" / "emps.zip").write_bytes(b"<html>log in</html>")
    with pytest.raises(DownloadError, match="It is a web page"):
        fetch_published(data, tmp_path / "emps", patience=IMPATIENT)


def test_an_archive_that_has_changed_is_refused_and_the_next_try_starts_clean(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = dict(CONTENTS["dsb2018"]["dsb2018.zip"])
    del changed["dsb2018/test/masks/a.tif"]
    monkeypatch.setitem(CONTENTS["dsb2018"], "dsb2018.zip", changed)
    with pytest.raises(InputError, match=r"3 images, 2 masks, without a partner test_a"):
        fetch_published(serve("dsb2018"), tmp_path / "d", patience=IMPATIENT)
    assert not (tmp_path / "d" / SOURCE).exists()


def test_run_lengths_are_refused(serve: Serve, tmp_path: Path) -> None:
    data = serve("livecell")
    table = json.loads(coco(["A172_1"]))
    table["annotations"][0]["segmentation"] = {"counts": [1, 2], "size": [8, 8]}
    (tmp_path / "server" / "livecell_coco_train.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match="run lengths"):
        fetch_published(data, tmp_path / "l", patience=IMPATIENT)


def test_an_unknown_set_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match=r"no published data set 'cells'.*livecell.*'folder'"):
        find_published("cells")


# Folders and stacks of a user.


def study(tmp_path: Path, data: DataConfig, **values: object) -> BenchmarkConfig:
    methods = (MethodConfig("m", method="ptsam"),)
    return BenchmarkConfig(
        tmp_path / "s.toml", "t", "embedded", (data,), methods,
        **({"sizes": (2,), "splits": 2, "data_folder": "data"} | values),
    )  # fmt: skip


def write_pairs(home: Path, names: list[str], ending: str = "") -> None:
    for kind, content in (("images", picture(200)), ("masks", mask())):
        (home / kind).mkdir(parents=True)
        for name in names:
            end = ending if kind == "masks" else ""
            (home / kind / f"{name}{end}.png").write_bytes(content)


def opened(config: BenchmarkConfig):
    """As a run opens it: the draws are kept."""
    data = open_data(config, config.data[0], data_folder(config))
    keep_splits(config, data)
    return data


def test_looking_at_half_copied_data_does_not_fix_the_draws(tmp_path: Path) -> None:
    home = tmp_path / "data" / "mine"
    write_pairs(home, ["c0", "c1", "c2", "c3", "c4"])
    config = study(tmp_path, DataConfig("mine", folder="mine"))
    assert len(open_data(config, config.data[0], data_folder(config)).splits.test) == 1
    assert not split_file(config, config.data[0]).exists()
    for kind, content in (("images", picture(200)), ("masks", mask())):
        for i in range(5, 10):
            (home / kind / f"c{i}.png").write_bytes(content)
    assert len(opened(config).splits.test) == 2
    assert split_file(config, config.data[0]).is_file()


def test_any_folder_of_images_and_masks_is_a_data_set(tmp_path: Path) -> None:
    write_pairs(tmp_path / "data" / "mine", [f"c{i}" for i in range(10)], ending="_mask")
    config = study(tmp_path, DataConfig("mine", folder="mine"))
    data = opened(config)
    assert len(data.splits.test) == 2
    assert not data.splits.given
    assert data.test is data.train
    assert data.test.read(data.splits.test[0]).truth.sum() == 9
    first = split_file(config, config.data[0]).read_text()
    assert opened(config).splits == data.splits
    assert split_file(config, config.data[0]).read_text() == first


def test_a_data_set_with_its_own_test_folder_never_trains_on_it(tmp_path: Path) -> None:
    home = tmp_path / "data" / "set"
    write_pairs(home / "train", ["a", "b", "c"])
    write_pairs(home / "test", ["a", "x"])
    data = opened(study(tmp_path, DataConfig("set", folder="set")))
    assert data.splits.test == ("a", "x")
    assert {name for names in data.splits.train for name in names} == {"a", "b", "c"}
    assert data.test.images.source == home / "test" / "images"
    assert data.train.images.source == home / "train" / "images"


def test_a_stack_with_labels_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    stack: NDArray[np.uint8] = np.zeros((6, 16, 16), np.uint8)
    labels = stack.copy()
    labels[:, 4:8, 4:8], labels[:, 10:12, 10:12] = 1, 2
    tifffile.imwrite(tmp_path / "data" / "i.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "data" / "m.tif", labels, photometric="minisblack")
    data = opened(study(tmp_path, DataConfig("s", images="i.tif", masks="m.tif", label=2)))
    assert len(data.splits.test) == 1
    assert data.test.read(data.splits.test[0]).truth.sum() == 4


def test_where_data_are_can_be_said_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = study(tmp_path, DataConfig("s", folder="s"))
    monkeypatch.delenv("NAPARI_PTSAM_DATA", raising=False)
    assert data_folder(config) == tmp_path / "data"
    monkeypatch.setenv("NAPARI_PTSAM_DATA", str(tmp_path / "b"))
    assert data_folder(config) == tmp_path / "b"
    assert data_folder(config, tmp_path / "c") == tmp_path / "c"
    monkeypatch.delenv("NAPARI_PTSAM_DATA")
    monkeypatch.setenv("NAPARI_PTSAM_CACHE", str(tmp_path / "d"))
    assert data_folder(replace(config, data_folder="")) == tmp_path / "d" / "datasets"


def test_data_that_are_not_there_are_missed_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'images' and 'masks', or 'train' and 'test'.*--data"):
        opened(study(tmp_path, DataConfig("s", folder="s")))


def test_images_that_the_splits_name_must_be_there(tmp_path: Path) -> None:
    home = tmp_path / "data" / "mine"
    write_pairs(home, [f"c{i}" for i in range(10)])
    config = study(tmp_path, DataConfig("mine", folder="mine"))
    gone = opened(config).splits.test[0]
    (home / "masks" / f"{gone}.png").unlink()
    with pytest.raises(InputError, match=f"1 of the images.*: {gone}"):
        opened(config)


def test_splits_that_test_on_training_images_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "data" / "mine", [f"c{i}" for i in range(10)])
    config = study(tmp_path, DataConfig("mine", folder="mine"))
    opened(config)
    path = split_file(config, config.data[0])
    stored = json.loads(path.read_text())
    stored["train"][1][0] = stored["test"][0]
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="both train and test"):
        opened(config)


def test_a_set_that_cannot_be_downloaded_is_a_reason_to_skip(
    tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ptsam.benchmark.run import CellEnd, run_benchmark
    from napari_ptsam.benchmark.study import Choice, prepare

    def refuse(*args: object) -> Path:
        raise DownloadError("no connection to the moon")

    monkeypatch.setattr("napari_ptsam.benchmark.datasets.fetch_published", refuse)
    config = replace(
        study(tmp_path, DataConfig("emps", published="emps")),
        backbone=str(tiny_backbone), device="cpu",
    )  # fmt: skip
    prepared = prepare(config, tmp_path / "out", tmp_path / "data")
    ends = [e for e in run_benchmark(prepared, Choice()) if isinstance(e, CellEnd)]
    assert {end.result["status"] for end in ends} == {"SKIPPED"}
    assert ends[0].result["reason"] == "no connection to the moon"


def test_published_addresses_are_unpacked_by_patterns_that_take_nothing_else() -> None:
    import re

    kvasir = find_published("kvasir-seg")
    assert re.fullmatch(kvasir.images, "Kvasir-SEG/masks/a.jpg") is None
    assert (
        re.fullmatch(published.find_published("emps").images, "emps-main/headerimage.png") is None
    )


def test_a_study_of_few_images_draws_splits_that_one_of_more_can_share(tmp_path: Path) -> None:
    write_pairs(tmp_path / "data" / "mine", [f"c{i}" for i in range(20)])
    config = study(tmp_path, DataConfig("mine", folder="mine"))
    few = opened(config).splits
    more = opened(replace(config, sizes=(2, 16, 64))).splits
    assert more == few
    assert len(few.training(0, 64)) == 16
