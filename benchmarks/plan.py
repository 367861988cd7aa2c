"""What a petavoxel would take: ``python -m benchmarks.plan``.

Plain arithmetic on the figures that ``python -m benchmarks.volumes`` measured and left in
``results/volumes.json``: seconds for a tile, and bytes for a voxel. What cannot be measured here
(price, failures, requests) is an option, shown with the result. Prints a table in Markdown; takes
no time.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS
from napari_ptsam.tiling import OVERLAP, Scaling, tile_count

HOUR = 3600.0


def seconds_per_tile(measured: dict[str, Any], tile: int) -> float:
    """Of the whole job, by the tiles that the measured planes were cut into."""
    side = round(math.sqrt(measured["voxels"] / measured["planes"]))
    scale = measured["setting"]["scale"]
    scaling = Scaling(scale if isinstance(scale, float) else None)
    return 1 / measured["planes_per_second"] / tile_count((side, side), scaling, tile)


def plan(measured: dict[str, Any], options: argparse.Namespace) -> dict[str, float]:
    """The figures of a plan, from those of one machine."""
    voxels, tile = options.voxels, options.tile
    chunks = math.ceil(voxels / options.block**2)
    # Blocks compute the tiles that reach into them over again; see docs/volumes.md.
    wide = options.block * options.scale
    tiles = ((wide + tile) / (tile * (1 - OVERLAP))) ** 2
    halo = (1 + tile / wide) ** 2
    seconds = chunks * tiles * options.rotations * seconds_per_tile(measured, tile)
    hours = seconds / HOUR
    per_chunk = seconds / chunks
    lost = options.failures * per_chunk / HOUR / 2
    objects = options.chunks_per_object
    return {
        "voxels": voxels,
        "chunks (tasks)": chunks,
        "tiles per chunk": tiles,
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
    add("--rotations", type=int, default=1, help="positions of each tile (%(default)s)")
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
    assumed = ("workers", "block", "tile", "scale", "rotations")
    assumed += ("failures", "price", "chunks_per_object")
    print("\nAssumed: " + ", ".join(f"{n} {getattr(options, n):g}" for n in assumed) + ".")


if __name__ == "__main__":
    main()
