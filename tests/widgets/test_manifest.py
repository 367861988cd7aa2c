"""What napari learns of the plugin at its start, and what that costs."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_ptsam import sample_data
from napari_ptsam._widgets.writer import write_labels
from napari_ptsam.errors import DownloadError, InputError
from napari_ptsam.planes import open_planes

ROOT = Path(__file__).parents[2]

COST = """
import json, sys, time
import napari, napari.layers, qtpy.QtWidgets, superqt.utils
start = time.perf_counter()
import napari_ptsam._widgets.commands
import napari_ptsam._widgets.reader
seconds = time.perf_counter() - start
from importlib import import_module
for name in ("writer", "samples", "dock", "train", "segment", "specialists"):
    import_module(f"napari_ptsam._widgets.{name}")
print(json.dumps({"seconds": seconds, "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def manifest() -> Any:
    from npe2 import PluginManifest

    return PluginManifest.from_file(ROOT / "napari.yaml")


def test_the_manifest_is_valid_and_every_command_exists(manifest: Any) -> None:
    manifest.validate_imports()
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_the_commands_are_where_users_look_for_them(manifest: Any) -> None:
    titles = {command.id: command.title for command in manifest.contributions.commands}
    shown = {widget.display_name for widget in manifest.contributions.widgets}
    assert {
        "Click to segment",
        "Train specialist",
        "Segment (batch)",
        "Export prompt file",
        "Load specialist",
    } <= shown
    menus = {
        menu: {titles[item.command] for item in items}
        for menu, items in manifest.contributions.menus.items()
    }
    assert {"Train specialist", "Segment (batch)"} <= menus["napari/layers/segment"]
    assert "Click to segment" in menus["napari/layers/annotate"]
    assert {"Export prompt file", "Load specialist"} <= menus["napari/file/io_utilities"]


def test_napari_takes_contributions_in_these_menus(manifest: Any) -> None:
    from napari._app_model.constants._menus import is_menu_contributable

    assert all(is_menu_contributable(menu) for menu in manifest.contributions.menus)


def test_prompt_files_and_labels_are_ours_and_other_safetensors_are_not(manifest: Any) -> None:
    (reader,) = manifest.contributions.readers
    assert reader.filename_patterns == ["*.ptsam.safetensors"]
    (writer,) = manifest.contributions.writers
    assert writer.layer_types == ["labels"]
    assert {".ome.tif", ".zarr"} <= set(writer.filename_extensions)


def test_what_napari_imports_of_the_manifest_is_light_and_annotating_needs_no_torch() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    costs = []
    for _ in range(3):  # the first writes bytecode, and other programs disturb
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", COST],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        costs.append(json.loads(done.stdout.splitlines()[-1]))
        if costs[-1]["seconds"] < 0.2:
            break
    assert not any(cost["torch"] for cost in costs)
    assert min(cost["seconds"] for cost in costs) < 0.2


@pytest.fixture
def labels(windowless: ViewerModel) -> Any:
    data = np.zeros((2, 3, 16, 20), np.int64)
    data[1, 2, 3:6, 4:9] = 300
    return windowless.add_labels(
        data,
        name="cells",
        scale=(5, 2, 0.5, 0.25),
        units=("s", "um", "um", "um"),
        axis_labels=("t", "z", "y", "x"),
    )


@pytest.mark.parametrize("name", ["out.ome.tif", "out.zarr", "out.ome.zarr"])
def test_written_labels_keep_values_scale_and_axes(labels: Any, tmp_path: Path, name: str) -> None:
    data, meta, _ = labels.as_layer_data_tuple()
    assert write_labels(str(tmp_path / name), data, meta) == [str(tmp_path / name)]
    planes = open_planes(tmp_path / name)
    (part,) = planes.parts
    assert (part.axes, part.shape) == ("TZ", (2, 3))
    assert {axis: part.scale[axis] for axis in "ZYX"} == {
        "Z": (2.0, "µm"),
        "Y": (0.5, "µm"),
        "X": (0.25, "µm"),
    }
    for index in range(6):
        assert (planes.read_labels(index) == data.reshape(6, 16, 20)[index]).all()
    assert planes.read(0).dtype == np.uint16


def test_napari_saves_labels_through_the_writer(labels: Any, tmp_path: Path) -> None:
    data, meta, _ = labels.as_layer_data_tuple()
    lazy = da.from_array(data, chunks=(1, 1, 16, 20))
    write_labels(str(tmp_path / "lazy.ome.tif"), lazy, meta)
    assert (tifffile.imread(tmp_path / "lazy.ome.tif") == data).all()
    write_labels(str(tmp_path / "lazy.zarr"), lazy, meta)
    assert (zarr.open_group(tmp_path / "lazy.zarr")["0"][:] == data).all()


def test_a_plane_that_cannot_be_read_leaves_no_half_file(labels: Any, tmp_path: Path) -> None:
    def block(block_info: Any = None) -> Any:
        if block_info[None]["chunk-location"][0] == 3:
            raise OSError(5, "Input/output error")
        return np.ones((1, 16, 20), np.uint8)

    broken = da.map_blocks(block, chunks=((1,) * 5, (16,), (20,)), dtype=np.uint8)
    with pytest.raises(InputError):
        write_labels(str(tmp_path / "x.ome.tif"), broken, {"name": "x"})
    assert list(tmp_path.iterdir()) == []


def test_labels_beyond_all_types_are_refused_in_words(tmp_path: Path) -> None:
    huge = np.full((4, 4), 2**40, np.int64)
    with pytest.raises(InputError, match="Number them anew"):
        write_labels(str(tmp_path / "x.tif"), huge, {"name": "x"})


@pytest.fixture
def served(tmp_path: Path) -> str:
    return (tmp_path / "served.tif").as_uri()


def test_the_sample_from_the_network_is_checked_and_kept(
    tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture: NDArray[np.uint8] = np.arange(64, dtype=np.uint8).reshape(8, 8)
    tifffile.imwrite(tmp_path / "served.tif", picture)
    with pytest.raises(DownloadError, match="checksum"):
        sample_data.mitosis(served, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    checksum = sample_data._sha256((tmp_path / "served.tif").read_bytes())
    monkeypatch.setattr(sample_data, "MITOSIS_SHA256", checksum)
    ((first, _, _),) = sample_data.mitosis(served, tmp_path / "cache")
    (tmp_path / "served.tif").unlink()
    ((again, _, _),) = sample_data.mitosis(served, tmp_path / "cache")
    assert (first == picture).all()
    assert (again == picture).all()


def test_without_a_network_the_sample_says_so(tmp_path: Path, served: str) -> None:
    with pytest.raises(DownloadError, match="other samples need no network"):
        sample_data.mitosis(served, tmp_path / "cache")


def test_the_coloured_sample_comes_with_a_mask_of_its_size() -> None:
    (image, settings, _), (mask, _, kind) = sample_data.stained_tissue()
    assert settings["rgb"]
    assert kind == "labels"
    assert image.shape[:2] == mask.shape
    assert 0.05 < mask.mean() < 0.95
