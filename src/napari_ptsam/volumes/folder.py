"""A folder of images, one after the other: a mirrored tree, and a report of what went wrong."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import xxhash

from napari_ptsam.errors import InputError, PtsamError
from napari_ptsam.objects import without_small
from napari_ptsam.planes import Planes, list_images, open_planes
from napari_ptsam.replacing import made_by, maker_of, refuse_clashes, refuse_foreign
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes.blocks import LARGE_PLANE
from napari_ptsam.volumes.finishing import TABLE, marked, products
from napari_ptsam.volumes.job import Access, Settings, specialist_identity
from napari_ptsam.volumes.pipeline import overlapped
from napari_ptsam.volumes.run import complete_access, segment_volume
from napari_ptsam.volumes.stages import PlanePredictor
from napari_ptsam.writing import open_output, open_probability

OBJECTS = "objects"
_REPORT = ("file", "state", "planes", "seconds", "message")


@dataclass(frozen=True)
class FileDone:
    """A file of a folder was dealt with.

    Attributes
    ----------
    path, output
        The image and its mask.
    done, total
        How many files were dealt with.
    state
        ``done``, ``skipped`` (the mask was there, made by the same specialist with the same
        settings from the same file) or ``failed``.
    planes
        How many were segmented.
    seconds
        That it took.
    message
        Why it failed.
    """

    path: Path
    output: Path
    done: int
    total: int
    state: str
    planes: int = 0
    seconds: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class Batch:
    """What is done to the files of a folder.

    Attributes
    ----------
    specialist
        What to segment with.
    folder, output
        Where images are, and where masks of the same names go.
    settings
        See `Settings`. Probabilities go to ``OUTPUT_probability``, numbered objects and their
        tables to ``OUTPUT_objects``.
    access
        Axes and channel; where None, as in training where that fits.
    overwrite
        Segment files again whose mask is there, also if this program did not write it.
    """

    specialist: Specialist
    folder: Path
    output: Path
    settings: Settings = field(default_factory=Settings)
    access: Access = field(default_factory=Access)
    overwrite: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "access", complete_access(self.access, self.specialist))
        folder, settings = self.folder.resolve(), self.settings
        trees = [self.output]
        trees += [self.tree("probability")] * settings.probability
        trees += [self.tree(OBJECTS)] * settings.objects
        for tree in trees:
            if folder in (tree.resolve(), *tree.resolve().parents):
                raise InputError(
                    f"The output {tree} lies within the input {self.folder}, so that results "
                    "would mix with images. Choose a place outside of it."
                )
        if self.output.is_file() or self.output.suffix.lower() in (".tif", ".tiff", ".png"):
            raise InputError(
                f"{self.output} is the name of a file, but the results for the folder "
                f"{self.folder} need a folder. Give a folder as the output."
            )

    @property
    def report(self) -> Path:
        """Where it is written what became of each file, if one failed."""
        return self.output.with_name(f"{self.output.name}_report.csv")

    @property
    def all_objects(self) -> Path:
        """The table of the objects of all files."""
        return self.tree(OBJECTS) / "all_objects.csv"

    def tree(self, word: str) -> Path:
        """The folder of other results."""
        return self.output.with_name(f"{self.output.name}_{word}")

    def targets(self) -> list[tuple[Path, Path]]:
        """Each image and its mask."""
        return [(path, self.output / f"{key}.tif") for key, path in list_images(self.folder)]

    def named(self, output: Path, word: str) -> Path:
        """Where another result of a file goes, in a tree of its own."""
        return self.tree(word) / output.relative_to(self.output)

    def products(self, output: Path) -> dict[str, Path]:
        """All that is written for the file whose mask this is."""
        return products(self.settings, output, self.named)

    def refuse_losses(self) -> None:
        """Raise an `InputError` if a file of the run would replace what is not the program's.

        Before anything is computed, and for all files: else results would mix with somebody's
        masks.
        """
        files: dict[Path, Path] = {}
        for _, output in self.targets():
            files |= marked(self.products(output))
        refuse_clashes(files, [self.folder])
        if not self.overwrite:
            tables: dict[Path, Sequence[str]] = {self.report: _REPORT}
            if self.settings.objects:
                tables[self.all_objects] = ("file", "label")
            refuse_foreign(files, tables)

    def mark(self, path: Path) -> str:
        """What a mask names as its maker: tells specialist, settings and file."""
        status = path.stat()
        facts = [
            specialist_identity(self.specialist), vars(self.settings), vars(self.access),
            status.st_size, status.st_mtime_ns,
        ]  # fmt: skip
        digest = xxhash.xxh3_128_hexdigest(json.dumps(facts, sort_keys=True, default=str).encode())
        return made_by(digest)

    def is_done(self, path: Path, output: Path) -> bool:
        """Whether all that is written for a file is there, and needs no work."""
        if self.overwrite or not all(p.is_file() for p in self.products(output).values()):
            return False
        return maker_of(output) == self.mark(path)


def segment_folder(batch: Batch) -> Generator[FileDone, None, Path]:
    """Segment the files of a folder; one that fails does not stop the others.

    Yields
    ------
    FileDone
        After each file.

    Returns
    -------
    Path
        The folder of masks, as the generator's value.

    Raises
    ------
    InputError
        If there are no images, or something that is no work of this program would be replaced;
        and at the end if files failed, with the report's path.
    """
    batch.refuse_losses()
    targets, outcomes = batch.targets(), []
    for number, (path, output) in enumerate(targets, start=1):
        outcome = FileDone(path, output, number, len(targets), "skipped")
        if not batch.is_done(path, output):
            outcome = _segmented(batch, outcome)
        outcomes.append(outcome)
        yield outcome
    if batch.settings.objects:
        _join_tables(batch, outcomes)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failed:
        _write_report(batch.report, outcomes)
        raise InputError(
            f"{len(failed)} of {len(targets)} files could not be segmented, all others were. The "
            f"first: {failed[0].message} What became of each file is in {batch.report}."
        )
    batch.report.unlink(missing_ok=True)
    return batch.output


def _segmented(batch: Batch, outcome: FileDone) -> FileDone:
    started = time.monotonic()
    try:
        access = batch.access
        planes = open_planes(
            outcome.path, axes=access.axes, channel=access.channel, taught=access.taught,
            alone=False,
        )  # fmt: skip
        _segment_file(batch, planes, outcome)
    except (PtsamError, OSError, ValueError, MemoryError) as error:
        message = str(error) or type(error).__name__
        return replace(outcome, state="failed", message=message, seconds=time.monotonic() - started)
    seconds = time.monotonic() - started
    return replace(outcome, state="done", planes=len(planes), seconds=seconds)


def _segment_file(batch: Batch, planes: Planes, outcome: FileDone) -> None:
    height, width = planes.shape_of(0)
    settings = batch.settings
    special = settings.objects or settings.z_smooth or settings.three_axes or settings.block
    outcome.output.parent.mkdir(parents=True, exist_ok=True)
    mark = batch.mark(outcome.path)
    if not special and height * width <= LARGE_PLANE:
        _plane_by_plane(batch, planes, outcome.output, mark)
        return
    run = segment_volume(
        batch.specialist, planes, outcome.output, replace(settings, software=mark),
        overwrite=True, naming=batch.named,
    )  # fmt: skip
    with closing(run):
        for _ in run:
            pass


def _plane_by_plane(batch: Batch, planes: Planes, output: Path, mark: str) -> None:
    """The planes of a file, as `Specialist.segment` does them, with reading and writing beside."""
    specialist, settings = batch.specialist, batch.settings
    predictor = PlanePredictor(specialist, planes)
    with ExitStack() as outputs:
        masks = outputs.enter_context(open_output(output, planes, overwrite=True, software=mark))
        extra = settings.probability and outputs.enter_context(
            open_probability(batch.named(output, "probability"), planes, mark)
        )

        def write(number: int, probability: Any) -> None:
            mask = probability >= specialist.threshold
            masks.write(number, without_small(mask, settings.minimum_size))
            if extra:
                extra.write(number, probability)

        run = overlapped(
            range(len(planes)), predictor.read, predictor.compute, write, at_once=predictor.at_once
        )
        with closing(run):
            for _ in run:
                pass


def _join_tables(batch: Batch, outcomes: Sequence[FileDone]) -> None:
    """One table of all objects, with the file that each is in; read and written row by row."""
    total = batch.all_objects
    tables = [
        (outcome.path, batch.products(outcome.output)[TABLE])
        for outcome in outcomes
        if outcome.state != "failed"
    ]
    headings: list[str] = []
    for _, table in tables:
        with table.open(newline="", encoding="utf-8-sig") as file:
            headings += [name for name in next(csv.reader(file)) if name not in headings]
    if not tables:
        return
    unfinished = total.with_name(f".{total.name}.part")
    with unfinished.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["file", *headings])
        writer.writeheader()
        for path, table in tables:
            name = path.relative_to(batch.folder).as_posix()
            with table.open(newline="", encoding="utf-8-sig") as rows:
                writer.writerows({"file": name, **row} for row in csv.DictReader(rows))
    unfinished.replace(total)


def _write_report(path: Path, outcomes: Sequence[FileDone]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(_REPORT)
        for o in outcomes:
            writer.writerow([o.path, o.state, o.planes, f"{o.seconds:.2f}", o.message])
