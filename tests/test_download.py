"""Downloads from a server on this machine that cuts, hangs, lies and refuses."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import xxhash

from napari_ptsam import fetching
from napari_ptsam.backbones.download import cache_folder, fetch
from napari_ptsam.backbones.registry import BackboneSpec, list_backbones
from napari_ptsam.errors import BackboneError, DownloadError
from napari_ptsam.fetching import Checksum, Patience, file_digest

CONTENT = bytes(range(256)) * 14_000  # 3.6 MB
IMPATIENT = Patience(timeout=20, attempts=4, pause=0.001)
NERVOUS = replace(IMPATIENT, timeout=0.4)


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    etag: str | None = '"version-1"'
    ranges: bool = True
    cut_after: int | None = None  # bytes sent in each answer before the connection is closed
    hang_after: int | None = None
    status: int | None = None
    failures: int = 0  # answers of 503 before it works
    length: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        told = self.server.behaviour
        told.requests.append(dict(self.headers))
        if told.failures > 0 or told.status is not None:
            told.failures -= 1
            return self.send_error(told.status or 503)
        start = self.start_of_range()
        if start >= len(told.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(told.content)}")
            self.end_headers()
            return None
        body = told.content[start:]
        self.send_response(206 if start else 200)
        if start:
            end = len(told.content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        if told.etag:
            self.send_header("ETag", told.etag)
        if told.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stop = told.cut_after if told.cut_after is not None else told.hang_after
        self.wfile.write(body[:stop])
        if told.hang_after is not None:
            self.server.released.wait(5)
        return None

    def start_of_range(self) -> int:
        told = self.server.behaviour
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        changed = self.headers.get("If-Range", told.etag) != told.etag
        return int(asked[1]) if asked and told.ranges and not changed else 0

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = Behaviour()
        self.released = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # connections that a test gave up


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def spec(server: Server) -> BackboneSpec:
    return BackboneSpec(
        name="vit_test",
        title="",
        description="",
        architecture="vit_b",
        licence="",
        file_name="vit_test.pth",
        url=f"http://127.0.0.1:{server.server_address[1]}/weights/vit_test.pth",
        checksum=Checksum("sha256", hashlib.sha256(CONTENT).hexdigest()),
        size_bytes=len(CONTENT),
    )


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_file_is_fetched_verified_and_reported(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(spec, lambda done, total: seen.append((done, total)), tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "vit_test.pth"
    assert path.read_bytes() == CONTENT
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert files_of(path.parent) == {"vit_test.pth", "vit_test.pth.verified"}


def test_a_file_that_is_there_is_not_fetched_again(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    fetch(spec, folder=tmp_path)
    fetch(spec, folder=tmp_path)
    assert len(server.behaviour.requests) == 1


def test_a_cut_connection_is_resumed_where_it_ended(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    server.behaviour.cut_after = 1_000_000
    path = fetch(spec, folder=tmp_path, patience=IMPATIENT)
    assert path.read_bytes() == CONTENT
    ranges = [headers.get("Range") for headers in server.behaviour.requests]
    assert ranges == [None, "bytes=1000000-", "bytes=2000000-", "bytes=3000000-"]
    assert server.behaviour.requests[1]["If-Range"] == '"version-1"'


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    server.behaviour.cut_after = 700_000
    with pytest.raises(DownloadError, match="1,400,000 bytes are kept"):
        fetch(spec, folder=tmp_path, patience=replace(IMPATIENT, attempts=2))
    server.behaviour.cut_after = None
    assert fetch(spec, folder=tmp_path).read_bytes() == CONTENT
    assert server.behaviour.requests[-1]["Range"] == "bytes=1400000-"


def test_a_cancelled_download_keeps_what_it_has(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    class CancelledError(Exception):
        pass

    def cancel(done: int, total: int | None) -> None:
        if done > 500_000:
            raise CancelledError

    with pytest.raises(CancelledError):
        fetch(spec, cancel, tmp_path)
    kept = (tmp_path / "vit_test.pth.part").stat().st_size
    assert kept > 0
    assert fetch(spec, folder=tmp_path).read_bytes() == CONTENT
    assert server.behaviour.requests[-1]["Range"] == f"bytes={kept}-"


@pytest.mark.parametrize("reason", ["ranges are ignored", "the file changed"])
def test_it_starts_over_where_it_cannot_resume(
    server: Server, spec: BackboneSpec, tmp_path: Path, reason: str
) -> None:
    (tmp_path / "vit_test.pth.part").write_bytes(b"old" * 1000)
    (tmp_path / "vit_test.pth.part.etag").write_text('"version-0"')
    server.behaviour.ranges = reason == "the file changed"
    assert fetch(spec, folder=tmp_path).read_bytes() == CONTENT
    assert len(server.behaviour.requests) == 1


def test_a_part_that_is_already_whole_is_taken(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    (tmp_path / "vit_test.pth.part").write_bytes(CONTENT)
    assert fetch(spec, folder=tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    (tmp_path / "vit_test.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(spec, folder=tmp_path, patience=IMPATIENT).read_bytes() == CONTENT


@pytest.mark.parametrize("known_size", [True, False])
def test_a_server_that_does_not_tell_the_size_is_fine(
    server: Server, spec: BackboneSpec, tmp_path: Path, known_size: bool
) -> None:
    server.behaviour.length, server.behaviour.etag = False, None
    spec = spec if known_size else replace(spec, size_bytes=None)
    assert fetch(spec, folder=tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_are_removed_and_both_checksums_named(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    wrong = b"x" + CONTENT[1:]
    server.behaviour.content = wrong
    with pytest.raises(DownloadError) as caught:
        fetch(spec, folder=tmp_path)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert hashlib.sha256(CONTENT).hexdigest() in str(caught.value)
    assert files_of(tmp_path) == set()


def test_a_file_of_another_size_is_refused_before_it_is_fetched(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=r"offers 3,584,000 bytes, but 'vit_test' has 5"):
        fetch(replace(spec, size_bytes=5), folder=tmp_path)
    assert files_of(tmp_path) == set()


def test_a_log_in_page_is_recognised(server: Server, spec: BackboneSpec, tmp_path: Path) -> None:
    server.behaviour.content = b"<!DOCTYPE html><html>Please log in</html>"
    with pytest.raises(DownloadError, match="It is a web page"):
        fetch(replace(spec, size_bytes=None), folder=tmp_path)


def test_a_missing_file_is_final(server: Server, spec: BackboneSpec, tmp_path: Path) -> None:
    server.behaviour.status = 404
    with pytest.raises(DownloadError, match="404"):
        fetch(spec, folder=tmp_path, patience=IMPATIENT)
    assert len(server.behaviour.requests) == 1


def test_a_busy_server_is_asked_again(server: Server, spec: BackboneSpec, tmp_path: Path) -> None:
    server.behaviour.failures = 1
    assert fetch(spec, folder=tmp_path, patience=IMPATIENT).read_bytes() == CONTENT
    assert len(server.behaviour.requests) == 2


def test_a_server_that_hangs_is_given_up(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    server.behaviour.hang_after = 0
    begin = time.monotonic()
    with pytest.raises(DownloadError, match="cut"):
        fetch(spec, folder=tmp_path, patience=NERVOUS)
    assert time.monotonic() - begin < 4, "it waited for the server's own end"


def test_what_arrived_before_a_server_hangs_is_kept(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    server.behaviour.hang_after = 1_500_000
    assert fetch(spec, folder=tmp_path, patience=NERVOUS).read_bytes() == CONTENT
    assert server.behaviour.requests[1]["Range"] == "bytes=1500000-"


def test_without_network_the_error_says_how_to_go_on(spec: BackboneSpec, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    spec = replace(spec, url=f"http://127.0.0.1:{port}/vit_test.pth")
    with pytest.raises(DownloadError) as caught:
        fetch(spec, folder=tmp_path, patience=IMPATIENT)
    for needed in (
        "vit_test",
        str(spec.url),
        str(spec.checksum),
        str(tmp_path / "vit_test.pth"),
        "--backbone embedded",
    ):
        assert needed in str(caught.value)


@pytest.mark.parametrize(
    "checksum",
    [
        Checksum("sha256", hashlib.sha256(CONTENT).hexdigest()),
        Checksum("md5", hashlib.md5(CONTENT).hexdigest()),
        Checksum("xxh128", xxhash.xxh128_hexdigest(CONTENT)),
    ],
    ids=str,
)
def test_a_file_put_there_by_hand_is_verified_and_used(
    server: Server, spec: BackboneSpec, tmp_path: Path, checksum: Checksum
) -> None:
    spec = replace(spec, checksum=checksum)
    target = tmp_path / spec.file_name
    target.write_bytes(CONTENT)
    assert fetch(spec, folder=tmp_path) == target
    assert server.behaviour.requests == []


def test_a_wrong_file_put_there_by_hand_is_refused_and_left(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    target = tmp_path / spec.file_name
    target.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match="Delete it"):
        fetch(spec, folder=tmp_path)
    assert target.is_file()


def test_a_file_that_changed_after_its_check_is_checked_again(
    server: Server, spec: BackboneSpec, tmp_path: Path
) -> None:
    target = fetch(spec, folder=tmp_path)
    target.write_bytes(CONTENT[::-1])
    os.utime(target, ns=(1, 1))
    with pytest.raises(DownloadError, match="damaged"):
        fetch(spec, folder=tmp_path)


def test_a_checked_file_is_not_read_again(
    server: Server, spec: BackboneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(spec, folder=tmp_path)
    monkeypatch.setattr(fetching, "file_digest", lambda *args: pytest.fail("read again"))
    fetch(spec, folder=tmp_path)


def test_a_full_disk_is_told_before_anything_is_written(
    server: Server, spec: BackboneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: nearly_full)
    with pytest.raises(DownloadError, match=r"disk is full.*NAPARI_PTSAM_CACHE"):
        fetch(spec, folder=tmp_path)
    assert files_of(tmp_path) == set()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_without_permission_is_explained(
    server: Server, spec: BackboneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DownloadError, match=r"cannot be used.*NAPARI_PTSAM_CACHE"):
        fetch(spec, folder=tmp_path / "elsewhere")


def fetch_in_child(spec: BackboneSpec, folder: Path) -> None:
    fetch(spec, folder=folder, patience=Patience(timeout=10))


def test_of_two_processes_one_downloads(server: Server, spec: BackboneSpec, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=fetch_in_child, args=(spec, tmp_path)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(200)
    assert [child.exitcode for child in children] == [0, 0]
    assert len(server.behaviour.requests) == 1
    assert (tmp_path / spec.file_name).read_bytes() == CONTENT


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_PTSAM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "backbones"
    monkeypatch.delenv("NAPARI_PTSAM_CACHE")
    assert "napari-ptsam" in str(cache_folder())


def test_a_packaged_backbone_needs_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = next(spec for spec in list_backbones() if spec.url is None)
    monkeypatch.setattr(fetching, "urlopen", lambda *args, **kwargs: pytest.fail("went online"))
    gone = replace(embedded, file_name="not-there.safetensors")
    with pytest.raises(BackboneError, match="Install napari-ptsam again"):
        fetch(gone)


def test_digests_are_those_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert file_digest(path, "sha256") == hashlib.sha256(CONTENT).hexdigest()
    assert file_digest(path, "xxh128") == xxhash.xxh128_hexdigest(CONTENT)
