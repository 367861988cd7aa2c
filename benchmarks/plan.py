"""What a petavoxel would take: ``python -m benchmarks.plan``.

Plain arithmetic on the figures per chunk that ``python -m benchmarks.volumes`` measured and left in
``results/volumes.json``. What cannot be measured here (price, failures, requests) is an option,
shown with the result. Prints a table in Markdown; takes no time.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from benchmarks.record import RESULTS

HOUR = 3600.0


def plan(measured: dict[str, float], options: argparse.Namespace) -> dict[str, float]:
    """The figures of a plan, from those of one machine."""
    voxels = options.voxels
    rate = measured["planes_per_second"] * measured["voxels"] / measured["planes"]
    block = options.block**2
    chunks = math.ceil(voxels / block)
    # Blocks compute the tiles that reach into them over again; see docs/volumes.md.
    halo = (1 + options.tile / (options.block * options.scale)) ** 2
    seconds = voxels / rate * halo
    hours = seconds / HOUR
    per_chunk = seconds / chunks
    lost = options.failures * per_chunk / HOUR / 2
    objects = options.chunks_per_object
    return {
        "voxels": voxels,
        "chunks (tasks)": chunks,
        "seconds per chunk": per_chunk,
        "bytes read (TB)": voxels * measured["bytes_read_per_voxel"] * halo / 1e12,
        "bytes written (TB)": voxels * measured["bytes_written_per_voxel"] / 1e12,
        "GET requests (million)": voxels / 1024**2 / objects * halo / 1e6,
        "PUT requests (million)": voxels / 1024**2 / objects * 4 / 3 / 1e6,
        "device hours": hours,
        "days on all workers": hours / options.workers / 24,
        "chunks lost to failures (share)": lost,
        "device hours with failures": hours * (1 + lost),
        "cost": hours * (1 + lost) * options.price,
    }


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--measured", type=Path, default=RESULTS / "volumes.json")
    add("--voxels", type=float, default=1e15)
    add("--workers", type=int, default=1000)
    add("--block", type=int, default=4096, help="side of a chunk in pixels (%(default)s)")
    add("--tile", type=int, default=256, help="the model's input (%(default)s)")
    add("--scale", type=float, default=1.0, help="working scale (%(default)s)")
    add("--failures", type=float, default=0.01, help="of a worker in an hour (%(default)s)")
    add("--price", type=float, default=1.0, help="of a device's hour (%(default)s)")
    add("--chunks-per-object", type=float, default=1.0, help="of Zarr in one file (%(default)s)")
    options = parser.parse_args()
    content = json.loads(options.measured.read_text(encoding="utf-8"))
    machine = content["circumstances"]["machine"]
    device, date = content["setting"]["device"], content["circumstances"]["date"]
    print(f"Measured on {machine['processor']}, {machine['cores']} cores, {device}, {date}.\n")
    print("| figure | value |\n|---|---|")
    for name, value in plan(content, options).items():
        print(f"| {name} | {value:,.4g} |")
    assumed = ("workers", "block", "tile", "scale", "failures", "price", "chunks_per_object")
    print("\nAssumed: " + ", ".join(f"{n} {getattr(options, n):g}" for n in assumed) + ".")


if __name__ == "__main__":
    main()
