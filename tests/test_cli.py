"""The command line's grammar, exit codes and output; `test_cli_job.py` runs the engine."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_ptsam import __version__
from napari_ptsam.cli import commands, main
from napari_ptsam.cli.parser import build_parser
from napari_ptsam.cli.targets import plan_targets
from napari_ptsam.cli.usage import UsageError
from napari_ptsam.errors import InputError
from napari_ptsam.progress import Progress
from napari_ptsam.promptfile import PromptFile, PromptMetadata, write_prompt_file

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "train", "segment", "evaluate", "train-clicks", "click", "embed", "cache", "info", "backbones",
    "demo",
)  # fmt: skip
GREY: dict[str, str] = {"photometric": "minisblack"}
"""Keeps tifffile from taking three planes for the channels of a colour image."""

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    """A decoder-only prompt file as training writes it."""
    metadata = PromptMetadata(
        backbone_name="embedded",
        backbone_identity="sha256:0",
        backbone_architecture="embedded",
        method="ptsam",
        class_name="nucleus",
    )
    prompts = np.zeros((8, 256), np.float32)
    return write_prompt_file(
        tmp_path / "nuclei.ptsam.safetensors", PromptFile({"decoder_prompts": prompts}, metadata)
    )


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Five 12x10 planes; in plane k, 10 * (k + 1) pixels have label 1 and 10 have label 2."""
    planes = np.zeros((5, 12, 10), np.uint8)
    for k, plane in enumerate(planes):
        plane[: k + 1] = 1
        plane[-1] = 2
    path = tmp_path / "truth.tif"
    tifffile.imwrite(path, planes, **GREY)
    return path


