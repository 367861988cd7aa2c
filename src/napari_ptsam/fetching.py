"""Files fetched once: resumed where the transfer broke off, and verified."""

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
from typing import Literal, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import platformdirs
import xxhash
from filelock import FileLock

from napari_ptsam.errors import DownloadError

CACHE_VARIABLE = "NAPARI_PTSAM_CACHE"
CHUNK_BYTES = 1 << 20
TEMPORARY_STATUS = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, if known."""


@dataclass(frozen=True)
class Checksum:
    """Digest of a file.

    Attributes
    ----------
    algorithm
        ``sha256``, ``md5`` or ``xxh128``: the one that the source publishes.
    digest
        Hexadecimal, lower case.
    """

    algorithm: Literal["sha256", "md5", "xxh128"]
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digest}"


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Attributes
    ----------
    name
        What messages call it.
    url
        Where it is.
    checksum
        What it must be; None where nobody has published one.
    size_bytes
        Of the file, where it is known.
    without
        How to go on without it, a sentence for messages.
    elsewhere
        How to keep it in another folder, a clause for messages.
    """

    name: str
    url: str
    checksum: Checksum | None = None
    size_bytes: int | None = None
    without: str = ""
    elsewhere: str = f"set {CACHE_VARIABLE} to another folder"


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


def cache_base() -> Path:
    """Folder of all that is downloaded: ``$NAPARI_PTSAM_CACHE`` or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("napari-ptsam")


def fetch_file(
    file: RemoteFile,
    target: Path,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Have a verified file in its place; download it if it is not there.

    A download that broke off goes on where it ended, also in a later run. Of
    several processes one downloads and the others wait. A file that was put
    there by hand is verified and used.

    Parameters
    ----------
    file
        What to fetch.
    target
        Where to keep it.
    progress
        Called after each piece. It may raise to cancel; what is there stays
        for the next time.
    patience
        Timeouts and attempts.

    Returns
    -------
    Path
        `target`, whose checksum is right where one is known.

    Raises
    ------
    DownloadError
        If the file cannot be had or is not the right one. The text says where
        to find it, where to put it by hand, and how to go on without it.
    """
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(_beside(target, ".lock")):
                if not target.is_file():  # else another process did it in the meantime
                    return _download(file, target, progress, patience or Patience())
        if file.checksum is not None:
            _verify_present(target, file.checksum)
    except OSError as error:
        raise DownloadError(_disk_trouble(error, file, target)) from error
    return target


def _download(
    file: RemoteFile, target: Path, progress: Progress | None, patience: Patience
) -> Path:
    """Transfer into ``.part``, check, and only then give the file its name."""
    part = _beside(target, ".part")
    _transfer(file, target, part, progress, patience)
    _beside(part, ".etag").unlink(missing_ok=True)
    got = _digest_refused(part, file)
    if got is not None:
        size, web_page = part.stat().st_size, _is_web_page(part)
        part.unlink()
        hint = " It is a web page: does your network ask for a log-in?" if web_page else ""
        wanted = f"expected {file.checksum}, got" if file.checksum else "got"
        raise DownloadError(
            f"What {file.url} sent is not '{file.name}': {wanted} {got} ({size:,} bytes). It was "
            f"removed.{hint} Try again. {_by_hand(file, target)}"
        )
    part.replace(target)
    if file.checksum is not None:
        _remember_verified(target, file.checksum)
    return target


def _digest_refused(part: Path, file: RemoteFile) -> Checksum | None:
    """The digest of what was received, if that cannot be the file; None if it can."""
    if file.checksum is None:
        # Nothing to compare with, but a log-in page would be taken for the file.
        return Checksum("sha256", file_digest(part, "sha256")) if _is_web_page(part) else None
    got = Checksum(file.checksum.algorithm, file_digest(part, file.checksum.algorithm))
    return None if got == file.checksum else got


def _transfer(
    file: RemoteFile, target: Path, part: Path, progress: Progress | None, patience: Patience
) -> None:
    """Attempt after attempt until the whole file is there."""
    start = before = _size(part)
    failures = 0
    while True:
        try:
            return _attempt(file, part, progress, patience.timeout)
        except _TransferCutError as interruption:
            now = _size(part)
            failures = 1 if now - before >= CHUNK_BYTES else failures + 1
            before = now
            if failures >= (patience.attempts if now != start else min(2, patience.attempts)):
                raise DownloadError(
                    f"'{file.name}' could not be downloaded: {interruption}. {now:,} bytes are "
                    f"kept, and the next attempt goes on from there. {_by_hand(file, target)}"
                ) from interruption
            time.sleep(patience.pause * 2 ** (failures - 1))
        except DownloadError as error:
            raise DownloadError(f"{error} {_by_hand(file, target)}") from error


def _attempt(file: RemoteFile, part: Path, progress: Progress | None, timeout: float) -> None:
    """One connection: ask for what is missing, append it."""
    done, etag = _size(part), _beside(part, ".etag")
    headers = {"User-Agent": "napari-ptsam", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if etag.is_file():
            headers["If-Range"] = etag.read_text()
    response = _open(Request(file.url, headers=headers), part, timeout)
    if response is None:
        return
    with response:
        resumed = response.status == 206
        if not resumed:  # the file changed, or this server does not resume
            done = 0
        total = _total_bytes(response, done, part)
        if file.size_bytes is not None and total not in (None, file.size_bytes):
            raise DownloadError(
                f"{file.url} offers {total:,} bytes, but '{file.name}' has {file.size_bytes:,}."
            )
        _require_space(part.parent, (total or 0) - done)
        strong = response.headers.get("ETag", "")
        if strong.startswith('"'):
            etag.write_text(strong)
        else:
            etag.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as output:
            while chunk := _read(response):
                output.write(chunk)
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


def _by_hand(file: RemoteFile, target: Path) -> str:
    checksum = f" ({file.checksum})" if file.checksum else ""
    return (
        f"By hand: get {file.url}{checksum} on any machine and put it at {target}. {file.without}"
    ).rstrip()


def _disk_trouble(error: OSError, file: RemoteFile, target: Path) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    trouble = "The disk is full" if full else "The folder cannot be used"
    return (
        f"{trouble}: {error.strerror or error}. '{file.name}' is kept in {target.parent}; make "
        f"room or give yourself access there, or {file.elsewhere}. {file.without}"
    ).rstrip()
