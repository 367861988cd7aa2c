"""Embeddings on disk: found by content, shared between processes, limited in size.

Nothing here needs torch, so that the cache can be looked at and cleared at once.
"""

from napari_ptsam.cache.disk import DiskCache, Share
from napari_ptsam.cache.entry import Kept
from napari_ptsam.cache.sizes import parse_size, size_text

__all__ = ["DiskCache", "Kept", "Share", "parse_size", "size_text"]
