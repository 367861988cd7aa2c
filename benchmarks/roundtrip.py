"""Axes, scale and units through a job and back: ``python -m benchmarks.roundtrip``.

A movie in depth (TZYX), a stack of several channels (CZYX), a colour slide (YXS) and a stack with
tall voxels (ZYX) are segmented to OME-Zarr 0.5 and 0.4 and to OME-TIFF, which are read back by
zarr, tifffile, napari and the format's own models (``pip install ome-zarr-models``). A minute.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from benchmarks.jobs import planes_of, train_specialist
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.planes import open_planes
from napari_ptsam.specialist import Specialist
from napari_ptsam.volumes import Access, Settings, segment_volume

SIZES = {"T": 3, "C": 2, "Z": 4, "Y": 96, "X": 128, "S": 3}
UNITS = {"T": ("TimeIncrement", 2.5, "s"), "Z": ("PhysicalSizeZ", 0.5, "µm"),
         "Y": ("PhysicalSizeY", 0.1, "µm"), "X": ("PhysicalSizeX", 0.1, "µm")}  # fmt: skip
KINDS = {"movie": "TZYX", "channels": "CZYX", "slide": "YXS", "tall voxels": "ZYX"}


def write_source(path: Path, axes: str) -> Path:
    """An OME-TIFF with these axes, and sizes of pixels in units."""
    shape = [SIZES[axis] for axis in axes]
    grey = np.stack(list(planes_of(1, 128)))[0, :96]
    if axes.endswith("S"):
        data = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2)
    else:
        data = np.broadcast_to(grey, shape).copy()
    metadata: dict[str, Any] = {"axes": axes}
    for axis in axes:
        if axis in UNITS:
            name, size, unit = UNITS[axis]
            metadata |= {name: size, f"{name}Unit": unit}
    colour = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(path, data, photometric=colour, metadata=metadata)
    return path


def checks(output: Path, expected: dict[str, Any], version: str) -> dict[str, bool]:
    """What each reader finds."""
    part = open_planes(output).parts[0]
    found = {
        "napari-ptsam": part.axes + "YX" == expected["axes"] and part.scale == expected["scale"]
    }
    shape = tuple(SIZES[axis] for axis in expected["axes"])
    if output.suffix == ".zarr":
        group = zarr.open_group(str(output), mode="r")
        ome = group.attrs.get("ome", group.attrs)
        axes = [axis["name"] for axis in ome["multiscales"][0]["axes"]]
        found["zarr"] = group["0"].shape == shape and "".join(axes).upper() == expected["axes"]
        try:
            import ome_zarr_models

            found["ome-zarr-models"] = (
                ome_zarr_models.open_ome_zarr(group).ome_zarr_version == version
            )
        except ImportError:
            print("ome-zarr-models is not installed, so the format's own models were not asked")
    else:
        with tifffile.TiffFile(output) as file:
            series = file.series[0]
            found["tifffile"] = series.axes == expected["axes"] and series.shape == shape
    try:
        from napari.components import ViewerModel

        pixels = group["0"] if output.suffix == ".zarr" else tifffile.imread(output)
        steps = [expected["scale"][axis][0] for axis in expected["axes"]]
        layer = ViewerModel().add_labels(pixels, scale=steps)
        # Between the middles of the first and the last pixel.
        size = layer.extent.world[1] - layer.extent.world[0]
        found["napari"] = bool(np.allclose(size, np.multiply(np.subtract(shape, 1), steps)))
    except ImportError:
        print("napari is not installed, so it was not asked")
    return found


def main() -> None:
    """Check, print, write JSON; fail if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="writes no JSON")
    options = parser.parse_args()
    found: dict[str, dict[str, bool]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        specialist = Specialist.load(
            train_specialist(folder / "blobs", "fit", steps=2), device="cpu"
        )
        for kind, axes in KINDS.items():
            source = write_source(folder / f"{kind}.ome.tif", axes)
            kept = "".join(axis for axis in axes if axis not in "CS")
            scale = {axis: UNITS[axis][1:] for axis in kept}
            access = Access(channel=1 if "C" in axes else None)
            for form in ("0.5", "0.4", "OME-TIFF"):
                output = folder / f"{kind} {form}{'.ome.tif' if form == 'OME-TIFF' else '.zarr'}"
                settings = Settings() if form == "OME-TIFF" else Settings(version=form)
                for _ in segment_volume(specialist, source, output, settings, access=access):
                    pass
                found[f"{kind}, {form}"] = checks(output, {"axes": kept, "scale": scale}, form)
    for case, answers in found.items():
        print(
            f"{case:<24}"
            + ", ".join(f"{who} {'ok' if ok else 'LOST'}" for who, ok in answers.items())
        )
    if not options.quick:
        write_json(RESULTS / "roundtrip.json", {"found": found, "circumstances": circumstances()})
    sys.exit(0 if all(all(answers.values()) for answers in found.values()) else 1)


if __name__ == "__main__":
    main()
