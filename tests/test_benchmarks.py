from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from benchmarks import clicks, data, depth, fewshot, frontier
from benchmarks.plan import plan
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.backbones.embedded import EmbeddedShape, build_embedded, shape_of_state
from napari_ptsam.errors import InputError
from napari_ptsam.planes import open_planes


def development_data() -> Path:
    try:
        return data.data_folder()
    except InputError as error:
        pytest.skip(str(error))


def test_training_sets_are_nested_and_seeded() -> None:
    assert data.training_images(64, 0)[:16] == data.training_images(16, 0)
    assert sorted(data.training_images(64, 1)) == list(range(64))
    assert data.training_images(16, 0) != data.training_images(16, 1)


def test_split_of_seed_0_never_changes() -> None:
    assert data.training_images(16, 0) == (
        16, 36, 27, 8, 44, 23, 53, 4, 58, 50, 10, 2, 42, 34, 19, 47,
    )  # fmt: skip


def test_split_goes_by_plain_names_however_the_folder_is_listed(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "emps" / "train" / "images"
    folder.mkdir(parents=True)
    for i in range(64):
        Image.new("L", (4, 4)).save(folder / f"n{i}.png")  # n10 before n2 in plain order
    split = data.load("emps", tmp_path)
    chosen = [open_planes(folder).keys[i] for i in split.train_planes]
    plain = sorted(f"n{i}" for i in range(64))
    assert chosen == [plain[i] for i in data.training_images(16, 0)]


def test_incomplete_data_set_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "emps" / "train" / "images"
    folder.mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "only.png")
    with pytest.raises(InputError, match="holds 1 images"):
        data.load("emps", tmp_path)


@pytest.mark.parametrize("count", [0, 65])
def test_impossible_training_sets_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"not {count}"):
        data.training_images(count, 0)


def test_missing_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_PTSAM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere does not exist"):
        data.data_folder()
    with pytest.raises(InputError, match="kvasir is not in"):
        data.load("kvasir", tmp_path)
    with pytest.raises(InputError, match="no data set 'cats'"):
        data.load("cats", tmp_path)


def test_stack_is_split_by_planes(tmp_path: Path) -> None:
    (tmp_path / "isbi2012").mkdir()
    split = data.load("isbi2012", tmp_path, seed=5)
    assert split.train_planes == tuple(range(16))
    assert split.test_planes == tuple(range(20, 30))


@pytest.mark.parametrize("name", data.NAMES)
def test_real_data_pair_up(name: str) -> None:
    split = data.load(name, development_data())
    for images, masks in (
        (split.train_images, split.train_masks),
        (split.test_images, split.test_masks),
    ):
        assert list(open_planes(images).keys) == list(open_planes(masks).keys)
    assert max(split.train_planes) < len(open_planes(split.train_images))
    test = next(iter(fewshot.read_test_images(split)))
    assert test.image.shape[:2] == test.truth.shape
    assert test.truth.any()


def options(tmp_path: Path, **changed: object) -> argparse.Namespace:
    values = {
        "only": ["dsb2018"], "methods": ["pixel-classifier"], "images": 16, "seeds": [0],
        "preset": "quick", "backbone": "embedded", "data": tmp_path, "fresh": False,
        "output": tmp_path / "fewshot.json", "panels": tmp_path / "panels",
    }  # fmt: skip
    return argparse.Namespace(**(values | changed))


