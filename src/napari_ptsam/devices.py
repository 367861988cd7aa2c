"""Where to compute, and what to say when its memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

from napari_ptsam.errors import InputError, OutOfMemoryError


def choose_device(name: str) -> torch.device:
    """The device behind ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_mps()}
    if name == "auto":
        return torch.device(next(n for n in ("cuda", "mps", "cpu") if available[n]))
    base = name.split(":", 1)[0]
    if not available.get(base):
        usable = ", ".join(n for n, there in available.items() if there)
        raise InputError(
            f"The device '{name}' is not available on this machine; use 'auto' or one of: {usable}."
        )
    return torch.device(name)


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())


def half_precision(device: torch.device) -> torch.dtype | None:
    """The 16-bit type that the device computes faster in than float32, None if it does not."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        # Without these instructions bfloat16 is emulated, and slower than float32.
        return torch.bfloat16 if "avx512_bf16" in _cpu_flags() else None
    return None


def _cpu_flags() -> set[str]:
    # Older releases of torch cannot tell.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return {name for name, there in capabilities.items() if there is True}


def one_core() -> AbstractContextManager[Any]:
    """Let this thread compute with one core from now on; others keep what they have.

    Where several threads of a program compute, the helpers that each of them has wait for each
    other, and small networks take twice as long as with none.

    Returns
    -------
    AbstractContextManager
        Its end gives the thread its cores back.
    """
    torch.get_num_threads()  # or torch would set its own number at the first operation
    limited: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="openmp")
    return limited


@cache
def _libraries() -> ThreadpoolController:
    """Those that are loaded, torch's among them; looking for them takes some milliseconds."""
    return ThreadpoolController()


@contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """Translate the device's out-of-memory errors into the project's own.

    Raises
    ------
    OutOfMemoryError
        With what to change.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(_memory_text(device)) from error
    except RuntimeError as error:
        # The CPU's allocator has no exception of its own.
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise OutOfMemoryError(_memory_text(device)) from error
        raise


def _memory_text(device: torch.device) -> str:
    return (
        f"The memory of '{device}' is full. Close other programs that use it, choose a smaller "
        "backbone or working scale, train without encoder prompts, or use the device 'cpu'."
    )
