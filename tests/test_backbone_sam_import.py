"""SAM's networks load without torchvision, and leave the real package alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A stand-in for torchvision, so that the real package's own import can be tried.
TORCHVISION = {
    "torchvision/__init__.py": "",
    "torchvision/ops/__init__.py": "",
    "torchvision/ops/boxes.py": "def batched_nms(*a): ...\ndef box_area(*a): ...\n",
    "torchvision/transforms/__init__.py": "",
    "torchvision/transforms/functional.py": "def resize(*a): ...\ndef to_pil_image(*a): ...\n",
}


@pytest.fixture
def with_torchvision(tmp_path: Path) -> str:
    for name, text in TORCHVISION.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path)


def run_python(code: str, *path: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_torchvision_is_never_imported() -> None:
    run_python(
        "import sys; sys.modules['torchvision'] = None\n"
        "from napari_ptsam.backbones import _sam\n"
        "assert _sam.Block.__name__ == 'Block'\n"
        "taken = [m for m in sys.modules if m.split('.')[0] == 'segment_anything']\n"
        "assert not taken, taken"
    )


REAL_PACKAGE_WORKS = (
    "import segment_anything\n"
    "import segment_anything.modeling.image_encoder\n"
    "assert segment_anything.SamPredictor.__module__ == 'segment_anything.predictor'\n"
    "assert segment_anything.modeling.image_encoder.Block\n"
    "assert segment_anything.sam_model_registry['vit_b']\n"
    "from segment_anything.utils.transforms import ResizeLongestSide\n"
)
OURS_WORKS = "from napari_ptsam.backbones._sam import Sam, build_sam\nassert build_sam and Sam\n"


@pytest.mark.parametrize(
    "code", [OURS_WORKS + REAL_PACKAGE_WORKS, REAL_PACKAGE_WORKS + OURS_WORKS + REAL_PACKAGE_WORKS]
)
def test_the_real_package_imports_whole_before_or_after(code: str, with_torchvision: str) -> None:
    run_python(code, with_torchvision)


def test_a_hollow_package_registered_by_someone_else_is_no_obstacle() -> None:
    run_python(
        "import importlib.util, sys, types\n"
        "hollow = types.ModuleType('segment_anything')\n"
        "spec = importlib.util.find_spec('segment_anything')\n"
        "hollow.__path__ = spec.submodule_search_locations\n"
        "sys.modules['segment_anything'] = hollow\n" + OURS_WORKS
    )


def test_a_missing_package_is_explained() -> None:
    run_python(
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name: None\n"
        "from napari_ptsam.errors import BackboneError\n"
        "try:\n"
        "    import napari_ptsam.backbones._sam\n"
        "except BackboneError as error:\n"
        "    assert 'pip install segment-anything' in str(error)\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )
