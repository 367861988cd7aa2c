"""A job killed at random moments: ``python -m benchmarks.resume``.

The command is killed (SIGKILL) again and again and given again, until it has been killed 20 times
and ended; then its files are compared with those of a run that nobody disturbed. A job that ends
before that is compared too, and another one killed. Some eight minutes on two idle cores;
``--quick`` (three times) one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.jobs import same_images, train_specialist, write_volume
from benchmarks.record import RESULTS, circumstances, write_json

PROGRESS = 0.12
"""Share of the work that a run gets done before it is killed, at most."""


def command(prompt: Path, source: Path, output: Path) -> list[str]:
    """The command line of the job."""
    words = [sys.executable, "-m", "napari_ptsam", "segment", prompt, source, "-o", output]
    return [*map(str, words), "--probability", "--objects", "--z-smooth", "1", "--device", "cpu"]


def timed(words: list[str]) -> float:
    """Seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - started


def killed_after(words: list[str], seconds: float) -> bool:
    """Run a command; whether it had to be killed after so many seconds."""
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, said = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return True
    if child.returncode:
        sys.exit(f"The job failed after a kill:\n{said.decode()}")
    return False


def where(output: Path) -> str:
    """The step that a job was killed in, by its record of finished chunks."""
    record = output.with_name(f".{output.name}.job") / "done"
    steps = record.read_text().splitlines() if record.exists() else []
    if not steps:
        return "before the first chunk"
    last = steps[-1].rpartition(" ")[0]
    # These follow the step that is noted last.
    following = {"created": "planes", "computed": "numbering", "numbered": "putting in place"}
    return following.get(last, last)


def same_files(folder: Path, one: str, other: str) -> bool:
    """Whether two jobs have left the same."""
    tables = [(folder / f"{name}_objects.csv").read_bytes() for name in (one, other)]
    return tables[0] == tables[1] and all(
        same_images(folder / f"{one}{part}.zarr", folder / f"{other}{part}.zarr")
        for part in ("", "_probability", "_objects")
    )


def remove(folder: Path, name: str) -> None:
    """Remove what a job has left."""
    for path in folder.glob(f"{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def kills(folder: Path, words: list[str], moments: Iterator[float], wanted: int) -> Counter[str]:
    """Kill and give again; how often in which step. Fails if the files differ."""
    found: Counter[str] = Counter()
    while found.total() < wanted:
        moment = next(moments)
        if killed_after(words, moment):
            found[step := where(folder / "killed.zarr")] += 1
            print(f"{found.total():3} killed after {moment:5.1f} s: {step}", flush=True)
        elif found.total() < wanted:
            _compare(folder)
            remove(folder, "killed")
    timed(words)
    _compare(folder)
    return found


def _compare(folder: Path) -> None:
    if not same_files(folder, "whole", "killed"):
        sys.exit("The files differ from those of an undisturbed run.")


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
        prompt = train_specialist(folder / "blobs", "fit", steps=2)
        source = write_volume(folder / "in.zarr", planes, 256)
        whole = timed(command(prompt, source, folder / "whole.zarr"))
        words = command(prompt, source, folder / "killed.zarr")
        start = timed([*words, "--dry-run"])
        # Anywhere from the start of the program to well within its work.
        most = start + PROGRESS * (whole - start)
        steps = kills(folder, words, iter(lambda: rng.uniform(0, most), None), wanted)
    found = {
        "kills": steps.total(),
        "killed_in": dict(steps),
        "identical": True,
        "seconds_undisturbed": whole,
    }
    print(found)
    if not options.quick:
        write_json(RESULTS / "resume.json", found | {"circumstances": circumstances()})


if __name__ == "__main__":
    main()
