"""How `segment` treats each input: plane by plane, as a job that can be resumed, or a folder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ptsam.cli.usage import UsageError
from napari_ptsam.planes import is_folder
from napari_ptsam.progress import Progress

if TYPE_CHECKING:
    from napari_ptsam.specialist import Specialist
    from napari_ptsam.volumes.folder import Batch
    from napari_ptsam.volumes.job import Access, Settings


def refuse_losses(
    specialist: Specialist, targets: Sequence[tuple[Path, Path]], args: argparse.Namespace
) -> None:
    """Raise an `InputError` if a result of any input would replace what is not the program's.

    Each run looks by itself; of several the last must not fail after hours of work on the first.
    """
    from napari_ptsam.replacing import refuse_clashes, refuse_foreign
    from napari_ptsam.volumes.finishing import marked, products

    for source, output in targets:
        if is_folder(source):
            _batch(specialist, source, output, args).refuse_losses()
            continue
        files = products(_settings(args), _file_of(specialist, source, output, args))
        refuse_clashes(files.values(), [path for path, _ in targets])
        if not args.overwrite:
            refuse_foreign(marked(files))


def segment_one(
    specialist: Specialist, source: Path, output: Path, args: argparse.Namespace
) -> None:
    """Segment one input into the place that was chosen for it."""
    if is_folder(source) and output.suffix.lower() != ".zarr":
        if args.planes is None:
            _folder(specialist, source, output, args)
        elif args.dry_run or args.objects or args.z_smooth or args.three_axes:
            raise UsageError(
                "--planes with a folder counts the planes of all its files, which goes with no "
                "other treatment; leave it away, or give one stack"
            )
        else:
            _plane_by_plane(specialist, source, output, args)
        return
    if _needs_job(specialist, source, output, args):
        _job(specialist, source, output, args)
    elif args.dry_run:
        count = len(_chosen(specialist, source, args))
        print(f"{source} -> {output}: {count} plane{'' if count == 1 else 's'}")
    else:
        _plane_by_plane(specialist, source, output, args)


def _plane_by_plane(
    specialist: Specialist, source: Path, output: Path, args: argparse.Namespace
) -> None:
    started = time.monotonic()
    done = 0
    work = specialist.segment(
        source,
        output,
        planes=args.planes,
        minimum_size=args.minimum_size,
        probability=args.probability,
        axes=args.axes,
        channel=args.channel,
        overwrite=args.overwrite,
    )
    # Closing at once, and not at garbage collection, completes or removes
    # the files of an interrupted run.
    with Progress(sys.stderr) as progress, closing(work):
        for plane in work:
            done = plane.done
            note = _speed(plane.done, plane.total, plane.done, plane.seconds)
            progress.update(f"segmenting {source.name}", plane.done, plane.total, note)
    seconds = time.monotonic() - started
    print(f"Wrote {output}: {done} plane{'' if done == 1 else 's'} in {seconds:.1f} s.")


def _speed(done: int, total: int, computed: int, seconds: float) -> str:
    """Throughput and time left, once there is something to tell."""
    if seconds <= 0 or not computed:
        return ""
    rate = computed / seconds
    left = (total - done) / rate
    shown = f"{rate:.1f}/s" if rate >= 0.1 else f"{1 / rate:.0f} s each"
    if done == total:
        return shown
    minutes, rest = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{rest:02d} min"
    return f"{shown}, {clock} left"


def _settings(args: argparse.Namespace) -> Settings:
    from napari_ptsam.volumes import Settings

    return Settings(
        probability=args.probability,
        minimum_size=args.minimum_size,
        objects=args.objects,
        z_smooth=args.z_smooth,
        three_axes=args.three_axes,
        version=args.ome_zarr,
    )


def _access(source: Path, args: argparse.Namespace) -> Access:
    from napari_ptsam.volumes import Access

    return Access(
        source=str(source.expanduser().resolve()),
        axes=args.axes,
        channel=args.channel,
        planes=None if args.planes is None else tuple(args.planes),
        backbone=_absolute(args.backbone),
        device=args.device,
    )


def _absolute(backbone: str | None) -> str | None:
    """A backbone's file by its whole path, for workers that run elsewhere."""
    if backbone is None or not Path(backbone).expanduser().is_file():
        return backbone
    return str(Path(backbone).expanduser().resolve())


def _chosen(specialist: Specialist, source: Path, args: argparse.Namespace) -> Any:
    from napari_ptsam.volumes.run import complete_access, opened

    return opened(source, complete_access(_access(source, args), specialist))


