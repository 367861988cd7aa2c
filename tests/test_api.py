"""The package as a library: light to import, free of Qt, all names there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import napari_ptsam

QT_SIDE = ("napari", "qtpy", "magicgui", "superqt", "PyQt5", "PyQt6", "PySide2", "PySide6")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_importing_the_package_loads_neither_torch_nor_numpy() -> None:
    result = run_python(
        "import sys, napari_ptsam\n"
        "print([name for name in ('torch', 'numpy', 'scipy', 'skimage') if name in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("name", napari_ptsam.__all__)
def test_every_public_name_can_be_loaded(name: str) -> None:
    value = getattr(napari_ptsam, name)
    assert value is not None
    assert name in dir(napari_ptsam)


def test_lazy_names_are_the_same_objects_as_in_their_modules() -> None:
    from napari_ptsam.errors import InputError
    from napari_ptsam.planes import open_planes

    assert napari_ptsam.open_planes is open_planes
    assert napari_ptsam.InputError is InputError


def test_a_misspelt_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="Specialst"):
        napari_ptsam.Specialst  # noqa: B018


def test_all_modules_import_where_napari_and_qt_are_missing() -> None:
    result = run_python(
        "import importlib, pkgutil, sys\n"
        f"sys.modules.update(dict.fromkeys({QT_SIDE}))\n"
        "import napari_ptsam\n"
        "names = [m.name for m in pkgutil.walk_packages(napari_ptsam.__path__, 'napari_ptsam.')]\n"
        "names.remove('napari_ptsam.__main__')\n"
        "names = [name for name in names if '_widgets.' not in name]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print(len(names))"
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10
