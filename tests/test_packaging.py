"""What users install: one manifest everywhere, honest requirements, working sample data."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import napari_ptsam
from napari_ptsam.sample_data import procedural_stack

ROOT = Path(__file__).parents[1]

DISCOVER = """
import json, site, sys
installed, checkout = sys.argv[1:]
sys.path[:] = [p for p in sys.path if p != checkout]
before = list(sys.path)
site.addsitedir(installed)
sys.path[:] = [p for p in sys.path if p not in before] + before
from npe2 import PluginManifest
import napari_ptsam
manifest = PluginManifest.from_distribution("napari-ptsam")
print(json.dumps({
    "file": napari_ptsam.__file__,
    "version": manifest.package_metadata.version,
    "commands": [c.python_name for c in manifest.contributions.commands],
}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="builds with hatchling, an extra of [dev]")
    place = tmp_path_factory.mktemp("dist")
    run("-m", "hatchling", "build", "-d", place, cwd=ROOT)
    return place


def unpacked(wheel: Path, place: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def need_npe2() -> None:
    """Skip without npe2; it is never imported here, because it warns of itself."""
    if importlib.util.find_spec("npe2") is None:
        pytest.skip("npe2 is an extra of [dev]")


def check_discovery(installed: Path) -> dict[str, str]:
    need_npe2()
    found: dict[str, str] = json.loads(run("-c", DISCOVER, installed, ROOT / "src", cwd=installed))
    assert found["version"] == napari_ptsam.__version__
    assert "napari_ptsam.sample_data:procedural_stack" in found["commands"]
    return found


def test_manifest_is_found_in_an_installed_wheel(built: Path, tmp_path: Path) -> None:
    installed = unpacked(next(built.glob("*.whl")), tmp_path)
    assert Path(check_discovery(installed)["file"]).is_relative_to(installed)


def test_manifest_is_found_in_a_wheel_made_from_the_sdist(built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert (source / "napari.yaml").read_bytes() == (ROOT / "napari.yaml").read_bytes()
    run("-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=source)
    installed = unpacked(next((tmp_path / "dist").glob("*.whl")), tmp_path / "installed")
    assert Path(check_discovery(installed)["file"]).is_relative_to(installed)


def test_manifest_is_found_in_an_editable_install(built: Path, tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
    run("-c", build, tmp_path / "dist", cwd=ROOT)
    installed = unpacked(next((tmp_path / "dist").glob("*.whl")), tmp_path / "installed")
    assert Path(check_discovery(installed)["file"]).is_relative_to(ROOT / "src")


def test_manifest_is_valid_and_the_same_at_the_top_and_in_the_package() -> None:
    need_npe2()
    assert "valid" in run("-m", "npe2", "validate", "napari.yaml", cwd=ROOT)
    inside = ROOT / "src/napari_ptsam/napari.yaml"
    assert (ROOT / "napari.yaml").read_bytes() == inside.read_bytes()


def test_wheel_carries_type_marker_licence_and_all_weights(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert "napari_ptsam/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for path in (ROOT / "src").rglob("*.safetensors"):
        assert path.relative_to(ROOT / "src").as_posix() in names


def test_users_get_neither_a_pinned_torch_nor_torchvision_nor_qt(built: Path) -> None:
    wheel = zipfile.ZipFile(next(built.glob("*.whl")))
    text = wheel.read(next(n for n in wheel.namelist() if n.endswith("METADATA"))).decode()
    required = [
        line.removeprefix("Requires-Dist: ")
        for line in text.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    names = {re.split(r"[^\w-]", line)[0].lower() for line in required}
    assert "torch" in names
    assert not any("==" in line or "<" in line for line in required)
    assert names.isdisjoint({"torchvision", "napari", "qtpy", "pyqt6", "magicgui", "superqt"})


def test_installed_version_is_the_one_in_the_package() -> None:
    try:
        installed = metadata.version("napari-ptsam")
    except metadata.PackageNotFoundError:
        pytest.skip("run from the source tree without an installation")
    assert installed == napari_ptsam.__version__


def test_sample_data_is_a_stack_with_sixteen_annotated_planes() -> None:
    (image, _, image_kind), (labels, _, labels_kind) = procedural_stack()
    assert (image_kind, labels_kind) == ("image", "labels")
    assert image.shape == labels.shape == (24, 192, 192)
    painted = [bool(plane.any()) for plane in labels]
    assert painted == [True] * 16 + [False] * 8
    inside, outside = image[:16][labels[:16] > 0], image[:16][labels[:16] == 0]
    assert np.median(inside) > np.median(outside) + 60
    assert np.array_equal(image, procedural_stack()[0][0])
