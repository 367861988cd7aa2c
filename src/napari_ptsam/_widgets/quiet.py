"""Keeps the window answering while other threads work.

Python lets one thread run at a time. What holds all of them for long is the search for garbage
among everything that napari and torch have loaded (a third of a second), and the loading of
torch's libraries; what adds up is the time that a thread may keep the others waiting.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

TURN = 0.001
"""Seconds that a thread may keep another waiting while work runs in the background."""

LOADED_AHEAD = (
    "pandas",
    "skimage.color.colorconv",
    "pyqtgraph",
    "napari_ptsam.specialist",
    "napari_ptsam.estimates",
)
"""Slow to import, and needed sooner or later: by napari's first Labels layer, curve, engine."""


class Quiet:
    """Short turns and no long search for garbage, from `begin` to `end`."""

    def __init__(self) -> None:
        self._turn: float | None = None

    def begin(self) -> None:
        """What is there now is not searched for garbage."""
        if self._turn is None:
            self._turn = sys.getswitchinterval()
            sys.setswitchinterval(min(TURN, self._turn))
        gc.freeze()

    def thaw(self, *_: object) -> None:
        """Search all again: something large may have been let go of, such as a layer."""
        gc.unfreeze()

    def end(self) -> None:
        """As it was before."""
        if self._turn is not None:
            sys.setswitchinterval(self._turn)
            self._turn = None
        gc.unfreeze()


def load_ahead() -> None:
    """Import what trainings need, so that the window does not wait for it. Not for its thread."""
    _open_libraries()
    with _collector_off():
        for name in LOADED_AHEAD:
            import_module(name)
        _load_optimiser()


def _load_optimiser() -> None:
    """The first step of the first optimiser imports as much again as torch itself."""
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimiser.step()


def _open_libraries() -> None:
    """Let the system load torch's libraries: Python would hold all threads meanwhile.

    In torch's own order. Where this does not work, `import torch` does it.
    """
    spec = importlib.util.find_spec("torch")
    if sys.platform != "linux" or "torch" in sys.modules or spec is None or spec.origin is None:
        return
    # A function of the system, called without Python's lock; ctypes.CDLL would keep it.
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    folder = Path(spec.origin).parent / "lib"
    for name, mode in (
        ("libtorch_global_deps.so", os.RTLD_GLOBAL),
        ("libtorch_python.so", os.RTLD_LOCAL),
    ):
        if not dlopen(os.fsencode(folder / name), os.RTLD_NOW | mode):
            return


@contextmanager
def _collector_off() -> Iterator[None]:
    """Import without searching for garbage, over and over, among ever more objects."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Counts all objects as old ones, without looking at any.
        gc.freeze()
        gc.unfreeze()
        if was_on:
            gc.enable()
