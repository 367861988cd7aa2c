"""A large image in blocks: memory and seams: ``python -m benchmarks.seams``.

Memory: a 20,000 x 20,000 uint8 tiled TIFF, in a process of its own. Seams: a part of it is
segmented as it is and without its first rows and columns, which shifts all tiles; the two masks
are compared where both are, and apart near the borders of tiles. Some five minutes on two idle
cores; ``--quick`` (2,000 x 2,000) one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.jobs import blobs, peak_mb, resident_mb, train_specialist
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.planes import open_planes
from napari_ptsam.specialist import Specialist
from napari_ptsam.tiling import TOKEN, tile_offsets
from napari_ptsam.views import scaled_size
from napari_ptsam.volumes import Settings, segment_volume
from napari_ptsam.volumes.blocks import Block, BlockPredictor, LargePlane

ALLOWED_MB = 1500.0
ALLOWED_SHARE = 0.005
TILE = 512
NEAR = 16
"""Pixels from the border of a tile."""


def write_slide(path: Path, side: int) -> None:
    """A tiled image of blobs, tile by tile."""
    base = (blobs(TILE) * 255).astype(np.uint8)

    def tiles() -> Iterator[NDArray[np.uint8]]:
        rows = -(-side // TILE)
        for row in range(rows):
            for column in range(rows):
                # Turned, so that no two neighbours are alike.
                yield np.ascontiguousarray(np.rot90(base, row + column))

    tifffile.imwrite(
        path, tiles(), shape=(side, side), dtype=np.uint8, tile=(TILE, TILE), compression="zlib",
        photometric="minisblack",
    )  # fmt: skip


def child(prompt_file: Path, source: Path, output: Path) -> None:
    """Segment the whole image, and print what was measured as JSON."""
    specialist = Specialist.load(prompt_file, device="cpu")
    idle, started = resident_mb(), time.perf_counter()
    for _ in segment_volume(specialist, source, output, Settings(block=options_block(source))):
        pass
    seconds = time.perf_counter() - started
    print(json.dumps({"idle_mb": idle, "above_idle_mb": peak_mb() - idle, "seconds": seconds}))


def options_block(source: Path) -> int | None:
    """Blocks also where a quick run's image would do without."""
    return 1024 if max(open_planes(source).shape_of(0)) < 4096 else None


def seams(prompt_file: Path, source: Path, side: int) -> dict[str, float]:
    """Share of pixels that another tiling decides otherwise, near borders of tiles and anywhere."""
    specialist = Specialist.load(prompt_file, device="cpu")
    image = open_planes(source).read_window(0, slice(0, side), slice(0, side))
    size, scaling = specialist.backbone.input_size, specialist.scaling
    # Whole tokens of the encoder, so that both see the same samples of the image, in other tiles.
    shift = round(round(size * 0.4 / TOKEN) * TOKEN / scaling.scale_for(image.shape, size))
    # Both parts with the grey values of one.
    fixed = specialist.normalization.measured(open_planes(image), 0)
    masks = []
    for part in (image, image[shift:, shift:]):
        plane = LargePlane(open_planes(part), 0, fixed, scaling, size)
        predictor = BlockPredictor(specialist.method, specialist.backbone)
        shape = (int(part.shape[0]), int(part.shape[1]))
        mask = np.zeros(shape, bool)
        for block in Block.all_of(shape, 1024):
            mask[block.slices] = predictor.predict(plane, block) >= specialist.threshold
        masks.append(mask)
    scale = scaling.scale_for(image.shape, size)
    borders = np.zeros(image.shape, bool)
    for row, column in tile_offsets(scaled_size(image.shape, scale), size):
        for start, axis in ((row, 0), (column, 1)):
            for edge in (start, start + size):
                first = max(int(edge / scale) - NEAR, 0)
                place = [slice(None), slice(None)]
                place[axis] = slice(first, max(int(edge / scale) + NEAR, 0))
                borders[tuple(place)] = True
    # The image's own edges are no borders between tiles, and the shifted one's lie elsewhere.
    inner = (slice(shift + size, -NEAR), slice(shift + size, -NEAR))
    other = masks[0] != np.pad(masks[1], ((shift, 0), (shift, 0)))
    return {
        "share_anywhere": float(other[inner].mean()),
        "share_near_borders": float(other[inner][borders[inner]].mean()),
        "object_share": float(masks[0].mean()),
    }


def main() -> None:
    """Measure, print, write JSON; fail where a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--scale", type=float, default=0.25, help="working scale (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="2,000 pixels; writes no JSON")
    parser.add_argument("--child", type=Path, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    side = 2000 if options.quick else options.side
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompt, source = train_specialist(folder / "blobs", options.scale, 20), folder / "slide.tif"
        write_slide(source, side)
        words = [sys.executable, "-m", "benchmarks.seams", "--child", str(prompt), str(source)]
        done = subprocess.run(
            [*words, str(folder / "out.zarr")], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"Segmenting failed:\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1]) | {"side": side, "scale": options.scale}
        found |= seams(prompt, source, min(side, round(1500 / options.scale)))
    for key, value in found.items():
        print(f"{key:<26}{value:12.4f}")
    if not options.quick:
        write_json(RESULTS / "seams.json", found | {"circumstances": circumstances()})
    good = found["above_idle_mb"] < ALLOWED_MB and found["share_near_borders"] < ALLOWED_SHARE
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
