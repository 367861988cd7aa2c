"""Where the scripts of this folder write their figures, and what they add to them."""

from __future__ import annotations

from pathlib import Path

from napari_ptsam.benchmark.record import circumstances, write_json

RESULTS = Path(__file__).parent / "results"

__all__ = ["RESULTS", "circumstances", "write_json"]
