"""One job from its start, or from where it was killed, to its files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_ptsam.errors import InputError
from napari_ptsam.measure import ObjectTable
from napari_ptsam.planes import Planes, as_stack, open_planes
from napari_ptsam.planes.zarrs import is_zarr
from napari_ptsam.replacing import mark_in, refuse_clashes, refuse_foreign
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes.blocks import batch_size, block_side
from napari_ptsam.volumes.depth import CombineStage, Logits, SideStage, series_of
from napari_ptsam.volumes.finishing import (
    TABLE,
    Naming,
    beside,
    marked,
    numbered,
    products,
    put_in_place,
    without_small_objects,
)
from napari_ptsam.volumes.free import free_memory
from napari_ptsam.volumes.job import (
    Access,
    Done,
    Job,
    Settings,
    differences,
    identity_of,
)
from napari_ptsam.volumes.pipeline import overlapped
from napari_ptsam.volumes.stages import BlockStage, Outputs, PlaneStage, Stage, Work
from napari_ptsam.writing import in_words

SUFFIXES = (".zarr", ".tif", ".tiff")

Runner = Callable[[Job, Stage, Sequence[int]], Generator[int, None, None]]
"""Runs chunks of a step somewhere else, and yields the number of each that is on the disk."""


@dataclass(frozen=True)
class ChunkDone:
    """A chunk of a job is on the disk.

    Attributes
    ----------
    step
        Which step of the job: ``planes`` or ``blocks``, and what follows them.
    done, total
        How many of the step's chunks are done, those of earlier runs among them.
    computed
        How many of them in this run.
    seconds
        Since this run began the step.
    """

    step: str
    done: int
    total: int
    computed: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Chunks of this run in a second."""
        return self.computed / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until the step is complete; None before anyone can tell."""
        return (self.total - self.done) / self.per_second if self.per_second else None


@dataclass(frozen=True)
class VolumeDone:
    """Where a job's results are.

    Attributes
    ----------
    output
        The mask.
    files
        Everything that was written.
    found
        Whether it was complete before, so that nothing was computed.
    """

    output: Path
    files: tuple[Path, ...]
    found: bool = False


def segment_volume(
    specialist: Specialist,
    source: Any,
    output: str | Path,
    settings: Settings | None = None,
    *,
    access: Access | None = None,
    overwrite: bool = False,
    runner: Runner | None = None,
    naming: Naming = beside,
) -> Generator[ChunkDone, None, VolumeDone]:
    """Segment a stack, movie or large image of any size, so that it can be killed at any time.

    The same call goes on where an earlier one ended, and gives the same files.

    Parameters
    ----------
    specialist
        What to segment with.
    source
        Path of a stack, an image, or a folder of images of one size; or an array or `Planes`.
    output
        ``.zarr`` (an OME-Zarr image with a pyramid) or ``.tif`` (a tiled OME-TIFF).
    settings
        What to make of it.
    access
        How other processes open the input, with its axes, channel and planes.
    overwrite
        Give up what is at the output, whoever made it, or was begun for it by another job. An
        input is never replaced.
    runner
        Where to compute; by default here, with reading and writing in threads of their own.
    naming
        Where probabilities, objects and their table go; by default beside the output.

    Yields
    ------
    ChunkDone
        After each chunk. Closing the generator ends its threads; the job can go on later.

    Raises
    ------
    InputError
        If input, output and settings do not fit, or another's work is in the way.
    """
    target, settings = Path(output).expanduser(), settings or Settings()
    access = complete_access(access or Access(), specialist)
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"{target} must end in .zarr or .tif to be the result for a stack.")
    planes, targets = opened(source, access), products(settings, target, naming)
    refuse_clashes(targets.values(), [planes.source, *(part.path for part in planes.parts)])
    identity = identity_of(specialist, planes, settings)
    if _finished(target, identity, overwrite=overwrite):
        return VolumeDone(target, tuple(targets.values()), found=True)
    if not overwrite:
        refuse_foreign(marked(targets))
    job = _job(specialist, planes, target, settings, access, identity)
    if settings.z_smooth or settings.three_axes:
        series_of(planes.parts[0])
    with in_words(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with _held(job.folder):
        begun = _begun(job, overwrite=overwrite)
        with in_words(target):
            if begun is None:
                job.discard()
                job.save(specialist)
            work = Work(begun or job, planes, specialist)
            yield from _carried_out(work, runner)
            files = tuple(put_in_place(work, target, naming).values())
    return VolumeDone(target, files)


def complete_access(access: Access, specialist: Specialist) -> Access:
    """With axes and channel of the training, for where nothing else is said."""
    return replace(access, taught=specialist.metadata.channels)


def opened(source: Any, access: Access) -> Planes:
    """An input as the one stack that a job works on."""
    if not isinstance(source, Planes):
        source = open_planes(source, axes=access.axes, channel=access.channel, taught=access.taught)
    planes = as_stack(source)
    return planes if access.planes is None else planes.subset(access.planes)


def _finished(target: Path, identity: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether the output is there already, made by this very job.

    Raises
    ------
    InputError
        If another job made it.
    """
    if not target.exists() or overwrite or target.suffix.lower() != ".zarr":
        return False
    if not is_zarr(target):
        raise InputError(f"{target} is a folder and no image. Choose another output.")
    made = mark_in(target)
    there = made.get("identity") if isinstance(made, dict) else None
    if there is None:
        raise InputError(
            f"{target} exists and was not made by this job. Choose another output, or say "
            "--overwrite to replace it."
        )
    changed = differences(there, identity)
    if changed:
        raise InputError(
            f"{target} was made by another job; they differ in {', '.join(changed)}. Choose "
            "another output, or say --overwrite to replace it."
        )
    return True


