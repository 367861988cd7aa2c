"""What agreement along Z does to the Dice on ISBI 2012: ``python -m benchmarks.depth``.

One specialist learns from planes 0-15; the whole stack is segmented by the job that users run,
with each of its options. A default may be chosen on planes 16-19 alone; planes 20-29 are the test.
Planes lie 50 nm apart and pixels 4 nm, so a membrane is elsewhere a plane further on. Some
fifteen minutes on two idle cores; ``--quick`` (little training, no three axes) one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.labels import read_labels
from napari_ptsam.metrics import dice
from napari_ptsam.planes import open_planes
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Settings, segment_volume

DEVELOPMENT = range(16, 20)
SIGMAS = (0.3, 0.5, 0.7, 1.0, 2.0)


def options(*, three_axes: bool) -> dict[str, Settings]:
    """What is compared, by the words of the command line."""
    found = {"(none)": Settings()}
    found |= {f"--z-smooth {sigma:g}": Settings(z_smooth=sigma) for sigma in SIGMAS}
    if three_axes:
        found["--three-axes"] = Settings(three_axes=True)
        found["--three-axes --z-smooth 0.5"] = Settings(three_axes=True, z_smooth=0.5)
    return found


def scores(mask: Path, truth: Path, planes: Sequence[int]) -> tuple[float, float]:
    """Mean and SD over planes of the Dice in percent."""
    found, wanted = open_planes(mask), open_planes(truth)
    each = [100 * dice(found.read(i) > 0, read_labels(wanted, i) > 0) for i in planes]
    return float(np.mean(each)), float(np.std(each))


def main() -> None:
    """Measure, print a table in Markdown, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="embedded", help="name or file (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder of the development data sets")
    parser.add_argument("--preset", default="standard", help="of the training (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="see that it works; writes no JSON")
    given = parser.parse_args()
    isbi = data.load("isbi2012", data.data_folder(given.data))
    specialist = Specialist.train(
        isbi.train_images, isbi.train_masks, planes=isbi.train_planes, backbone=given.backbone,
        preset="quick" if given.quick else given.preset, class_name=isbi.target,
    )  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    print("| option | Dice, planes 16-19 | Dice, test | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, settings) in enumerate(options(three_axes=not given.quick).items()):
            output = Path(folder) / f"{number}.zarr"
            started = time.perf_counter()
            for _ in segment_volume(specialist, isbi.test_images, output, settings):
                pass
            seconds = time.perf_counter() - started
            development, _ = scores(output, isbi.test_masks, DEVELOPMENT)
            test, spread = scores(output, isbi.test_masks, isbi.test_planes or ())
            found[name] = {
                "development": development, "test": test, "test_sd": spread, "seconds": seconds
            }  # fmt: skip
            print(f"| `{name}` | {development:.1f} | {test:.1f} ± {spread:.1f} | {seconds:.0f} |")
    if not given.quick:
        setting = {"backbone": given.backbone, "preset": given.preset}
        content = {"options": found, "setting": setting, "circumstances": circumstances()}
        write_json(RESULTS / "depth.json", content)


if __name__ == "__main__":
    main()
