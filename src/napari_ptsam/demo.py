"""The main job on real images, offline: train, segment, score, show.

Where the project's development data lie beside the checkout, they are used;
elsewhere photographs and micrographs from inside scikit-image's wheel, with
masks that come with this package (``demo_data/README.md`` tells how they were
made).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from napari_ptsam.demo_data import MASK_FOLDER, SETS, demo_mask, wheel_image
from napari_ptsam.demo_picture import Comparison, save_comparison
from napari_ptsam.errors import InputError
from napari_ptsam.labels import read_labels
from napari_ptsam.metrics import Scores, score_planes
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import Planes, open_planes
from napari_ptsam.progress import Progress
from napari_ptsam.specialist import Specialist, TrainStep

DATA_VARIABLE = "NAPARI_PTSAM_DATA"

_PICTURE_ROWS = 4


@dataclass(frozen=True)
class Task:
    """Where one data set's training and test images and masks are.

    Attributes
    ----------
    name, target
        Of the data set, and of what its masks mark.
    train_images, train_masks, test_images, test_masks
        Folders, or stacks.
    train_planes, test_planes
        Of stacks, None in folders.
    """

    name: str
    target: str
    train_images: Path
    train_masks: Path
    test_images: Path
    test_masks: Path
    train_planes: Sequence[int] | None = None
    test_planes: Sequence[int] | None = None


def run_demo(output: Path, data: Path | None = None) -> None:
    """Train, segment and score on real images; print Dice, write pictures and prompt files.

    Parameters
    ----------
    output
        Folder for all results, made where it is missing.
    data
        Folder with the development data sets. By default, the one that the
        environment variable ``NAPARI_PTSAM_DATA`` names, else
        ``../shared/data`` where that exists, else scikit-image's pictures.

    Raises
    ------
    InputError
        When a folder is named that does not hold the data.
    """
    started = time.monotonic()
    data = find_data(data)
    output.mkdir(parents=True, exist_ok=True)
    if data is not None:
        print(f"Data: the development data sets dsb2018 and isbi2012 in {data}")
        tasks = development_tasks(data)
    else:
        print(
            "Data: photographs and micrographs from inside scikit-image's wheel, cut into\n"
            "training and test parts. Masks: made by this project from thresholds, watersheds\n"
            f"and corrections by hand, checked by eye; see {MASK_FOLDER / 'README.md'}"
        )
        tasks = wheel_tasks(output)
    print(f"Results go to {output}")
    lines = [_run(task, output / task.name) for task in tasks]
    print(f"\n{'data set':<20}{'Dice %':>8}{'SD':>7}{'images':>8}   object")
    print("\n".join(lines))
    print(f"Done in {time.monotonic() - started:.0f} s.")


def find_data(data: Path | None = None) -> Path | None:
    """The folder of development data, or None where there is none.

    Raises
    ------
    InputError
        When a folder is named, by argument or by the environment, that does
        not hold ``dsb2018`` and ``isbi2012``.
    """
    named = data or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    folder = named or Path.cwd().parent / "shared" / "data"
    missing = [name for name in ("dsb2018", "isbi2012") if not (folder / name).is_dir()]
    if not missing:
        return folder
    if named is not None:
        raise InputError(
            f"The data folder {named} has no {' and no '.join(missing)}. Name a folder that holds "
            f"dsb2018 and isbi2012, or unset {DATA_VARIABLE} to use scikit-image's pictures."
        )
    return None


def development_tasks(data: Path) -> list[Task]:
    """A folder of images and a stack: nuclei of dsb2018, membranes of ISBI 2012."""
    train, test = data / "dsb2018" / "train", data / "dsb2018" / "test"
    volume, membranes = (
        data / "isbi2012" / "volume.ome.tif",
        data / "isbi2012" / "membranes.ome.tif",
    )
    return [
        Task("dsb2018", "nucleus", train / "images", train / "masks",
             test / "images", test / "masks"),
        Task("isbi2012", "membrane", volume, membranes, volume, membranes,
             range(16), range(20, 30)),
    ]  # fmt: skip


def wheel_tasks(output: Path) -> list[Task]:
    """Cut scikit-image's pictures into parts, written below `output` as a user would have them."""
    tasks = []
    for demo_set in SETS:
        home = output / demo_set.name
        image, mask = wheel_image(demo_set), demo_mask(demo_set)
        for fold, name, window in demo_set.parts():
            for kind, pixels in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
                folder = home / fold / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[window]).save(folder / f"{name}.png")
        folders = [home / fold / kind for fold in ("train", "test") for kind in ("images", "masks")]
        train_images, train_masks, test_images, test_masks = folders
        tasks.append(
            Task(demo_set.name, demo_set.target, train_images, train_masks, test_images, test_masks)
        )
    return tasks


def _run(task: Task, home: Path) -> str:
    """One data set from training to picture; returns its line of the result table."""
    home.mkdir(parents=True, exist_ok=True)
    print(f"\n{task.name}: learning '{task.target}'", flush=True)
    prompt_file = home / f"{task.name}.ptsam.safetensors"
    predicted = home / ("predicted" if task.test_planes is None else "predicted.tif")
    with Progress(sys.stderr) as progress:
        specialist = _train(task, progress)
        specialist.save(prompt_file)
        # What is there is of an earlier demo: the folder is the demo's own.
        for done in specialist.segment(
            task.test_images, predicted, planes=task.test_planes, overwrite=True
        ):
            progress.update("segmenting", done.done, done.total)
    scores = score_planes(
        open_planes(predicted), open_planes(task.test_masks), planes=task.test_planes
    )
    picture = home / f"{task.name}.png"
    _show(task, open_planes(predicted), scores, picture)
    print(f"  {prompt_file} ({prompt_file.stat().st_size:,} bytes)\n  {picture}")
    found = scores.to_dict()
    return (
        f"{task.name:<20}{100 * found['dice_mean']:8.1f}{100 * found['dice_sd']:7.1f}"
        f"{found['n']:8}   {task.target}"
    )


def _train(task: Task, progress: Progress) -> Specialist:
    def show(step: TrainStep) -> None:
        phase = "encoding" if step.phase == "embed" else "training"
        note = "" if step.phase == "embed" else f"loss {step.loss:.3f}"
        progress.update(phase, step.step, step.steps, note)

    return Specialist.train(
        task.train_images,
        task.train_masks,
        planes=task.train_planes,
        limit=16,
        preset="quick",
        class_name=task.target,
        on_step=show,
        command="napari-ptsam demo",
    )


def _show(task: Task, predicted: Planes, scores: Scores, path: Path) -> None:
    """A picture of some test images, spread evenly from the worst to the best."""
    images, truth = open_planes(task.test_images), open_planes(task.test_masks)
    keys = list(scores.overlaps)
    by_name = predicted.kind == "folder"
    keys_written = list(predicted.keys) if by_name else keys
    ordered = sorted(keys, key=lambda key: scores.overlaps[key].dice)
    chosen = np.linspace(0, len(ordered) - 1, min(_PICTURE_ROWS, len(ordered))).round()
    rows = []
    for key in (ordered[int(i)] for i in chosen):
        source = images.keys.index(key)
        rows.append(
            Comparison(
                Normalization().apply(images.read(source)),
                read_labels(truth, truth.keys.index(key)) > 0,
                read_labels(predicted, keys_written.index(key)) > 0,
                f"{task.name}, {key[:24]}: Dice {100 * scores.overlaps[key].dice:.1f} %",
            )
        )
    save_comparison(rows, path)