@contextmanager
def local_server(folder: Path) -> Iterator[str]:
    """A web server on this machine that serves a folder; yields its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def scores(capsys: Capture, *arguments: str | Path) -> dict[str, float]:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    result: dict[str, float] = json.loads(capsys.readouterr().out)
    return result


# Help and grammar


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_exits_with_0(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: napari-ptsam {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    ["train", "segment", "evaluate", "train-clicks", "click", "embed", "cache", "backbones"],
)
def test_help_shows_examples(command: str, capsys: Capture) -> None:
    main([command, "--help"])
    assert f"napari-ptsam {command}" in capsys.readouterr().out.split("examples:")[1]


def test_every_command_in_readme_and_docs_is_valid() -> None:
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text().replace("\\\n", " ")
        for block in re.findall(r"^```text\n(.+?)^```", text, flags=re.MULTILINE | re.DOTALL):
            for line in re.findall(r"^napari-ptsam (.+)$", block, flags=re.MULTILINE):
                build_parser().parse_args(shlex.split(line, comments=True))
                found.append(line)
    assert len(found) > 5


def test_the_contract_of_train_parses_to_what_was_meant() -> None:
    args = build_parser().parse_args(
        shlex.split(
            "train --images i --masks m --planes 0-2,7 --limit 16 --backbone vit_b "
            "--encoder-prompts --preset paper --seed 3 --device cpu --scale 1.5 --channel 2 "
            "-o x.ptsam.safetensors"
        )
    )
    assert (args.planes, args.limit, args.backbone) == ([0, 1, 2, 7], 16, "vit_b")
    assert (args.encoder_prompts, args.preset, args.seed) == (True, "paper", 3)
    assert (args.device, args.scale, args.channel) == ("cpu", 1.5, 2)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "COMMAND"),
        ("trian", "trian"),
        ("train --images i --masks m", "--output"),
        ("train --images i --masks m -o x --planes 5-2", "backwards"),
        ("train --images i --masks m -o x --planes a", "'a'"),
        ("train --images i --masks m -o x --limit 0", "above 0"),
        ("train --images i --masks m -o x --preset fast", "quick"),
        ("train --images i --masks m -o x --scale big", "'big'"),
        ("train --images i --masks m -o x --scale nan", "'nan'"),
        ("segment p i -o o --threshold 1.5", "1.5"),
        ("segment p -o o", "INPUT"),
        ("evaluate p", "--masks"),
        ("backbones download", "NAME"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what_is_wrong(
    line: str, named: str, capsys: Capture
) -> None:
    assert main(shlex.split(line)) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert captured.out == ""


def test_version_and_module_form_run_as_a_real_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "napari_ptsam", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"napari-ptsam {__version__}\n")


@pytest.mark.parametrize("line", ["--help", "info {prompt}", "evaluate {masks} --masks {masks}"])
def test_commands_that_compute_nothing_do_not_load_torch(
    line: str, prompt_file: Path, masks: Path
) -> None:
    arguments = shlex.split(line.format(prompt=prompt_file, masks=masks))
    code = (
        "import sys; from napari_ptsam.cli import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules, 'torch was loaded'; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Errors


def test_a_missing_file_exits_with_1_in_words(tmp_path: Path, capsys: Capture) -> None:
    missing = tmp_path / "missing.ptsam.safetensors"
    assert main(["info", str(missing)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("napari-ptsam: error: ")
    assert str(missing) in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("line", ["--debug info", "info --debug"])
def test_debug_shows_the_traceback(line: str, tmp_path: Path, capsys: Capture) -> None:
    assert main([*line.split(), str(tmp_path / "missing")]) == 1
    assert "Traceback" in capsys.readouterr().err


def failing(error: BaseException) -> Callable[[object], None]:
    def command(args: object) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("no such plane"), 1, "error: no such plane"),
        (PermissionError(13, "Permission denied", "x.tif"), 1, "x.tif"),
        (ZeroDivisionError("by zero"), 1, "ZeroDivisionError: by zero"),
        (UsageError("not together"), 2, "error: not together"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_ending_has_its_exit_code_and_words(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setattr(commands, "info", failing(error))
    assert main(["info", "x"]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_warnings_are_plain_notes(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def command(args: object) -> None:
        warnings.simplefilter("always")
        warnings.warn("plane 3 has no paint", stacklevel=1)

    monkeypatch.setattr(commands, "info", command)
    assert main(["info", "x"]) == 0
    assert capsys.readouterr().err == "napari-ptsam: note: plane 3 has no paint\n"


def test_a_reader_that_goes_away_is_not_a_traceback(prompt_file: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_ptsam", "info", str(prompt_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert said == ""


# info


def test_info_as_json_has_what_scripts_depend_on(prompt_file: Path, capsys: Capture) -> None:
    assert main(["info", str(prompt_file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trainable_parameters"] == 2048
    assert (facts["backbone"], facts["method"]) == ("embedded", "ptsam")


def test_info_for_people_has_one_fact_a_line(prompt_file: Path, capsys: Capture) -> None:
    assert main(["info", str(prompt_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"trainable parameters\s+2,?048", line) for line in lines)
    assert any(re.fullmatch(r"class name\s+nucleus", line) for line in lines)


# backbones


def test_backbones_lists_each_with_its_licence_and_whether_it_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("NAPARI_PTSAM_CACHE", str(tmp_path))
    assert main(["backbones"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^vit_b\s+not here yet\s.*Apache-2.0", out, flags=re.MULTILINE)
    assert str(tmp_path) in out


def test_download_of_an_unknown_backbone_names_the_known_ones(capsys: Capture) -> None:
    assert main(["backbones", "download", "vit_x"]) == 1
    assert "vit_b" in capsys.readouterr().err


def test_download_of_a_file_is_wrong_use(prompt_file: Path, capsys: Capture) -> None:
    assert main(["backbones", "download", str(prompt_file)]) == 2
    assert "file already" in capsys.readouterr().err


def test_download_verifies_shows_megabytes_and_says_how_to_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from napari_ptsam.backbones import registry

    content = b"weights" * 1_000_000
    (tmp_path / "weights.pth").write_bytes(content)
    spec = registry.BackboneSpec(
        name="tiny",
        title="t",
        description="d",
        architecture="vit_b",
        licence="BSD-3-Clause",
        file_name="tiny.pth",
        url="http://set-below",
        checksum=registry.Checksum("sha256", hashlib.sha256(content).hexdigest()),
    )
    monkeypatch.setenv("NAPARI_PTSAM_CACHE", str(tmp_path / "cache"))
    with local_server(tmp_path) as address:
        monkeypatch.setattr(registry, "_SPECS", (replace(spec, url=f"{address}/weights.pth"),))
        assert main(["backbones", "download", "tiny"]) == 0
    captured = capsys.readouterr()
    assert "downloading tiny, MB 7/7" in captured.err
    assert "--backbone tiny" in captured.out
    assert (tmp_path / "cache/backbones/tiny.pth").read_bytes() == content


# evaluate


def test_evaluate_gives_1_for_the_truth_itself(masks: Path, capsys: Capture) -> None:
    result = scores(capsys, masks, "--masks", masks)
    assert result["n"] == 5
    assert result["dice_mean"] == result["dice_pooled"] == result["iou_mean"] == 1.0
    assert result["dice_sd"] == 0.0


def test_evaluate_averages_dice_over_planes(tmp_path: Path, masks: Path, capsys: Capture) -> None:
    predicted = tifffile.imread(masks) > 0
    predicted[0] = False
    tifffile.imwrite(tmp_path / "predicted.tif", predicted.astype(np.uint8), **GREY)
    result = scores(capsys, tmp_path / "predicted.tif", "--masks", masks)
    assert result["dice_mean"] == pytest.approx(4 / 5)
    assert result["dice_sd"] == pytest.approx(np.std([0, 1, 1, 1, 1], ddof=1))
    assert result["dice_pooled"] == pytest.approx(2 * 180 / (180 + 200))


def test_evaluate_pairs_a_prediction_of_only_the_named_planes_in_order(
    tmp_path: Path, masks: Path, capsys: Capture
) -> None:
    planes = tifffile.imread(masks)
    tifffile.imwrite(tmp_path / "part.tif", (planes[2:4] > 0).astype(np.uint8), **GREY)
    result = scores(capsys, tmp_path / "part.tif", "--masks", masks, "--planes", "2-3")
    assert (result["n"], result["dice_mean"]) == (2, 1.0)


def test_evaluate_selects_planes_in_both_when_both_are_whole(masks: Path, capsys: Capture) -> None:
    assert scores(capsys, masks, "--masks", masks, "--planes", "1,4")["n"] == 2


def test_evaluate_takes_only_the_label_asked_for(
    tmp_path: Path, masks: Path, capsys: Capture
) -> None:
    planes = tifffile.imread(masks)
    tifffile.imwrite(tmp_path / "second.tif", (planes == 2).astype(np.uint8), **GREY)
    result = scores(capsys, tmp_path / "second.tif", "--masks", masks, "--label", "2")
    assert result["dice_mean"] == 1.0


def test_evaluate_leaves_out_pixels_that_nobody_has_decided_on(
    tmp_path: Path, masks: Path, capsys: Capture
) -> None:
    planes = tifffile.imread(masks)
    tifffile.imwrite(tmp_path / "predicted.tif", (planes > 0).astype(np.uint8), **GREY)
    undecided = planes.copy()
    undecided[:, ::2] = 255
    tifffile.imwrite(tmp_path / "truth.tif", undecided, **GREY)
    arguments = (tmp_path / "predicted.tif", "--masks", tmp_path / "truth.tif")
    assert scores(capsys, *arguments)["dice_mean"] < 1.0
    assert scores(capsys, *arguments, "--ignore-label", "255")["dice_mean"] == 1.0


def test_evaluate_pairs_folders_by_name(tmp_path: Path, masks: Path, capsys: Capture) -> None:
    planes = tifffile.imread(masks)
    for folder, names in (("predicted", "abc"), ("truth", "ba")):
        (tmp_path / folder).mkdir()
        for name in names:
            plane = planes["abc".index(name)]
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", plane)
    result = scores(capsys, tmp_path / "predicted", "--masks", tmp_path / "truth")
    assert (result["n"], result["dice_mean"]) == (2, 1.0)


def test_evaluate_for_people_says_the_same(masks: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(masks), "--masks", str(masks)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Dice, mean over planes\s+1\.0000", out)


def test_evaluate_refuses_stacks_that_do_not_pair(
    tmp_path: Path, masks: Path, capsys: Capture
) -> None:
    tifffile.imwrite(tmp_path / "short.tif", tifffile.imread(masks)[:3], **GREY)
    assert main(["evaluate", str(tmp_path / "short.tif"), "--masks", str(masks)]) == 1
    assert "3" in capsys.readouterr().err


# Where segment writes


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Two stacks of one name in two folders, and a folder of images."""
    for name in ("monday/stack.ome.tif", "tuesday/stack.tif", "images/a.tif", "images/b.tif"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        shape = (4, 5) if "images" in name else (3, 4, 5)
        tifffile.imwrite(path, np.zeros(shape, np.uint8), **GREY)
    return tmp_path


@pytest.mark.parametrize("name", ["tuesday/stack.tif", "images"])
def test_one_input_is_written_where_the_user_says(name: str, sources: Path) -> None:
    out = sources / "out"
    assert plan_targets([sources / name], out) == [(sources / name, out)]


def test_several_inputs_each_get_their_own_place(sources: Path) -> None:
    inputs = [sources / "images", sources / "tuesday/stack.tif"]
    out = sources / "out"
    assert [target for _, target in plan_targets(inputs, out)] == [
        out / "images",
        out / "stack.tif",
    ]


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [
        (["images", "tuesday/stack.tif"], "out.tif", "one file"),
        (["monday/stack.ome.tif", "tuesday/stack.tif"], "out", "both"),
        (["tuesday/stack.tif", "images"], "tuesday", "overwrite"),
        (["tuesday/stack.tif", "images"], ".", "overwrite"),
    ],
)
def test_outputs_that_would_destroy_something_are_refused(
    inputs: list[str], output: str, said: str, sources: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        plan_targets([sources / name for name in inputs], sources / output)


def test_a_missing_input_is_found_before_any_work(sources: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        plan_targets([sources / "images", sources / "missing.tif"], sources / "out")


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_off_a_terminal_is_few_plain_lines() -> None:
    stream, now = io.StringIO(), 0.0
    with Progress(stream, interval=5.0, clock=lambda: now) as progress:
        for done in range(1, 101):
            now = 0.1 * done
            progress.update("training", done, 100, f"loss {1 / done:.2f}")
        progress.update("writing", 1, 1)
    assert stream.getvalue().splitlines() == [
        "training 1/100, loss 1.00",
        "training 51/100, loss 0.02",
        "training 100/100, loss 0.01",
        "writing 1/1",
    ]


def test_progress_on_a_terminal_is_one_bar_for_each_phase() -> None:
    stream = Terminal()
    with Progress(stream) as progress:
        for phase in ("encoding", "training"):
            for done in range(1, 4):
                progress.update(phase, done, 3, "loss 0.5")
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert "encoding: 100%" in text
    assert "training: 100%" in text
    assert "loss 0.5" in text
