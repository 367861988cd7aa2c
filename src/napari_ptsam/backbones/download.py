"""Fetch a backbone's weights once: resumed where it broke off, and verified."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import platformdirs
import xxhash
from filelock import FileLock

from napari_ptsam.backbones.registry import BackboneSpec, Checksum
from napari_ptsam.errors import BackboneError, DownloadError

CACHE_VARIABLE = "NAPARI_PTSAM_CACHE"
CHUNK_BYTES = 1 << 20
TEMPORARY_STATUS = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, if known."""


@dataclass(frozen=True)
class Patience:
    """How long a download keeps trying.

    Attributes
    ----------
    timeout
        Seconds without any data after which a connection counts as cut.
    attempts
        Failures in a row, with less than 1 MiB gained in between, before
        giving up. Two are enough while nothing was received at all.
    pause
        Seconds before the second attempt; doubled before each further one.
    """

    timeout: float = 30.0
    attempts: int = 6
    pause: float = 1.0


class _TransferCutError(Exception):
    """A connection that failed in a way that may pass."""


def cache_folder() -> Path:
    """Folder of downloaded backbones: ``$NAPARI_PTSAM_CACHE`` or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    base = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("napari-ptsam")
    return base / "backbones"


def local_file(spec: BackboneSpec, folder: Path | None = None) -> Path:
    """Where a backbone's file is, or will be once it is downloaded."""
    return spec.packaged_file or (folder or cache_folder()) / spec.file_name


def fetch(
    spec: BackboneSpec,
    progress: Progress | None = None,
    folder: Path | None = None,
    patience: Patience | None = None,
) -> Path:
    """Return a backbone's verified file; download it if it is not there.

    A download that broke off goes on where it ended, also in a later run. Of
    several processes one downloads and the others wait. A file that was put
    into the folder by hand is verified and used.

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
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(_beside(target, ".lock")):
                if not target.is_file():  # else another process did it in the meantime
                    return _download(spec, target, progress, patience or Patience())
        _verify_present(target, spec.checksum)
    except OSError as error:
        raise DownloadError(_disk_trouble(error, target)) from error
    return target


def _download(
    spec: BackboneSpec, target: Path, progress: Progress | None, patience: Patience
) -> Path:
    """Transfer into ``.part``, check, and only then give the file its name."""
    part = _beside(target, ".part")
    _transfer(spec, target, part, progress, patience)
    _beside(part, ".etag").unlink(missing_ok=True)
    checksum = cast(Checksum, spec.checksum)
    got, web_page = file_digest(part, checksum.algorithm), _is_web_page(part)
    if got != checksum.digest:
        size = part.stat().st_size
        part.unlink()
        hint = " It is a web page: does your network ask for a log-in?" if web_page else ""
        raise DownloadError(
            f"What {spec.url} sent is not '{spec.name}': expected {checksum}, got "
            f"{checksum.algorithm} {got} ({size:,} bytes). It was removed.{hint} Try again. "
            + _by_hand(spec, target)
        )
    part.replace(target)
    _remember_verified(target, checksum)
    return target


def _transfer(
    spec: BackboneSpec, target: Path, part: Path, progress: Progress | None, patience: Patience
) -> None:
    """Attempt after attempt until the whole file is there."""
    start = before = _size(part)
    failures = 0
    while True:
        try:
            return _attempt(spec, part, progress, patience.timeout)
        except _TransferCutError as interruption:
            now = _size(part)
            failures = 1 if now - before >= CHUNK_BYTES else failures + 1
            before = now
            if failures >= (patience.attempts if now != start else min(2, patience.attempts)):
                raise DownloadError(
                    f"'{spec.name}' could not be downloaded: {interruption}. {now:,} bytes are "
                    f"kept, and the next attempt goes on from there. {_by_hand(spec, target)}"
                ) from interruption
            time.sleep(patience.pause * 2 ** (failures - 1))
        except DownloadError as error:
            raise DownloadError(f"{error} {_by_hand(spec, target)}") from error


def _attempt(spec: BackboneSpec, part: Path, progress: Progress | None, timeout: float) -> None:
    """One connection: ask for what is missing, append it."""
    done, etag = _size(part), _beside(part, ".etag")
    headers = {"User-Agent": "napari-ptsam", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if etag.is_file():
            headers["If-Range"] = etag.read_text()
    response = _open(Request(cast(str, spec.url), headers=headers), part, timeout)
    if response is None:
        return
    with response:
        resumed = response.status == 206
        if not resumed:  # the file changed, or this server does not resume
            done = 0
        total = _total_bytes(response, done, part)
        if spec.size_bytes is not None and total not in (None, spec.size_bytes):
            raise DownloadError(
                f"{spec.url} offers {total:,} bytes, but '{spec.name}' has {spec.size_bytes:,}."
            )
        _require_space(part.parent, (total or 0) - done)
        strong = response.headers.get("ETag", "")
        if strong.startswith('"'):
            etag.write_text(strong)
        else:
            etag.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise _TransferCutError(f"the connection was cut after {done:,} of {total:,} bytes")


def _open(request: Request, part: Path, timeout: float) -> HTTPResponse | None:
    """The server's answer, or None when the part turns out to be the whole file."""
    try:
        return cast(HTTPResponse, urlopen(request, timeout=timeout))
    except HTTPError as error:
        with error:
            if error.code == 416:
                if error.headers.get("Content-Range") == f"bytes */{_size(part)}":
                    return None
                part.unlink()
                raise _TransferCutError("the part that was there did not fit") from error
            if error.code in TEMPORARY_STATUS:
                raise _TransferCutError(f"the server is busy ({error})") from error
            raise DownloadError(f"{request.full_url} answered: {error}.") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _TransferCutError(f"no connection to {request.host} ({reason})") from error


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)  # what has arrived, so that a cut loses none of it
    except (OSError, HTTPException) as error:
        raise _TransferCutError(f"the connection was cut ({error})") from error


