"""What agreement along Z does to the Dice on ISBI 2012: ``python -m benchmarks.depth``.

One specialist learns from planes 0-15; the planes from 12 on are segmented by the job that users
run, with each of its options. A default may be chosen on planes 16-19 alone; planes 20-29 are the
test. Pixels are 4 nm and planes lie 50 nm apart, so a membrane is elsewhere a plane further on,
and planes along Y and X are stretched twelve times. These take a long time: so three axes are
compared on the middle quarter. Some five minutes on two idle cores; ``--quick`` (little training,
no three axes) one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.labels import read_labels
from napari_ptsam.metrics import dice
from napari_ptsam.omezarr import OmeZarr
from napari_ptsam.planes import Part, open_planes
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Settings, segment_volume

FIRST = 12
"""The first plane that is segmented: the neighbours of those that are scored."""

DEVELOPMENT = range(16, 20)
MIDDLE = slice(128, 384)
SIGMAS = (0.3, 0.5, 1.0, 2.0)


def compared(whole: Path, middle: Path | None) -> Iterator[tuple[str, Path, Settings]]:
    """What is compared, by the words of the command line: name, input and settings."""
    yield "(none)", whole, Settings()
    for sigma in SIGMAS:
        yield f"--z-smooth {sigma:g}", whole, Settings(z_smooth=sigma)
    if middle is not None:
        yield "(none), middle", middle, Settings()
        yield "--three-axes, middle", middle, Settings(three_axes=True)


def written(path: Path, stack: NDArray[Any], like: Part) -> Path:
    """Planes as an OME-Zarr image, with the pixel sizes of another."""
    part = Part(path.stem, len(stack), "Z", (len(stack),), like.scale)
    image = OmeZarr.create(path, part, stack.shape[1:], stack.dtype, labels=False)
    for number, plane in enumerate(stack):
        image.write(number, plane)
    return path


def scores(mask: Path, truth: NDArray[Any], planes: Sequence[int]) -> tuple[float, float]:
    """Mean and SD (n - 1) over planes of the Dice in percent."""
    found = open_planes(mask)
    side = found.shape_of(0)[0]
    wanted = truth if side == truth.shape[1] else truth[:, MIDDLE, MIDDLE]
    each = [100 * dice(found.read(i - FIRST) > 0, wanted[i - FIRST] > 0) for i in planes]
    return float(np.mean(each)), float(np.std(each, ddof=1))


def main() -> None:
    """Measure, print a table in Markdown, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="embedded", help="name or file (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder of the development data sets")
    parser.add_argument("--preset", default="quick", help="of the training (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="see that it works; writes no JSON")
    given = parser.parse_args()
    isbi = data.load("isbi2012", data.data_folder(given.data))
    specialist = Specialist.train(
        isbi.train_images, isbi.train_masks, planes=isbi.train_planes, backbone=given.backbone,
        preset=given.preset, steps=20 if given.quick else None, class_name=isbi.target,
    )  # fmt: skip
    # The options differ in what becomes of the logits, so the planes are encoded once.
    specialist.embeddings = Embeddings(limit=2 * 2**30)
    images, truth = open_planes(isbi.test_images), open_planes(isbi.test_masks)
    stack = np.stack([images.read(i) for i in range(FIRST, len(images))])
    wanted = np.stack([read_labels(truth, i) for i in range(FIRST, len(images))])
    found: dict[str, dict[str, float]] = {}
    setting = {"backbone": given.backbone, "preset": given.preset}
    print("| option | Dice, planes 16-19 | Dice, test |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        part, middle = images.parts[0], stack[:, MIDDLE, MIDDLE]
        whole = written(Path(folder) / "whole.zarr", stack, part)
        cut = None if given.quick else written(Path(folder) / "middle.zarr", middle, part)
        for name, source, settings in compared(whole, cut):
            output = Path(folder) / f"out{len(found)}.zarr"
            started = time.perf_counter()
            for _ in segment_volume(specialist, source, output, settings):
                pass
            seconds = time.perf_counter() - started
            development, _ = scores(output, wanted, DEVELOPMENT)
            test, spread = scores(output, wanted, isbi.test_planes or ())
            found[name] = {
                "development": development, "test": test, "test_sd": spread, "seconds": seconds
            }  # fmt: skip
            print(f"| `{name}` | {development:.2f} | {test:.2f} ± {spread:.2f} |", flush=True)
            if not given.quick:
                content = {"options": found, "setting": setting}
                write_json(RESULTS / "depth.json", content | {"circumstances": circumstances()})


if __name__ == "__main__":
    main()
