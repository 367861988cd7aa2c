"""The file that describes a study, read and checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_ptsam.benchmark.toml_tables import made, tables
from napari_ptsam.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

BASELINES = ("unet", "forest", "nnunet")
"""What ``baseline`` may be."""


@dataclass(frozen=True)
class DataConfig:
    """A data set of the study.

    Attributes
    ----------
    name
        Folder of its results.
    published
        Name of a published set, which is downloaded; see `napari_ptsam.benchmark.published`.
    folder
        Else a folder with ``images`` and ``masks``, or with ``train`` and ``test`` that hold
        these; in the data folder of the study.
    images, masks
        Else folders or stacks.
    title
        In tables and pictures; by default its name.
    target
        What the masks mark, in the singular.
    label
        Value of the object in the masks; by default any above 0.
    pictures
        Whether pictures of its images may go into the report.
    licence, citation
        Of a data set that is not published, for the report.
    """

    name: str
    published: str = ""
    folder: str = ""
    images: str = ""
    masks: str = ""
    title: str = ""
    target: str = "object"
    label: int | None = None
    pictures: bool = True
    licence: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name, "data set")
        if sum(map(bool, (self.published, self.folder, self.images))) != 1 or (
            bool(self.images) != bool(self.masks)
        ):
            raise InputError(
                f"The data set '{self.name}' is given by one of: 'published' (a name), 'folder' "
                "(with images and masks), or 'images' and 'masks' (folders or stacks)."
            )

    @property
    def shown(self) -> str:
        """Its title."""
        return self.title or self.name


@dataclass(frozen=True)
class MethodConfig:
    """A row of the study's table.

    Attributes
    ----------
    name
        Folder of its results.
    method
        A method of `napari_ptsam.methods`.
    baseline
        Or one of `BASELINES`.
    title
        In tables and plots; by default its name.
    settings
        Those that are not to be the method's or baseline's own.
    learning_rate, steps, batch_size
        Instead of the method's and the study's own.
    sizes, data
        Only these of the study's sizes and data sets; empty for all.
    family
        Name under which a method with a frozen and one with a tuned encoder are compared.
    longer_than
        Name of a method that this one repeats with more steps, to show that those suffice.
    """

    name: str
    method: str = ""
    baseline: str = ""
    title: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    sizes: tuple[int, ...] = ()
    data: tuple[str, ...] = ()
    family: str = ""
    longer_than: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name, "method")
        if bool(self.method) == bool(self.baseline):
            raise InputError(f"The row '{self.name}' is either a 'method' or a 'baseline'.")
        if self.baseline and self.baseline not in BASELINES:
            raise InputError(
                f"There is no baseline '{self.baseline}'; choose one of {', '.join(BASELINES)}."
            )
        if self.baseline and any((self.learning_rate, self.steps, self.batch_size)):
            raise InputError(
                f"The baseline '{self.name}' is set by its 'settings' alone; put learning_rate, "
                "steps and batch_size there, if it has them."
            )

    @property
    def shown(self) -> str:
        """Its title."""
        return self.title or self.name

    @property
    def is_variant(self) -> bool:
        """Whether it has no part in the main comparison, which takes all sizes and data sets."""
        return bool(self.sizes or self.data or self.longer_than)

    def takes(self, data: str, size: int) -> bool:
        """Whether it is run on a data set with so many images."""
        return (not self.data or data in self.data) and (not self.sizes or size in self.sizes)


@dataclass(frozen=True)
class TrainingConfig:
    """What all methods share.

    Attributes
    ----------
    preset, steps, batch_size, scale
        See `napari_ptsam.Specialist.train_steps`.
    """

    preset: str = "standard"
    steps: int | None = None
    batch_size: int | None = None
    scale: float | str = "auto"


@dataclass(frozen=True)
class Cell:
    """One training and its test.

    Attributes
    ----------
    data, method
        Names.
    size
        Number of training images.
    split
        Which of the splits, from 0.
    seed
        Which repetition.
    """

    data: str
    method: str
    size: int
    split: int
    seed: int

    @property
    def name(self) -> str:
        """Path of its result, without suffix."""
        return f"{self.data}/{self.method}/n{self.size:02d}-split{self.split}-seed{self.seed}"

    @property
    def training_seed(self) -> int:
        """Of the training: another one in each split, though all may have the same images."""
        return 1000 * self.seed + self.split


@dataclass(frozen=True)
class BenchmarkConfig:
    """A study.

    Attributes
    ----------
    path
        The file that it was read from.
    title
        Heading of the report.
    backbone
        Name from `list_backbones`, or a checkpoint's path.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    data_folder
        Where data sets are; relative to the file. Empty for the user's cache.
    split_folder
        Where the split files are; relative to the file.
    sizes
        Numbers of training images, each within the next.
    splits, split_seed
        How many draws of training images, and what they start from.
    seeds
        Repetitions of each.
    """

    path: Path
    title: str
    backbone: str
    data: tuple[DataConfig, ...]
    methods: tuple[MethodConfig, ...]
    device: str = "auto"
    data_folder: str = ""
    split_folder: str = "splits"
    sizes: tuple[int, ...] = (16, 32, 64)
    splits: int = 3
    split_seed: int = 0
    seeds: tuple[int, ...] = (0,)
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        for kind, entries in (("data", self.data), ("methods", self.methods)):
            names = [entry.name for entry in entries]
            if not names or len(set(names)) < len(names):
                raise InputError(
                    f"{self.path.name} lists [[{kind}]] called {', '.join(names) or 'nothing'}; "
                    "give at least one, and each a name of its own."
                )
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 1:
            raise InputError(f"Sizes are numbers of images that grow, not {list(self.sizes)}.")
        if self.splits < 1 or not self.seeds:
            raise InputError("A study has at least one split and one seed.")
        self._check_names()

    def _check_names(self) -> None:
        """Of what methods refer to."""
        known, data = {m.name for m in self.methods}, {d.name for d in self.data}
        for m in self.methods:
            strange = [
                *map(str, set(m.sizes) - set(self.sizes)),
                *(set(m.data) - data),
                *({m.longer_than} - known - {""}),
            ]
            if strange:
                raise InputError(
                    f"The method '{m.name}' names {', '.join(sorted(strange))}, which is no size, "
                    "data set or method of the study."
                )

    def cells(self) -> Iterator[Cell]:
        """All trainings, so that a part of them is a study too: split by split, variants last.

        Methods on the same images follow each other, and share what the frozen encoder gave.
        """
        for seed in self.seeds:
            for variants in (False, True):
                methods = [m for m in self.methods if m.is_variant == variants]
                for split in range(self.splits):
                    for size in self.sizes:
                        for data in self.data:
                            for method in methods:
                                if method.takes(data.name, size):
                                    yield Cell(data.name, method.name, size, split, seed)

    def beside(self, name: str) -> Path:
        """A path that the file gives, relative to it."""
        return (self.path.parent / Path(name).expanduser()).resolve()


def read_config(path: str | Path) -> BenchmarkConfig:
    """Read a study from a TOML file.

    Raises
    ------
    InputError
        If it is no TOML, or a value is missing, unknown or of the wrong kind.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML file: {error}.") from error
    table["data"] = tuple(made(DataConfig, t, path) for t in tables(table, "data", path))
    table["methods"] = tuple(made(MethodConfig, t, path) for t in tables(table, "methods", path))
    table["training"] = made(TrainingConfig, table.get("training", {}), path)
    config: BenchmarkConfig = made(
        BenchmarkConfig, {"title": path.stem, **table, "path": path}, path
    )
    return config


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot be the name of a {what}: it becomes a folder. Use letters, digits "
            "and . _ + - alone; a 'title' may be anything."
        )
