"""The most memory that a piece of work had in use."""

from __future__ import annotations

from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Starts to watch when it is made; `read` gives the peak since then.

    On a GPU the bytes that tensors had at most. Else the resident bytes of this process, of
    which Linux keeps the peak; other systems cannot tell for a part of a process's life.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._watched = False
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
            return
        try:
            _RESET.write_text("5")  # forgets the peak, see proc_pid_clear_refs(5)
            self._watched = True
        except OSError:
            pass

    def read(self, shared: int = 0) -> int | None:
        """Bytes; None where this system cannot tell.

        Parameters
        ----------
        shared
            Bytes of main memory that other work has a part in, and that do not count.
        """
        if self._cuda is not None:
            return int(torch.cuda.max_memory_allocated(self._cuda))
        if not self._watched:
            return None
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        peak = next((line for line in lines if line.startswith("VmHWM:")), None)
        return None if peak is None else int(peak.split()[1]) * 1024 - shared
