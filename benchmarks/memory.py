"""Peak memory of segmenting a long and a short stack: ``python -m benchmarks.memory``.

Each stack of 512x512 planes is segmented in a process of its own, whose largest
resident memory counts. A long stack may need no more than a short one, since
only one plane at a time is held.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.jobs import peak_mb
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.specialist import Specialist

SIDE = 512
ALLOWED_MB = 300.0


def write_stack(path: Path, planes: int) -> None:
    """A stack of noise, plane by plane, uint8."""
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, 255, (SIDE, SIDE), np.uint8) for _ in range(planes))
    tifffile.imwrite(
        path, drawn, shape=(planes, SIDE, SIDE), dtype=np.uint8, photometric="minisblack"
    )


def write_specialist(path: Path, backbone: str, scale: float | str) -> None:
    """A prompt file after a few steps: good for nothing, but as heavy as any."""
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8)
    Specialist.train(
        images, images > 127, backbone=backbone, preset="quick", steps=2, scale=scale
    ).save(path)


def segment_and_report(prompt_file: Path, stack: Path, backbone: str) -> None:
    """In a process of its own: segment, then print the peak of resident memory in MB."""
    specialist = Specialist.load(prompt_file, backbone=backbone)
    for _ in specialist.segment(stack, stack.with_name(f"{stack.stem}-masks.tif")):
        pass
    print(peak_mb())


def measure(folder: Path, planes: int, backbone: str) -> float:
    """Peak resident memory in MB of segmenting a stack of so many planes."""
    stack = folder / f"stack-{planes}.tif"
    write_stack(stack, planes)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--backbone", backbone,
         "--child", str(folder / "any.ptsam.safetensors"), str(stack)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"Segmenting {planes} planes failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure both, print, write JSON; fail when the difference is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="embedded", help="name or file (%(default)s)")
    parser.add_argument("--planes", type=int, nargs=2, default=(20, 500), metavar=("FEW", "MANY"))
    parser.add_argument("--scale", default="fit", help="'fit' or a factor (%(default)s)")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        segment_and_report(*options.child, options.backbone)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_specialist(folder / "any.ptsam.safetensors", options.backbone, options.scale)
        peaks = {str(n): measure(folder, n, options.backbone) for n in options.planes}
    few, many = peaks.values()
    print("\n".join(f"{n:>5} planes: {peak:7.0f} MB" for n, peak in peaks.items()))
    print(f"difference: {many - few:.0f} MB (at most {ALLOWED_MB:.0f} allowed)")
    setting = {"backbone": options.backbone, "scale": options.scale}
    content = {"peak_mb": peaks, "difference_mb": many - few, "setting": setting}
    write_json(RESULTS / "memory.json", content | {"circumstances": circumstances()})
    if many - few > ALLOWED_MB:
        sys.exit(1)


if __name__ == "__main__":
    main()
