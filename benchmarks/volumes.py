"""Memory and speed of a job on a long stack: ``python -m benchmarks.volumes``.

A 2,000 x 512 x 512 uint16 OME-Zarr image is segmented by the embedded backbone in a process of
its own. Its peak of resident memory is compared with that before the job, when everything is
imported and loaded; its planes per second with those of encoder and decoder alone, on views that
are drawn before, one plane after the other with all cores. By default a plane is one tile, which
leaves the least time to read and write it; with ``--scale 1`` it is nine. Some three minutes on
two idle cores; ``--quick`` takes one.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

import torch

from benchmarks.jobs import peak_mb, resident_mb, train_specialist, write_volume
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.planes import open_planes
from napari_ptsam.predict import TILES_AT_ONCE, prepare_plane, tile_logits
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import segment_volume

SIDE = 512
ALLOWED_MB = 1500.0
REQUIRED_SHARE = 0.85
INTERVAL, SAMPLE = 5.0, 5
"""Seconds of the job between two looks at the bare rate, and planes of such a look."""


Clock = Callable[[], float]


class Bare:
    """Encoder and decoder alone, on views that are drawn before."""

    def __init__(self, specialist: Specialist, source: Path, clock: Clock) -> None:
        self._specialist, self._images, self._clock = specialist, open_planes(source), clock
        self.planes, self.seconds = 0, 0.0

    def run(self, first: int, count: int, *, counted: bool = True) -> None:
        """Encode and decode some planes, and add up how long that takes."""
        specialist, backbone = self._specialist, self._specialist.backbone
        for number in range(first, first + count):
            pixels = specialist.normalization.apply(self._images.read(number))
            plane = prepare_plane(pixels, specialist.scaling, backbone.input_size)
            groups = [
                plane.offsets[i : i + TILES_AT_ONCE]
                for i in range(0, len(plane.offsets), TILES_AT_ONCE)
            ]
            inputs = [plane.inputs(backbone, group) for group in groups]
            with torch.inference_mode():
                started = self._clock()
                for tensors, group in zip(inputs, groups, strict=True):
                    tiles = specialist.method.encode(backbone, tensors)
                    list(tile_logits(specialist.method, backbone, tiles, group))
                if counted:
                    self.planes += 1
                    self.seconds += self._clock() - started


def child(options: argparse.Namespace) -> None:
    """Segment, and print what was measured as JSON."""
    prompt_file, source, output = options.child
    specialist = Specialist.load(prompt_file, device=options.device)
    clock = time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
        clock = time.process_time
    Bare(specialist, source, clock).run(0, 5)
    idle, since = resident_mb(), clock()
    print("begun", flush=True)
    *_, step = segment_volume(specialist, source, output)
    seconds = clock() - since
    written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    read = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    print(
        json.dumps({
            "planes": step.done,
            "voxels": step.done * SIDE * SIDE,
            "seconds": seconds,
            "idle_mb": idle,
            "above_idle_mb": peak_mb() - idle,
            "bytes_read_per_voxel": read / (step.done * SIDE * SIDE),
            "bytes_written_per_voxel": written / (step.done * SIDE * SIDE),
        })
    )  # fmt: skip


def watched(words: list[str], bare: Bare, *, stopped_counts: bool) -> dict[str, float]:
    """Run a job and take the bare rate at intervals, while all of the job's threads are stopped.

    So both see the same machine, whatever else it does, and none works while the other is timed.

    Parameters
    ----------
    words
        The command; it prints a line when it begins, and JSON when it ends.
    bare
        In this process.
    stopped_counts
        Whether the job's clock goes on while it is stopped.
    """
    job = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    cast(IO[str], job.stdout).readline()
    stopped, first = 0.0, 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            job.wait(INTERVAL)
            break
        since = time.perf_counter()
        job.send_signal(signal.SIGSTOP)
        bare.run(first, 1, counted=False)
        bare.run(first, SAMPLE)
        first += SAMPLE
        job.send_signal(signal.SIGCONT)
        stopped += time.perf_counter() - since
    output, errors = job.communicate()
    if job.returncode:
        sys.exit(f"Segmenting failed:\n{errors}")
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    seconds = found.pop("seconds") - (stopped if stopped_counts else 0.0)
    rate, bare_rate = found["planes"] / seconds, bare.planes / bare.seconds
    return found | {
        "planes_per_second": rate,
        "bare_planes_per_second": bare_rate,
        "share_of_bare_rate": rate / bare_rate,
    }


def _scale(text: str) -> float | str:
    return text if text in ("auto", "fit") else float(text)


def main() -> None:
    """Measure, print, write JSON; fail where a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planes", type=int, default=2000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scale", type=_scale, default="fit", help="working scale (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="100 planes; writes no JSON")
    parser.add_argument(
        "--cpu-time", action="store_true",
        help="count the time of one processor and not the wall's, where others use the machine "
        "too: as if nothing overlapped",
    )  # fmt: skip
    parser.add_argument("--child", type=Path, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    count = 100 if options.quick else options.planes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompt = train_specialist(folder / "blobs", options.scale, steps=2)
        source = write_volume(folder / "in.zarr", count, SIDE)
        words = [sys.executable, "-m", "benchmarks.volumes", "--device", options.device]
        words += [*["--cpu-time"] * options.cpu_time, "--child"]
        if options.cpu_time:
            torch.set_num_threads(1)
        clock = time.thread_time if options.cpu_time else time.perf_counter
        bare = Bare(Specialist.load(prompt, device=options.device), source, clock)
        bare.run(0, 5, counted=False)
        words += [str(prompt), str(source), str(folder / "out.zarr")]
        found = watched(words, bare, stopped_counts=not options.cpu_time)
    for key, value in found.items():
        print(f"{key:<26}{value:12.3f}")
    setting = {"device": options.device, "threads": torch.get_num_threads(), "scale": options.scale}
    setting["clock"] = "processor" if options.cpu_time else "wall"
    if not options.quick:
        content = found | {"setting": setting, "circumstances": circumstances()}
        write_json(RESULTS / "volumes.json", content)
    good = found["above_idle_mb"] < ALLOWED_MB and found["share_of_bare_rate"] >= REQUIRED_SHARE
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
