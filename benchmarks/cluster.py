"""The same job on a Dask cluster of this machine: ``python -m benchmarks.cluster``.

Overhead: two workers of one thread each against one process on two cores. Failures: four workers,
of which two are killed in the middle; the files must be those of the one process, and no chunk may
be computed more than twice. Some eight minutes on two idle cores; ``--quick`` some two.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from benchmarks.jobs import same_images, train_specialist, write_volume
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Access, segment_volume
from napari_ptsam.volumes import cluster as clusters
from napari_ptsam.volumes.cluster import Cluster, connected, run_chunk

LOG = "computed.log"


def counted_chunk(folder: str, step: str, number: int) -> int:
    """A chunk of a job, noted in a log of the job when it begins."""
    with (Path(folder).parent / LOG).open("a") as log:
        log.write(f"{step} {number}\n")
    return run_chunk(folder, step, number)


def seconds_of(
    prompt: Path, source: Path, output: Path, cluster: Cluster | None = None, kills: int = 0
) -> float:
    """Run a job; workers are killed one by one after a quarter and a half of the chunks."""
    specialist = Specialist.load(prompt, device="cpu")
    access = Access(source=str(source), device="cpu")
    started = time.perf_counter()
    runner = None if cluster is None else cluster.run
    work = segment_volume(specialist, source, output, access=access, runner=runner)
    killed: list[int] = []
    with closing(work):
        for step in work:
            if cluster is not None and len(killed) < min(kills, 4 * step.done // step.total):
                alive = [p for p in cluster.client.run(os.getpid).values() if p not in killed]
                killed.append(alive[0])
                os.kill(alive[0], signal.SIGKILL)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, write JSON; fail if the files differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planes", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="40 planes; writes no JSON")
    options = parser.parse_args()
    planes = 40 if options.quick else options.planes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompt = train_specialist(folder / "blobs", "fit", steps=2)
        source = write_volume(folder / "in.zarr", planes, 512)
        alone = seconds_of(prompt, source, folder / "alone.zarr")
        with connected("local:2") as cluster:
            # The first job pays for the workers' imports, which a cluster has behind it.
            seconds_of(
                prompt, write_volume(folder / "warm.zarr", 4, 512), folder / "w.zarr", cluster
            )
            together = seconds_of(prompt, source, folder / "two.zarr", cluster)
        clusters.run_chunk = counted_chunk
        with connected("local:4") as cluster:
            seconds_of(prompt, source, folder / "killed.zarr", cluster, kills=2)
        times = Counter((folder / LOG).read_text().splitlines())
        same = [same_images(folder / "alone.zarr", folder / f"{n}.zarr") for n in ("two", "killed")]
    found = {
        "planes": planes,
        "one_process_seconds": alone,
        "two_workers_seconds": together,
        "overhead_percent": 100 * (together / alone - 1),
        "identical_with_two_workers": same[0],
        "identical_with_two_of_four_killed": same[1],
        "most_computations_of_a_chunk": max(times.values()),
    }
    print("\n".join(f"{key:<36}{value}" for key, value in found.items()))
    if not options.quick:
        write_json(RESULTS / "cluster.json", found | {"circumstances": circumstances()})
    sys.exit(0 if all(same) and max(times.values()) <= 2 else 1)


if __name__ == "__main__":
    main()
