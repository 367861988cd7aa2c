"""nnU-Net, run as a program of its own.

Source: Isensee et al., "nnU-Net", Nature Methods 2021; package nnunetv2. It plans, augments and
trains by its own rules. It has no option for a random seed, so two runs differ.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from napari_ptsam.baselines import check_pairs
from napari_ptsam.errors import InputError, TrainingError

DATASET = "1"
"""nnU-Net's number of the data set; each folder holds one."""

_FOLDER = f"Dataset{int(DATASET):03d}_specialist"

_INSTALL = "Install it with: pip install 'napari-ptsam[nnunet]'."


@dataclass(frozen=True)
class NnUnetBaseline:
    """Where and for how long nnU-Net runs.

    Attributes
    ----------
    folder
        A new or empty folder for its data, its plans, its weights and its log.
    trainer
        Class of the trainer; ``nnUNetTrainer`` trains for 1,000 epochs, and
        ``nnUNetTrainer_50epochs``, for instance, for 50.
    device
        ``cuda``, ``cpu`` or ``mps``.
    planned_gigabytes
        GPU memory that patches and batches are planned for; None leaves it to nnU-Net.
    """

    folder: Path
    trainer: str = "nnUNetTrainer"
    device: str = "cuda"
    planned_gigabytes: float | None = None

    @property
    def name(self) -> str:
        """Short name for tables."""
        return "nnunet"

    @property
    def missing(self) -> str | None:
        """The package nnunetv2, where its commands are not on the path."""
        if shutil.which("nnUNetv2_train") is not None:
            return None
        return "nnU-Net is not installed: pip install 'napari-ptsam[nnunet]'"

    def fit(
        self,
        images: Sequence[NDArray[np.float32]],
        masks: Sequence[NDArray[np.bool_]],
        seed: int,  # noqa: ARG002 (nnU-Net has none)
    ) -> FittedNnUnet:
        """Plan and train a 2D network on all images; see `Baseline`.

        Raises
        ------
        InputError
            If nnU-Net is not installed, the folder is not empty, or there are no images.
        TrainingError
            If nnU-Net ends with an error; the text has its last words.
        """
        run = _Programs(self)
        check_pairs("nnU-Net", images, masks)
        if self.folder.exists() and any(self.folder.iterdir()):
            raise InputError(
                f"The folder {self.folder} is not empty; nnU-Net needs one of its own."
            )
        _write_dataset(self.folder / "raw" / _FOLDER, images, masks)
        memory = self.planned_gigabytes
        planning = () if memory is None else ("-gpu_memory_target", str(memory))
        run(
            "nnUNetv2_plan_and_preprocess", "-d", DATASET, "-c", "2d", "-np", "1", "-npfp", "1",
            *planning,
        )  # fmt: skip
        run("nnUNetv2_train", DATASET, "2d", "all", "-tr", self.trainer, "-device", self.device)
        return FittedNnUnet(run)


@dataclass(frozen=True)
class _Programs:
    """nnU-Net's commands with their three path variables."""

    made: NnUnetBaseline

    def __post_init__(self) -> None:
        self._find("nnUNetv2_train")

    def __call__(self, program: str, *arguments: str) -> None:
        """Run one to its end; what it says goes to ``log.txt``."""
        folder = self.made.folder.resolve()
        paths = {
            f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")
        }
        for path in paths.values():
            Path(path).mkdir(parents=True, exist_ok=True)
        log = folder / "log.txt"
        with log.open("a", encoding="utf-8") as output:
            start = output.tell()
            ended = subprocess.run(
                [self._find(program), *arguments],
                env={**os.environ, **paths},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if ended.returncode:
            said = log.read_bytes()[start:].decode(errors="replace").strip()[-500:]
            raise TrainingError(
                f"{program} ended with the code {ended.returncode}. Its last words, of which {log} "
                f"has all: {said or 'none'}"
            )

    @staticmethod
    def _find(program: str) -> str:
        found = shutil.which(program)
        if found is None:
            raise InputError(f"nnU-Net's command {program} is not on the path. {_INSTALL}")
        return found


@dataclass(frozen=True)
class FittedNnUnet:
    """A trained nnU-Net. Each call starts the program once, so that several images cost less."""

    run: _Programs

    @property
    def parameters(self) -> int | None:
        """Of the network that was planned."""
        return planned_parameters(self.run.made.folder / "preprocessed" / _FOLDER)

    @property
    def nbytes(self) -> int | None:
        """Of the checkpoint, which holds the optimiser's state too."""
        stored = list((self.run.made.folder / "results").rglob("checkpoint_final.pth"))
        return stored[0].stat().st_size if stored else None

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """One image's; see `predict`."""
        return self.predict([image])[0]

    def predict(self, images: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Images, HxWx3 of 0..255, to probabilities of the object, HxW of 0..1, in their order."""
        made = self.run.made
        with tempfile.TemporaryDirectory(dir=made.folder) as scratch:
            given, found = Path(scratch, "in"), Path(scratch, "out")
            given.mkdir()
            cases = [f"case{number:04d}" for number in range(len(images))]
            for case, image in zip(cases, images, strict=True):
                _write_image(given / f"{case}_0000.png", image)
            self.run(
                "nnUNetv2_predict", "-i", str(given), "-o", str(found), "-d", DATASET,
                "-c", "2d", "-f", "all", "-tr", made.trainer, "-device", made.device,
                "-npp", "1", "-nps", "1", "--save_probabilities",
            )  # fmt: skip
            return [_probability(found / f"{case}.npz") for case in cases]


def _probability(path: Path) -> NDArray[np.float32]:
    with np.load(path, allow_pickle=False) as stored:
        classes = stored["probabilities"]  # 2x1xHxW: background, object
    return np.asarray(classes[1, 0], np.float32)


def _write_dataset(
    home: Path, images: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]
) -> None:
    """Training data in nnU-Net's layout: colour PNGs, labels 0 and 1."""
    for part in ("imagesTr", "labelsTr"):
        (home / part).mkdir(parents=True)
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        _write_image(home / "imagesTr" / f"case{number:04d}_0000.png", image)
        Image.fromarray(mask.astype(np.uint8)).save(home / "labelsTr" / f"case{number:04d}.png")
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "object": 1},
        "numTraining": len(images),
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (home / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def _write_image(path: Path, image: NDArray[np.float32]) -> None:
    Image.fromarray(np.rint(np.clip(image, 0, 255)).astype(np.uint8)).save(path)


def planned_parameters(folder: Path) -> int | None:
    """How many parameters the 2D network of nnU-Net's plans has; None where there are no plans.

    Parameters
    ----------
    folder
        Of the preprocessed data set, with ``nnUNetPlans.json``.
    """
    plans = folder / "nnUNetPlans.json"
    if not plans.is_file():
        return None
    planned = json.loads(plans.read_text(encoding="utf-8"))["configurations"]["2d"]["architecture"]
    settings = dict(planned["arch_kwargs"])
    for name in planned["_kw_requires_import"]:
        settings[name] = settings[name] and locate(settings[name])
    kind: Any = locate(planned["network_class_name"])
    if kind is None:
        return None
    with torch.device("meta"):
        network = kind(input_channels=3, num_classes=2, deep_supervision=True, **settings)
    return sum(int(p.numel()) for p in network.parameters())
