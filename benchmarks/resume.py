"""A job killed at random moments: ``python -m benchmarks.resume``.

The command is killed (SIGKILL) again and again and given again, until it ends; then its files are
compared with those of a run that nobody disturbed. Some six minutes on two idle cores;
``--quick`` (three times) one.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.jobs import same_images, train_specialist, write_volume
from benchmarks.record import RESULTS, circumstances, write_json


def command(prompt: Path, source: Path, output: Path) -> list[str]:
    """The command line of the job."""
    words = [sys.executable, "-m", "napari_ptsam", "segment", prompt, source, "-o", output]
    return [*map(str, words), "--probability", "--objects", "--z-smooth", "1", "--device", "cpu"]


def main() -> None:
    """Kill, compare, print, write JSON; fail if the files differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--planes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="3 kills; writes no JSON")
    options = parser.parse_args()
    wanted, planes = (3, 40) if options.quick else (options.kills, options.planes)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompt = train_specialist(folder / "blobs", steps=2)
        source = write_volume(folder / "in.zarr", planes, 256)
        started = time.perf_counter()
        subprocess.run(command(prompt, source, folder / "whole.zarr"), check=True)
        whole, moments, ended = time.perf_counter() - started, [], False
        while len(moments) < wanted and not ended:
            # Anywhere from the start of the program to well within its work.
            patience = rng.uniform(0, 0.25 * whole + 5)
            child = subprocess.Popen(command(prompt, source, folder / "killed.zarr"))
            try:
                ended = child.wait(timeout=patience) == 0
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                moments.append(patience)
        subprocess.run(command(prompt, source, folder / "killed.zarr"), check=True)
        same = all(
            same_images(folder / f"whole{part}.zarr", folder / f"killed{part}.zarr")
            for part in ("", "_probability", "_objects")
        )
        tables = [(folder / f"{n}_objects.csv").read_bytes() for n in ("whole", "killed")]
    found = {
        "kills": len(moments),
        "seconds_before_each": [round(moment, 2) for moment in moments],
        "identical": same and tables[0] == tables[1],
        "seconds_undisturbed": whole,
    }
    print(found)
    if not options.quick:
        write_json(RESULTS / "resume.json", found | {"circumstances": circumstances()})
    sys.exit(0 if found["identical"] else 1)


if __name__ == "__main__":
    main()
