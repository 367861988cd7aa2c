"""A study from its file to its report, on made-up images and a tiny backbone."""

from __future__ import annotations

import csv
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tiny_backbone
from PIL import Image
from scenes import bright_discs

from napari_ptsam.backbones import Backbone
from napari_ptsam.benchmark import run as running
from napari_ptsam.benchmark.config import Cell, read_config
from napari_ptsam.benchmark.costs import estimate, extents, measured_seconds
from napari_ptsam.benchmark.datasets import all_stored_splits, data_folder
from napari_ptsam.benchmark.report import write_report
from napari_ptsam.benchmark.run import CellEnd, CellStep, run_benchmark
from napari_ptsam.benchmark.shared import SharedEmbeddings
from napari_ptsam.benchmark.study import Choice, Study, open_cells, prepare, why_unable
from napari_ptsam.cli import main
from napari_ptsam.errors import TrainingError

STUDY = """
title = "A study of discs"
backbone = "{backbone}"
device = "cpu"
data_folder = "data"
sizes = [2, 4]
splits = 2

[training]
preset = "paper"
steps = 2
scale = "fit"

[[data]]
name = "discs"
folder = "discs"
title = "Bright discs"
target = "disc"
licence = "none"
citation = "made up"

[[methods]]
name = "decoder"
title = "PTSAM, decoder"
method = "ptsam"
family = "PTSAM"

[[methods]]
name = "both"
title = "PTSAM, both"
method = "ptsam"
settings = {{ encoder_prompts = 2 }}
family = "PTSAM"
"""

MORE = """
[[methods]]
name = "alone"
method = "ptsam"
settings = { decoder_prompts = 0, encoder_prompts = 2 }
sizes = [2]

[[methods]]
name = "unet"
baseline = "unet"
settings = { widths = [8, 16], steps = 2, size = 64 }

[[methods]]
name = "nnunet"
baseline = "nnunet"
"""

OTHER = """
[[methods]]
name = "other"
method = "lora"
"""


def write_discs(home: Path, count: int) -> None:
    """A folder of images and masks."""
    for kind in ("images", "masks"):
        (home / kind).mkdir(parents=True)
    for example in bright_discs(count):
        image = example.image.astype(np.uint8)
        Image.fromarray(image).save(home / "images" / f"{example.key}.png")
        mask = example.mask.astype(np.uint8) * 255
        Image.fromarray(mask).save(home / "masks" / f"{example.key}.png")