def test_known_cells_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []
    monkeypatch.setattr(data, "load", lambda name, *rest: SimpleNamespace(name=name))

    def run_cell(method, data_set, seed, options):
        ran.append((data_set.name, seed))
        return {"dice_mean": 0.5 + seed / 4, "dice_sd": 0.125, "n": 1, "train_seconds": 1.0}, []

    monkeypatch.setattr(fewshot, "run_cell", run_cell)
    monkeypatch.setattr(fewshot, "save_comparison", lambda rows, path: None)
    fewshot.run(options(tmp_path))
    fewshot.run(options(tmp_path, only=["dsb2018", "kvasir"]))
    assert ran == [("dsb2018", 0), ("kvasir", 0)]
    fewshot.run(options(tmp_path, fresh=True))
    assert ran[2:] == [("dsb2018", 0)]
    fewshot.run(options(tmp_path, seeds=[0, 1]))
    assert ran[3:] == [("dsb2018", 1)]
    stored = json.loads((tmp_path / "fewshot.json").read_text())
    assert set(stored["cells"]) == {
        "pixel-classifier/dsb2018/seed0", "pixel-classifier/kvasir/seed0",
        "pixel-classifier/dsb2018/seed1",
    }  # fmt: skip
    assert "| 62.5 ± 17.7 |" in capsys.readouterr().out


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cells of the few-shot table take no time; their numbers of training images are noted."""
    ran: list[int] = []

    def run_cell(method, data_set, seed, options):
        ran.append(options.images)
        return {"dice_mean": 0.5, "n": 1, "train_seconds": 1.0}, []

    monkeypatch.setattr(data, "load", lambda name, *rest: SimpleNamespace(name=name))
    monkeypatch.setattr(fewshot, "run_cell", run_cell)
    monkeypatch.setattr(fewshot, "save_comparison", lambda rows, path: None)
    return ran


@pytest.mark.parametrize("more", [{}, {"seeds": [1]}], ids=["the same cell", "another draw"])
def test_a_few_shot_table_does_not_mix_settings(
    more: dict[str, object], instant: list[int], tmp_path: Path
) -> None:
    fewshot.run(options(tmp_path))
    before = (tmp_path / "fewshot.json").read_text()
    with pytest.raises(InputError, match=r"images: 16 there, 32 here.*--output.*--fresh"):
        fewshot.run(options(tmp_path, images=32, **more))
    assert (tmp_path / "fewshot.json").read_text() == before
    fewshot.run(options(tmp_path, images=32, output=tmp_path / "other.json", **more))
    assert instant == [16, 32]


def test_what_is_measured_afresh_may_have_other_settings(
    instant: list[int], tmp_path: Path
) -> None:
    fewshot.run(options(tmp_path, seeds=[0, 1]))
    with pytest.raises(InputError, match=r"pixel-classifier/dsb2018/seed1 for one"):
        fewshot.run(options(tmp_path, images=32, fresh=True))
    fewshot.run(options(tmp_path, images=32, fresh=True, seeds=[0, 1]))
    assert instant == [16, 16, 32, 32]


def test_a_table_of_clicks_does_not_mix_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def run_cell(bench, name, method, images, seed):
        ran.append((name, bench.options.steps))
        return {"iou_centre": 0.5, "boundary_f_centre": 0.5, "iou_random": 0.5}

    monkeypatch.setattr(clicks, "Bench", lambda options: SimpleNamespace(options=options))
    monkeypatch.setattr(clicks, "run_cell", run_cell)

    def run(**changed: object) -> None:
        values = {
            "only": ["emps"], "methods": ["plain"], "images": [16], "seeds": [0], "steps": 60,
            "learning_rate": None, "objects_a_step": 6, "objects": 4, "planes": None,
            "spread_objects": 18, "backbone": "embedded", "tune": False, "fresh": False,
            "output": tmp_path / "clicks.json",
        }  # fmt: skip
        clicks.run(argparse.Namespace(**(values | changed)))

    run()
    run()
    with pytest.raises(InputError, match=r"steps: 60 there, 30 here"):
        run(steps=30, only=["dsb2018"])
    run(steps=30, fresh=True)
    assert ran == [("emps", 60), ("emps", 30)]
    stored = json.loads((tmp_path / "clicks.json").read_text())
    assert stored["cells"]["emps/plain"]["setting"]["steps"] == 30


def test_a_run_with_the_usual_options_goes_on_with_the_committed_clicks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "clicks.json"
    shutil.copy(RESULTS / "clicks.json", copied)
    monkeypatch.setattr(clicks, "Bench", lambda options: SimpleNamespace(options=options))
    monkeypatch.setattr(sys, "argv", ["clicks", "--output", str(copied)])
    clicks.main()
    assert "| dsb2018, plain SAM | 70.3 |" in capsys.readouterr().out
    assert copied.read_text() == (RESULTS / "clicks.json").read_text()


def test_sizes_of_the_frontier_have_one_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def measure(name, options):
        ran.append((name, options.steps))
        dice = dict.fromkeys(frontier.COLUMNS, 0.5)
        return {
            "megabytes": 1.0, "encoder_seconds_at_512": 0.1, "dice": dice, "steps": options.steps
        }  # fmt: skip

    monkeypatch.setattr(frontier, "measure", measure)
    wide, deep = "wide: width 256", "deep: 10 blocks"

    def run(only: list[str], steps: int, fresh: bool = False) -> None:
        output = tmp_path / "frontier.json"
        frontier.run(argparse.Namespace(only=only, steps=steps, fresh=fresh, output=output))

    run([wide], 100)
    run([wide, deep], 100)
    for only in ([wide], ["as shipped"]):
        with pytest.raises(InputError, match=r"steps: 100 there, 50 here"):
            run(only, 50)
    run([wide, deep], 50, fresh=True)
    assert ran == [(wide, 100), (deep, 100), (wide, 50), (deep, 50)]


def test_the_sd_over_planes_has_n_minus_1(tmp_path: Path) -> None:
    truth = np.zeros((2, 8, 8), np.uint8)
    truth[:, :4] = 1
    found = truth.copy()
    found[1] = 0
    tifffile.imwrite(tmp_path / "m.tif", found, photometric="minisblack")
    planes = [depth.FIRST, depth.FIRST + 1]
    mean, sd = depth.scores(tmp_path / "m.tif", truth, planes)
    assert (mean, sd) == pytest.approx((50, np.std([0, 100], ddof=1)))


def test_table_shows_what_was_not_run_and_means_over_draws(tmp_path: Path) -> None:
    cells = {"ptsam-decoder/emps/seed0": {"dice_mean": 0.4}}
    lines = fewshot.table(cells, data.NAMES).splitlines()
    assert len(lines) == 2 + len(fewshot.METHODS)
    assert lines[2].endswith("| - | - | - | 40.0 |")
    cells["ptsam-decoder/emps/seed2"] = {"dice_mean": 0.5}
    assert fewshot.table(cells, data.NAMES).splitlines()[2].endswith("| 45.0 ± 7.1 |")


def test_results_tell_their_circumstances(tmp_path: Path) -> None:
    write_json(tmp_path / "results" / "a.json", circumstances())
    found = json.loads((tmp_path / "results" / "a.json").read_text())
    assert {"machine", "packages", "commit", "date"} <= set(found)
    assert found["packages"]["numpy"] == np.__version__
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a.json"]


@pytest.mark.parametrize(("measured_at", "tiles"), [("fit", 1), (1.0, 9)])
def test_a_plan_counts_tiles_at_the_working_scale(measured_at: float | str, tiles: int) -> None:
    measured = {
        "planes": 10, "voxels": 10 * 512**2, "planes_per_second": 2.0, "bytes_read_per_voxel": 2.0,
        "bytes_written_per_voxel": 0.5, "setting": {"scale": measured_at},
    }  # fmt: skip
    given = argparse.Namespace(
        voxels=1e12, block=4096, tile=256, scale=0.5, rotations=4, workers=10, failures=0.0,
        price=2.0, chunks_per_object=1.0,
    )  # fmt: skip
    found = plan(measured, given)
    # 2,048 model pixels and the tiles at its borders, every 192 pixels in both directions.
    assert found["tiles per chunk"] == pytest.approx(12**2)
    assert found["seconds per chunk"] == pytest.approx(4 * 144 * 0.5 / tiles)
    assert found["cost"] == pytest.approx(2 * 59_605 * 4 * 144 * 0.5 / tiles / 3600, rel=1e-4)


@pytest.mark.parametrize("shape", frontier.SHAPES.values(), ids=frontier.SHAPES)
def test_sizes_of_the_frontier_are_backbones_with_their_own_numbers(shape: EmbeddedShape) -> None:
    sam = build_embedded(shape)
    assert shape_of_state(sam.state_dict()) == shape
    levels = sam.image_encoder(torch.randn(1, 3, 64, 64))
    assert [level.shape[-1] for level in levels] == [8, 16, 32]


def test_the_frontier_is_a_line_for_each_size() -> None:
    dice = dict.fromkeys(frontier.COLUMNS, 0.5) | {"emps": 0.75}
    size = {"megabytes": 12.34, "encoder_seconds_at_512": 0.125, "dice": dice}
    lines = frontier.table({"as shipped": size}).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].startswith("| as shipped | 12.3 | 0.12 s | 50.0 |")
    assert lines[2].endswith("| 53.6 |")