def _needs_job(
    specialist: Specialist, source: Path, output: Path, args: argparse.Namespace
) -> bool:
    """Whether more is asked for than one plane after the other into a TIFF file."""
    from napari_ptsam.volumes.blocks import LARGE_PLANE

    if output.suffix.lower() == ".zarr" or args.scheduler is not None:
        return True
    if args.objects or args.z_smooth or args.three_axes:
        return True
    height, width = _chosen(specialist, source, args).shape_of(0)
    return bool(height * width > LARGE_PLANE)


def _job(specialist: Specialist, source: Path, output: Path, args: argparse.Namespace) -> None:
    from napari_ptsam.volumes import segment_volume

    output = _file_of(specialist, source, output, args)
    if args.dry_run:
        _say_planned(specialist, source, output, args)
        return
    started, note = time.monotonic(), ""
    with ExitStack() as stack:
        runner = None
        if args.scheduler is not None:
            from napari_ptsam.volumes.cluster import connected

            cluster = stack.enter_context(connected(args.scheduler))
            print(f"Dask dashboard: {cluster.dashboard}", file=sys.stderr)
            runner = cluster.run
        progress = stack.enter_context(Progress(sys.stderr))
        work = segment_volume(
            specialist, source, output, _settings(args), access=_access(source, args),
            overwrite=args.overwrite, runner=runner,
        )  # fmt: skip
        with closing(work):
            while True:
                try:
                    chunk = next(work)
                except StopIteration as end:
                    result = end.value
                    break
                note = _speed(chunk.done, chunk.total, chunk.computed, chunk.seconds)
                progress.update(f"{source.name}: {chunk.step}", chunk.done, chunk.total, note)
    if result.found:
        print(f"{output} is there already, made by the same job; --overwrite makes it again.")
        return
    names = ", ".join(str(path) for path in result.files)
    print(f"Wrote {names} in {time.monotonic() - started:.1f} s.")


def _file_of(specialist: Specialist, source: Path, output: Path, args: argparse.Namespace) -> Path:
    from napari_ptsam.volumes.run import SUFFIXES

    if output.suffix.lower() in SUFFIXES:
        return output
    if output.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".npy") or output.is_file():
        raise UsageError(f"{output} cannot hold the result; give a name in .zarr or .tif")
    return output / f"{_chosen(specialist, source, args).parts[0].key}.tif"


def _say_planned(
    specialist: Specialist, source: Path, output: Path, args: argparse.Namespace
) -> None:
    from napari_ptsam.volumes.blocks import Block, block_side

    planes = _chosen(specialist, source, args)
    shape = planes.shape_of(0)
    side = block_side(shape, specialist.scaling, specialist.backbone.input_size)
    chunks = len(planes) * len(Block.all_of(shape, side))
    state = "exists" if output.exists() else "new"
    print(
        f"{source} -> {output} ({state}): {len(planes)} planes of {shape[0]}x{shape[1]} "
        f"(axes {planes.parts[0].axes or '-'}), {chunks} chunks"
    )


def _batch(specialist: Specialist, source: Path, output: Path, args: argparse.Namespace) -> Batch:
    from napari_ptsam.volumes.folder import Batch

    access = _access(source, args)
    return Batch(specialist, source, output, _settings(args), access, args.overwrite)


def _folder(specialist: Specialist, source: Path, output: Path, args: argparse.Namespace) -> None:
    from napari_ptsam.volumes.folder import segment_folder

    if args.scheduler is not None:
        raise UsageError("a scheduler works on one stack; give a folder as one with -o NAME.zarr")
    batch = _batch(specialist, source, output, args)
    if args.dry_run:
        batch.refuse_losses()
        total = done = 0
        for path, target in batch.targets():
            known = batch.is_done(path, target)
            total, done = total + 1, done + known
            print(f"{path} -> {target}: {'done' if known else 'to do'}")
        print(f"To do: {total - done} of {total} files.")
        return
    started = time.monotonic()
    counts = {"done": 0, "skipped": 0, "failed": 0}
    planes = 0
    work = segment_folder(batch)
    with Progress(sys.stderr) as progress, closing(work):
        for file in work:
            counts[file.state] += 1
            planes += file.planes
            seconds = time.monotonic() - started
            note = _speed(file.done, file.total, file.done - counts["skipped"], seconds)
            failed = f", {counts['failed']} failed" if counts["failed"] else ""
            progress.update(f"segmenting {source.name}", file.done, file.total, note + failed)
    seconds = time.monotonic() - started
    skipped = f", {counts['skipped']} files were done before" if counts["skipped"] else ""
    print(
        f"Wrote {output}: {planes} plane{'' if planes == 1 else 's'} in {seconds:.1f} s{skipped}."
    )