def _job(
    specialist: Specialist,
    planes: Planes,
    target: Path,
    settings: Settings,
    access: Access,
    identity: dict[str, Any],
) -> Job:
    shape, backbone = planes.shape_of(0), specialist.backbone
    side = settings.block or block_side(shape, specialist.scaling, backbone.input_size)
    return Job(
        folder=target.with_name(f".{target.name}.job"),
        identity=json.loads(json.dumps(identity)),
        settings=settings,
        access=access,
        side=side,
        batch=batch_size(backbone, free_memory(backbone.device)),
    )


def _begun(job: Job, *, overwrite: bool) -> Job | None:
    """The job as it was begun, None if it was not.

    Raises
    ------
    InputError
        If something else was begun for the same output.
    """
    begun = None if overwrite else Job.load(job.folder)
    if begun is None or begun.digest == job.digest:
        return begun
    changed = ", ".join(differences(begun.identity, job.identity))
    raise InputError(
        f"Another job for this output was begun and not finished ({job.folder}); they differ in "
        f"{changed}. Choose another output, give the command of that job to finish it, or say "
        "--overwrite to give it up."
    )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes from the same job; the lock of a killed one is void."""
    lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"Another process is at work on {folder}. Wait until it ends, or choose another output."
        ) from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def steps_of(work: Work) -> list[Callable[[], Stage]]:
    """How to make each step of a job, in their order; the arrays must be there."""
    settings = work.job.settings
    through_depth = bool(settings.z_smooth) or settings.three_axes
    first = PlaneStage if work.job.side is None else BlockStage

    def sink() -> Any:
        return Logits(work).keep if through_depth else Outputs(work).write

    steps: list[Callable[[], Stage]] = [lambda: first(work, sink())]
    if settings.three_axes:
        steps += [lambda: SideStage(work, 0), lambda: SideStage(work, 1)]
    if through_depth:
        steps.append(lambda: CombineStage(work, Outputs(work).write))
    return steps


def _carried_out(work: Work, runner: Runner | None) -> Generator[ChunkDone, None, None]:
    settings, job = work.job.settings, work.job
    with closing(Done(job.folder / "done")) as done:
        if not done.of("created"):
            work.create()
            if settings.z_smooth or settings.three_axes:
                Logits(work).create()
            done.add("created", 0)
        for step in steps_of(work):
            # When all chunks are done, the files may have got their names already.
            if not done.of("computed"):
                yield from _run(job, step(), done, runner)
        done.add("computed", 0)
        if job.side is not None and settings.minimum_size > 1 and not done.of("cleaned"):
            yield from _counted("leaving out small objects", work, without_small_objects(work))
            done.add("cleaned", 0)
        if settings.objects and not done.of("numbered"):
            yield from _counted("numbering objects", work, numbered(work))
            done.add("numbered", 0)


def _run(
    job: Job, stage: Stage, done: Done, runner: Runner | None
) -> Generator[ChunkDone, None, None]:
    """The chunks of a step that are not done yet."""
    total, started = len(stage), time.perf_counter()
    known = done.of(stage.name)
    before = len(known)
    if before == total:
        return
    todo = [number for number in range(total) if number not in known]
    chunks = _here(stage, todo) if runner is None else runner(job, stage, todo)
    with closing(chunks):
        for computed, number in enumerate(chunks, start=1):
            done.add(stage.name, number)
            seconds = time.perf_counter() - started
            yield ChunkDone(stage.name, before + computed, total, computed, seconds)


def _here(stage: Stage, todo: Sequence[int]) -> Generator[int, None, None]:
    return overlapped(todo, stage.read, stage.compute, stage.write, at_once=stage.at_once)


def _counted(
    name: str, work: Work, steps: Iterable[int | ObjectTable]
) -> Generator[ChunkDone, None, None]:
    total, started = len(work.planes), time.perf_counter()
    for step in steps:
        if isinstance(step, ObjectTable):
            step.write_csv(work.job.folder / TABLE)
        else:
            yield ChunkDone(name, step, total, step, time.perf_counter() - started)
