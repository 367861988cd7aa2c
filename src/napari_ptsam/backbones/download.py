"""Fetch a backbone's weights once."""

from __future__ import annotations

from pathlib import Path

from napari_ptsam.backbones.registry import BackboneSpec
from napari_ptsam.errors import BackboneError
from napari_ptsam.fetching import Patience, Progress, RemoteFile, cache_base, fetch_file


def cache_folder() -> Path:
    """Folder of downloaded backbones: in ``$NAPARI_PTSAM_CACHE`` or the user's cache."""
    return cache_base() / "backbones"


def local_file(spec: BackboneSpec, folder: Path | None = None) -> Path:
    """Where a backbone's file is, or will be once it is downloaded."""
    return spec.packaged_file or (folder or cache_folder()) / spec.file_name


def fetch(
    spec: BackboneSpec,
    progress: Progress | None = None,
    folder: Path | None = None,
    patience: Patience | None = None,
) -> Path:
    """Return a backbone's verified file; download it if it is not there, see `fetch_file`.

    Parameters
    ----------
    spec
        Entry of the registry.
    progress
        Called after each piece. It may raise to cancel; what is there stays
        for the next time.
    folder
        Where to keep the file; `cache_folder` by default.
    patience
        Timeouts and attempts.

    Returns
    -------
    Path
        The file, whose checksum is right.

    Raises
    ------
    DownloadError
        If the file cannot be had or is not the right one. The text says where
        to find it, where to put it by hand, and how to go on without it.
    """
    target = local_file(spec, folder)
    if spec.url is None or spec.checksum is None:
        if not target.is_file():
            raise BackboneError(
                f"The weights of '{spec.name}' are missing from this installation ({target}). "
                "Install napari-ptsam again."
            )
        return target
    file = RemoteFile(
        spec.name,
        spec.url,
        spec.checksum,
        spec.size_bytes,
        without="To go on without it, use the backbone that comes with this package: "
        "--backbone embedded needs no download.",
    )
    return fetch_file(file, target, progress, patience)
