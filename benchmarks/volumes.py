"""Memory and speed of a job on a long stack: ``python -m benchmarks.volumes``.

A 2,000 x 512 x 512 uint16 OME-Zarr image is segmented by the embedded backbone in a process of
its own. Its peak of resident memory is compared with that before the job, when everything is
imported and loaded; its planes per second with those of encoder and decoder alone, on views that
are drawn before. By default a plane is one tile, which leaves the least time to read and write
it; with ``--scale 1`` it is nine. Some three minutes on two idle cores; ``--quick`` takes one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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
BETWEEN, SAMPLE = 50, 5
"""Planes of the job between two looks at the bare rate, and planes of such a look."""


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
    """Segment, and print what was measured as JSON.

    The bare rate is taken at intervals throughout the job, while that waits: so both see the
    same machine, whatever else it does.
    """
    prompt_file, source, output = options.child
    specialist = Specialist.load(prompt_file, device=options.device)
    # The processor's time for the job is that of all its threads.
    clock, own = time.perf_counter, time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
        clock, own = time.process_time, time.thread_time
    bare = Bare(specialist, source, own)
    bare.run(0, 5, counted=False)
    idle, spent, since = resident_mb(), 0.0, clock()
    for step in segment_volume(specialist, source, output):
        if step.done % BETWEEN == 0:
            spent += clock() - since
            bare.run(step.done - SAMPLE, SAMPLE)
            since = clock()
    spent += clock() - since
    planes = step.done
    rate, bare_rate = planes / spent, bare.planes / bare.seconds
    written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    read = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    print(
        json.dumps({
            "planes": planes,
            "voxels": planes * SIDE * SIDE,
            "idle_mb": idle,
            "above_idle_mb": peak_mb() - idle,
            "planes_per_second": rate,
            "bare_planes_per_second": bare_rate,
            "share_of_bare_rate": rate / bare_rate,
            "bytes_read_per_voxel": read / (planes * SIDE * SIDE),
            "bytes_written_per_voxel": written / (planes * SIDE * SIDE),
        })
    )  # fmt: skip


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
        done = subprocess.run(
            [*words, str(prompt), str(source), str(folder / "out.zarr")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"Segmenting failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
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