@pytest.fixture
def home(tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study and its data: 4 images to train, 3 to test."""
    monkeypatch.delenv("NAPARI_PTSAM_DATA", raising=False)
    write_discs(tmp_path / "data" / "discs" / "train", 4)
    write_discs(tmp_path / "data" / "discs" / "test", 3)
    (tmp_path / "study.toml").write_text(STUDY.format(backbone=tiny_backbone))
    return tmp_path


def study_in(home: Path, more: str = "") -> Study:
    path = home / "study.toml"
    path.write_text(path.read_text() + more)
    config = read_config(path)
    return prepare(config, home / "out", data_folder(config))


def run_all(study: Study, choice: Choice | None = None) -> dict[str, str]:
    """Status by the name of each cell that was run."""
    ends = run_benchmark(study, choice or Choice())
    return {e.cell.name: e.result["status"] for e in ends if isinstance(e, CellEnd)}


def files_of(home: Path) -> dict[str, int]:
    """Results with the time of their last change."""
    cells = home / "out" / "cells"
    return {p.relative_to(cells).as_posix(): p.stat().st_mtime_ns for p in cells.rglob("*.json")}


def test_a_study_runs_from_its_file_to_its_report(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))  # no nnU-Net
    with (home / "study.toml").open("a") as file:
        file.write(MORE)
    assert main(["benchmark", str(home / "study.toml"), "-o", str(home / "out")]) == 0
    said = capsys.readouterr().out
    assert "14 cells   about 0.0 hours on this machine's cpu" in said
    assert said.count(": Dice ") == 14
    report = (home / "out" / "report.md").read_text()
    assert report.startswith("# A study of discs\n")
    assert "Cells: 14 DONE, 4 SKIPPED." in report
    assert "| PTSAM, both |" in report
    assert "nnU-Net is not installed" in report
    assert "Licence: none. made up" in report
    with (home / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows].count("DONE") == 14
    done = json.loads((home / "out/cells/discs/both/n04-split1-seed0.json").read_text())
    assert done["parameters"] == 8 * 256 + 2 * 2 * 32
    assert done["tunes_encoder"] is True
    assert set(done["images"]) == {"00", "01", "02"}
    assert set(done["images"]["00"]) == {"dice", "iou", "boundary_f"}
    assert done["file_bytes"] > 4 * done["parameters"]
    assert done["circumstances"]["packages"]["torch"]
    assert [step for step, _ in done["curve"]] == [1, 2]
    assert done["wall_seconds"] > 0
    assert not [path for path in (home / "out" / "work").rglob("*") if path.is_file()]


def test_a_study_that_is_done_has_nothing_left_to_run(home: Path) -> None:
    study = study_in(home)
    assert len(run_all(study)) == 8
    before = files_of(home)
    assert run_all(study_in(home)) == {}
    assert files_of(home) == before


def test_a_cancelled_cell_is_told_apart_and_run_again(home: Path) -> None:
    study, seen = study_in(home), 0
    with closing(run_benchmark(study, Choice())) as work:
        for event in work:
            seen += isinstance(event, CellEnd)
            if seen == 1 and isinstance(event, CellStep) and event.phase == "train":
                break
    first, second = list(study.config.cells())[:2]
    assert study.results.read(first, None)["status"] == "DONE"
    cancelled = study.results.read(second, None)
    assert cancelled["status"] == "CANCELLED"
    assert cancelled["reason"] == "stopped by the user"
    before = files_of(home)
    rest = run_all(study)
    assert first.name not in rest
    assert rest[second.name] == "DONE"
    assert len(rest) == 7
    assert files_of(home)[f"{first.name}.json"] == before[f"{first.name}.json"]


def test_a_killed_run_goes_on_with_what_is_missing(home: Path) -> None:
    command = [
        sys.executable, "-m", "napari_ptsam", "benchmark", str(home / "study.toml"),
        "-o", str(home / "out"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while not list((home / "out").glob("cells/**/*.json")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    there = files_of(home)
    assert there
    for name in there:
        assert json.loads((home / "out" / "cells" / name).read_text())["status"] == "DONE"
    rest = run_all(study_in(home))
    assert not {f"{name}.json" for name in rest} & set(there)
    assert len(rest) + len(there) == 8


def stopped_in_training(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Cell]:
    """A study that was stopped in the middle of its first training, and that one."""
    from napari_ptsam.training import loop

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    study = study_in(home)
    (cell, *_) = study.config.cells()
    with closing(run_benchmark(study, Choice((cell.name,)))) as work:
        next(event for event in work if isinstance(event, CellStep) and event.phase == "train")
        next(work)
    assert (study.results.scratch(cell) / "training.checkpoint").is_file()
    return study, cell


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, cell = stopped_in_training(home, monkeypatch)
    assert run_all(study, Choice((cell.name,))) == {cell.name: "DONE"}
    result = study.results.read(cell, None)
    assert result["resumed"]
    assert result["train_seconds"] is None
    assert not study.results.scratch(cell).exists()


def test_a_cell_that_fails_is_kept_with_its_reason_and_stops_no_other(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, learn = study_in(home), running.learn

    def fail(method, task):
        if method.name == "both":
            raise TrainingError("the loss became nan")
        if len(task.keys) == 4:
            raise RuntimeError("a fault")
        return learn(method, task)

    monkeypatch.setattr(running, "learn", fail)
    ends = run_all(study)
    assert [ends[c.name] for c in study.config.cells() if c.method == "both"] == ["FAILED"] * 4
    reasons = {
        c.method: study.results.read(c, None)["reason"]
        for c in study.config.cells()
        if ends[c.name] == "FAILED"
    }
    assert reasons == {"both": "the loss became nan", "decoder": "RuntimeError('a fault')"}
    assert run_all(study) == {}
    monkeypatch.setattr(running, "learn", learn)
    again = run_all(study, Choice(retry=True))
    assert len(again) == 6
    assert set(again.values()) == {"DONE"}


def test_methods_with_a_frozen_encoder_share_what_it_gave_and_bear_its_cost(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ptsam.benchmark import shared

    made: list[SharedEmbeddings] = []

    class Noted(SharedEmbeddings):
        def __init__(self, backbone: Backbone) -> None:
            super().__init__(backbone)
            made.append(self)

    monkeypatch.setattr(running, "SharedEmbeddings", Noted)
    monkeypatch.setattr(shared, "_seconds_to_encode", lambda _: 100.0)
    study = study_in(home, OTHER)
    cells = Choice(only=("*/decoder/n02-split0*", "*/other/n02-split0*", "*/both/n02-split0*"))
    run_all(study, cells)
    (embeddings,) = made
    views, tests = 2 * 2, 3  # two steps of two
    # Encoder prompts change the encoder, so that those cells neither keep nor find anything.
    assert (embeddings.encoded, embeddings.recalled) == (views + tests, views + tests)
    results = {
        name: study.results.read(Cell("discs", name, 2, 0, 0), None)
        for name in ("decoder", "other", "both")
    }
    assert results["other"]["train_seconds"] > 100.0 * views > results["decoder"]["train_seconds"]
    assert results["other"]["seconds_per_image"] > 100.0 > results["both"]["seconds_per_image"]


def test_sharing_changes_no_score(home: Path) -> None:
    study = study_in(home, OTHER)
    cell = Cell("discs", "other", 2, 0, 0)
    run_all(study, Choice(only=("*/decoder/n02-split0*", cell.name)))
    after = study.results.read(cell, None)
    study.results.path(cell).unlink()
    run_all(study, Choice(only=(cell.name,)))
    alone = study.results.read(cell, None)
    assert (after["images"], after["curve"]) == (alone["images"], alone["curve"])


def test_results_of_other_weights_are_run_again_and_told_apart(
    home: Path, tiny_backbone: Path
) -> None:
    some, own = Choice(only=("*/n02-split0*",)), home / "own.safetensors"
    shutil.copy(tiny_backbone, own)
    path = home / "study.toml"
    path.write_text(path.read_text().replace(str(tiny_backbone), own.name))
    study = study_in(home)
    first = study.backbone.identity
    assert len(run_all(study, some)) == 2
    assert f"Weights: `{first[:12]}`." in report_of(study, data=False)
    write_tiny_backbone(own, seed=7)
    study = study_in(home)
    assert study.backbone.identity != first
    one = Choice(only=("*/decoder/n02-split0*",))
    assert list(run_all(study, one)) == ["discs/decoder/n02-split0-seed0"]
    mixed = report_of(study, data=False)
    assert "**Not to be compared:** the cells ran on 2 different backbones" in mixed
    for identity in (first, study.backbone.identity):
        assert f"`{identity[:12]}` (1 cell)" in mixed
    assert list(run_all(study, some)) == ["discs/both/n02-split0-seed0"]
    assert "Not to be compared" not in report_of(study, data=False)


def test_results_stand_where_the_weights_are_still_to_be_downloaded(home: Path) -> None:
    study, some = study_in(home), Choice(only=("*/n02-split0*",))
    run_all(study, some)
    splits = all_stored_splits(study.config)
    assert open_cells(study.results, some, splits, backbone=None) == []
    assert len(open_cells(study.results, some, splits, backbone="another")) == 2


def test_a_stopped_training_whose_study_changes_begins_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cell = stopped_in_training(home, monkeypatch)
    path = home / "study.toml"
    path.write_text(path.read_text().replace("steps = 2\n", "steps = 3\n", 1))
    study = study_in(home)
    assert run_all(study, Choice((cell.name,))) == {cell.name: "DONE"}
    assert study.results.read(cell, None)["resumed"] is False


def test_too_few_images_are_a_reason_to_skip(home: Path) -> None:
    path = home / "study.toml"
    path.write_text(path.read_text().replace("sizes = [2, 4]", "sizes = [2, 5]"))
    study = study_in(home)
    ends = run_all(study, Choice(only=("*n05*",)))
    assert set(ends.values()) == {"SKIPPED"}
    reason = study.results.read(Cell("discs", "both", 5, 0, 0), None)["reason"]
    assert reason == "there are 4 training images only"


def test_a_changed_method_is_run_again_and_no_other(home: Path) -> None:
    run_all(study_in(home))
    path = home / "study.toml"
    path.write_text(path.read_text().replace("encoder_prompts = 2", "encoder_prompts = 3"))
    study = study_in(home)
    assert {name.split("/")[1] for name in run_all(study)} == {"both"}
    path.write_text(path.read_text().replace('title = "PTSAM, both"', 'title = "renamed"'))
    assert run_all(study_in(home)) == {}


def test_patterns_choose_cells_and_time_ends_a_run(home: Path) -> None:
    study = study_in(home)
    assert set(run_all(study, Choice(only=("discs/decoder/n02*",)))) == {
        "discs/decoder/n02-split0-seed0",
        "discs/decoder/n02-split1-seed0",
    }
    assert run_all(study, Choice(hours=0.0)) == {}


def test_a_dry_run_tells_hours_and_does_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["benchmark", str(home / "study.toml"), "-o", str(home / "out"), "--estimate"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "decoder                          4 cells" in said
    assert "8 cells   about 0.0 hours" in said
    assert main([*arguments[:-1], "--report-only"]) == 0
    assert not (home / "splits").exists()  # draws from data that may be half-copied yet
    run_all(study_in(home), Choice(only=("*split0*",)))
    assert (home / "splits" / "discs.json").is_file()
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("(as measured)") == 2


def test_what_other_settings_took_is_not_told_as_measured(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(study_in(home), Choice(only=("*split0*",)))
    path = home / "study.toml"
    path.write_text(path.read_text().replace("encoder_prompts = 2", "encoder_prompts = 3"))
    arguments = ["benchmark", str(path), "-o", str(home / "out"), "--estimate"]
    assert main(arguments) == 0
    measured = [line for line in capsys.readouterr().out.splitlines() if "measured" in line]
    assert [line.split()[0] for line in measured] == ["decoder"]


def test_an_estimate_from_results_without_wall_time_says_that_hours_are_of_processors(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_in(home)
    run_all(study, Choice(only=("*/n02-split0*",)))
    splits = all_stored_splits(study.config)
    assert not measured_seconds(study.results, splits)["decoder", 2].processors
    cell = Cell("discs", "decoder", 2, 0, 0)
    stored = json.loads(study.results.path(cell).read_text())
    del stored["wall_seconds"]
    study.results.path(cell).write_text(json.dumps(stored))
    worked = stored["train_seconds"] + 3 * stored["seconds_per_image"]
    found = measured_seconds(study.results, splits)["decoder", 2]
    assert found == (pytest.approx(worked), True)
    arguments = ["benchmark", str(home / "study.toml"), "-o", str(home / "out"), "--estimate"]
    assert main([*arguments, "--only", "*/n02-split1*"]) == 0
    said = capsys.readouterr().out
    assert said.count("(as measured, processor hours)") == 1
    assert said.count("(as measured)") == 1
    assert "training, processor seconds, 2 images" in report_of(study, data=False)


def test_failures_are_counted_in_the_exit_code_until_they_are_run_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = running.learn

    def fail(method, task):
        if method.name == "both":
            raise TrainingError("the loss became nan")
        return learn(method, task)

    monkeypatch.setattr(running, "learn", fail)
    arguments = ["benchmark", str(home / "study.toml"), "-o", str(home / "out"), "--only"]
    some = [*arguments, "*/n02-split0*"]
    assert main(some) == 1
    assert "1 of the study's trainings FAILED" in capsys.readouterr().err
    assert (home / "out" / "report.md").is_file()
    assert main(some) == 1  # it is kept
    assert main([*arguments, "*/decoder/n02-split0*"]) == 0
    monkeypatch.setattr(running, "learn", learn)
    assert main([*some, "--retry"]) == 0


def test_the_estimate_of_what_was_measured_is_what_it_took(home: Path) -> None:
    study = study_in(home)
    run_all(study, Choice(only=("*split0*",)))
    results, config = study.results, study.config
    found = extents(config, data_folder(config), study.backbone)
    assert found["discs"].test_images == 3
    splits = all_stored_splits(config)
    costs = estimate(study.open(Choice()), results, splits, study.backbone, found)
    for cost in costs:
        taken = 0.0
        for cell in config.cells():
            if cell.method == cost.method and cell.split == 0:
                taken += results.read(cell, None)["wall_seconds"]
        assert cost.measured
        assert cost.seconds == pytest.approx(taken)


def report_of(study: Study, data: bool = True) -> str:
    splits = all_stored_splits(study.config)
    return write_report(study.results, splits, study.data if data else {}).read_text()


def test_a_report_can_be_written_at_any_time_without_data(home: Path) -> None:
    study = study_in(home)
    assert "Cells: 8 not run." in report_of(study, data=False)
    run_all(study, Choice(only=("*/n02-split0*",)))
    text = report_of(study, data=False)
    assert "Cells: 2 DONE, 6 not run." in text
    assert "(1)" in text  # one split of two
    assert "Provisional: 6 of 8 trainings were not run yet" in text


def test_plots_and_pictures_are_drawn(home: Path) -> None:
    pytest.importorskip("matplotlib")
    study = study_in(home, MORE)
    run_all(study)
    text = report_of(study)
    plots = {path.stem for path in (home / "out" / "plots").glob("*.png")}
    assert plots == {"parameters", "images", "drop", "gain", "prompts", "curves"} - {"prompts"}
    for name in plots:
        assert f"(plots/{name}.png)" in text
        assert np.asarray(Image.open(home / "out/plots" / f"{name}.png")).std() > 5
    assert "(plots/pictures/discs.png)" in text


def test_without_matplotlib_the_report_has_its_tables(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ptsam.benchmark import plots

    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    text = report_of(study_in(home))
    assert "pip install 'napari-ptsam[benchmark]'" in text
    assert "## Test Dice" in text


def test_pictures_show_false_negatives_orange_and_false_positives_red(home: Path) -> None:
    from napari_ptsam.benchmark.panels import _row
    from napari_ptsam.demo_picture import FALSE, MISSED

    study = study_in(home)
    data = study.data["discs"]
    truth = data.test.read("01").truth
    shifted = np.roll(truth, 5, axis=1)
    Image.fromarray(shifted).save(home / "mask.png")
    panel = _row(data, "01", [home / "mask.png"])[2].astype(int)
    for where, colour in ((truth & ~shifted, MISSED), (shifted & ~truth, FALSE)):
        mean = panel[where].mean(0)
        other = FALSE if colour == MISSED else MISSED
        assert np.abs(mean - colour).sum() < np.abs(mean - other).sum()


def test_memory_is_that_of_the_work_alone() -> None:
    import torch

    from napari_ptsam.benchmark.memory import PeakMemory

    before = PeakMemory(torch.device("cpu"))
    idle = before.read()
    if idle is None:
        pytest.skip("this system cannot tell the peak of a part of a process's life")
    # Fresh from the system: an allocator may hand out memory that it held before.
    block = np.frombuffer(mmap.mmap(-1, 40_000_000), np.uint8)
    block[:] = 1
    assert before.read() - idle > 20_000_000


@pytest.fixture
def paper_study() -> Path:
    return Path(__file__).parents[1] / "benchmarks"


def test_the_papers_study_is_its_whole_table(paper_study: Path) -> None:
    config = read_config(paper_study / "paper.toml")
    assert config.backbone == "vit_b"
    assert (config.sizes, config.splits) == ((16, 32, 64), 3)
    assert [d.published for d in config.data] == [
        "emps", "livecell", "organoid-basic", "kvasir-seg",
    ]  # fmt: skip
    assert len(config.methods) == 7
    assert len(list(config.cells())) == 4 * 7 * 3 * 3
    assert config.training.preset == "paper"


@pytest.mark.parametrize("name", ["paper", "ablation", "reduced", "rates"])
def test_every_committed_study_names_methods_that_there_are(
    name: str, paper_study: Path, tiny_backbone: Path
) -> None:
    from napari_ptsam.backbones import load_backbone

    config, backbone = read_config(paper_study / f"{name}.toml"), load_backbone(tiny_backbone)
    for method in config.methods:
        why_unable(method, backbone, Path())


def test_the_reduced_studys_splits_are_committed_and_keep_the_test_folder_apart(
    paper_study: Path,
) -> None:
    config = read_config(paper_study / "reduced.toml")
    for data in config.data:
        splits = all_stored_splits(config)[data.name]
        assert splits is not None
        assert splits.given
        assert len(splits.test) == 36
        assert [len(set(names)) for names in splits.train] == [64, 64, 64]
        assert len({frozenset(names[:16]) for names in splits.train}) == 3