def _total_bytes(response: HTTPResponse, done: int, part: Path) -> int | None:
    """Size of the whole file, from the headers."""
    if response.status == 206:
        span = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if span is None or int(span[1]) != done:
            part.unlink()
            raise _TransferCutError("the server sent another part than was asked for")
        if span[2] != "*":
            return int(span[2])
    length = response.headers.get("Content-Length", "")
    return done + int(length) if length.isdecimal() else None


def file_digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file; algorithms as in `Checksum`."""
    digest = (
        xxhash.xxh128() if algorithm == "xxh128" else hashlib.new(algorithm, usedforsecurity=False)
    )
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _verify_present(target: Path, checksum: Checksum) -> None:
    """Check a file once; after that its size and time of change vouch for it."""
    note = _beside(target, ".verified")
    if note.is_file() and note.read_text() == _verification(target, checksum):
        return
    got = file_digest(target, checksum.algorithm)
    if got != checksum.digest:
        raise DownloadError(
            f"{target} is damaged or another file: expected {checksum}, got "
            f"{checksum.algorithm} {got}. Delete it to have it downloaded, or put the right one "
            "in its place."
        )
    _remember_verified(target, checksum)


def _remember_verified(target: Path, checksum: Checksum) -> None:
    with suppress(OSError):  # a shared cache may be read-only: it is checked each time then
        _beside(target, ".verified").write_text(_verification(target, checksum))


def _verification(target: Path, checksum: Checksum) -> str:
    status = target.stat()
    return f"{checksum} {status.st_size} {status.st_mtime_ns}"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_web_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"<")


def _require_space(folder: Path, needed: int) -> None:
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes are needed")


def _by_hand(spec: BackboneSpec, target: Path) -> str:
    return (
        f"By hand: get {spec.url} ({spec.checksum}) on any machine and put it at {target}. "
        "To go on without it, use the backbone that comes with this package: --backbone embedded"
    )


def _disk_trouble(error: OSError, target: Path) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    trouble = "The disk is full" if full else "The folder cannot be used"
    return (
        f"{trouble}: {error.strerror or error}. Backbones are kept in {target.parent}; make room "
        f"or give yourself access there, or set {CACHE_VARIABLE} to another folder. "
        "--backbone embedded needs no download."
    )
