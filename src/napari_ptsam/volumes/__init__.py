"""Stacks, movies and images of any size: resumable, in blocks, in depth, on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ptsam._lazy import loader

if TYPE_CHECKING:
    from napari_ptsam.volumes.job import Access, Settings
    from napari_ptsam.volumes.run import ChunkDone, VolumeDone, segment_volume
else:
    __getattr__ = loader(
        __name__,
        {
            "Access": "job",
            "Settings": "job",
            "ChunkDone": "run",
            "VolumeDone": "run",
            "segment_volume": "run",
        },
    )

__all__ = ["Access", "ChunkDone", "Settings", "VolumeDone", "segment_volume"]
