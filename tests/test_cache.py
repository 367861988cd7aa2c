"""The cache on disk: atomic, limited, shared, forgiving."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from napari_ptsam.cache import DiskCache, Kept, parse_size, size_text
from napari_ptsam.cache import disk as disk_module
from napari_ptsam.cache.sizes import allowed_bytes
from napari_ptsam.errors import InputError

IDENTITY = "f" * 64


def embedding(seed: int = 0) -> Kept:
    rng = np.random.default_rng(seed)
    shapes = ((16, 16, 16), (8, 32, 32), (4, 64, 64))
    return Kept([rng.normal(size=s).astype(np.float16) for s in shapes], 0.25)


def key(number: int) -> str:
    return f"{number:032x}"


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.zarr.zip"))


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path, limit=10**9, writes=True)


def fill(cache: DiskCache, numbers: range) -> None:
    for number in numbers:
        assert cache.put(IDENTITY, "tiny", key(number), embedding(number))


def test_what_was_put_is_got_bit_for_bit_also_by_another_process(
    cache: DiskCache, tmp_path: Path
) -> None:
    kept = embedding()
    cache.put(IDENTITY, "tiny", key(1), kept)
    found = DiskCache(tmp_path).get(IDENTITY, key(1))
    assert found is not None
    assert found.seconds == kept.seconds
    for a, b in zip(found.levels, kept.levels, strict=True):
        assert a.dtype == np.float16
        assert a.shape == b.shape
        assert np.array_equal(a, b)
    assert cache.get(IDENTITY, key(2)) is None
    assert cache.get("0" * 64, key(1)) is None


def test_any_reader_of_zarr_opens_a_file(cache: DiskCache, tmp_path: Path) -> None:
    import zarr
    from zarr.storage import ZipStore

    cache.put(IDENTITY, "tiny", key(1), embedding())
    (path,) = files(tmp_path)
    with ZipStore(path, mode="r") as store:
        array = zarr.open_array(store, mode="r")
        assert array.dtype == np.float16
        assert array.attrs["shapes"] == [[16, 16, 16], [8, 32, 32], [4, 64, 64]]


def test_one_that_does_not_write_keeps_nothing(tmp_path: Path) -> None:
    assert not DiskCache(tmp_path / "new").put(IDENTITY, "tiny", key(1), embedding())
    assert not DiskCache(tmp_path / "new", 0, writes=True).put(IDENTITY, "t", key(1), embedding())
    assert files(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_taken_away_and_another_takes_its_place(
    cache: DiskCache, tmp_path: Path, damage: str
) -> None:
    fill(cache, range(2))
    path = files(tmp_path)[0]
    content = path.read_bytes()
    if damage == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    else:
        other = files(tmp_path)[1].read_bytes()
        path.write_bytes({"cut": content[:-100], "empty": b"", "other": other}[damage])
    assert cache.get(IDENTITY, key(0)) is None
    assert not path.exists()
    fill(cache, range(1))
    assert cache.get(IDENTITY, key(0)) is not None


def test_verifying_finds_and_removes_what_is_damaged(cache: DiskCache, tmp_path: Path) -> None:
    fill(cache, range(4))
    files(tmp_path)[2].write_bytes(b"nothing of the kind")
    assert list(cache.verify()).count(False) == 1
    assert list(cache.verify()) == [True] * 3


def test_clearing_takes_one_backbone_or_all(cache: DiskCache) -> None:
    fill(cache, range(3))
    cache.put("a" * 64, "other", key(9), embedding())
    assert [(s.backbone, s.embeddings) for s in cache.shares()] == [("other", 1), ("tiny", 3)]
    assert cache.clear("nobody") == []
    assert [s.embeddings for s in cache.clear("tiny")] == [3]
    assert [s.backbone for s in cache.shares()] == ["other"]
    assert [s.backbone for s in cache.clear("aaaa")] == ["other"]
    fill(cache, range(1))
    assert len(cache.clear()) == 1
    assert cache.in_use() == 0


def one_size(tmp_path: Path) -> int:
    cache = DiskCache(tmp_path / "measure", limit=10**9, writes=True)
    fill(cache, range(1))
    return cache.in_use()


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    limit = 10 * one_size(tmp_path)
    cache = DiskCache(tmp_path / "cache", limit=limit, writes=True)
    fill(cache, range(9))
    for age, path in enumerate(reversed(files(cache.folder))):
        old = time.time() - 1000 - age
        os.utime(path, (old, old))
    assert cache.get(IDENTITY, key(0)) is not None  # the oldest, used now
    cache.new_run()
    fill(cache, range(20, 23))
    assert cache.in_use() <= limit
    assert cache.get(IDENTITY, key(0)) is not None
    assert cache.get(IDENTITY, key(1)) is None
    assert all(cache.get(IDENTITY, key(n)) for n in range(20, 23))


def test_a_stack_larger_than_the_limit_is_kept_in_part(tmp_path: Path) -> None:
    limit = 5 * one_size(tmp_path)
    cache = DiskCache(tmp_path / "cache", limit=limit, writes=True)
    with pytest.warns(UserWarning, match="reached its limit"):
        kept = [cache.put(IDENTITY, "tiny", key(n), embedding(n)) for n in range(12)]
    assert kept == [True] * sum(kept) + [False] * (12 - sum(kept))
    assert 4 <= sum(kept) <= 5
    assert cache.in_use() <= limit
    assert cache.get(IDENTITY, key(0)) is not None


def test_the_limit_holds_for_two_writers_together(tmp_path: Path) -> None:
    limit = 60 * one_size(tmp_path)
    first, second = (DiskCache(tmp_path / "cache", limit, writes=True) for _ in range(2))
    for number in range(40):
        first.put(IDENTITY, "tiny", key(2 * number), embedding(number))
        second.put(IDENTITY, "tiny", key(2 * number + 1), embedding(number))
        first.new_run()
        second.new_run()
    # Each looks at what the other has written after every 2 % of the limit.
    assert first.in_use() <= limit * 1.05


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_module, "write_entry", refuse)


def test_a_full_disk_ends_the_keeping_with_one_warning(cache: DiskCache, full_disk: None) -> None:
    with pytest.warns(UserWarning, match="No space left") as caught:
        assert not any(cache.put(IDENTITY, "tiny", key(n), embedding()) for n in range(3))
    assert len(caught) == 1
    assert not cache.keeps()


def test_the_last_of_the_disk_is_left_to_others(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "free_bytes", lambda _: 10**8)
    with pytest.warns(UserWarning, match=r"less than 1\.0 GB"):
        assert not cache.put(IDENTITY, "tiny", key(1), embedding())


def test_a_folder_that_cannot_be_made_ends_the_keeping(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = DiskCache(tmp_path / "file" / "cache", limit=10**9, writes=True)
    with pytest.warns(UserWarning, match="not kept from here on"):
        assert not cache.put(IDENTITY, "tiny", key(1), embedding())
    assert cache.get(IDENTITY, key(1)) is None
    assert cache.shares() == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user without rights")
def test_a_read_only_folder_is_read(cache: DiskCache, tmp_path: Path) -> None:
    fill(cache, range(1))
    shelf = files(tmp_path)[0].parent
    shelf.chmod(0o500)
    try:
        assert cache.get(IDENTITY, key(0)) is not None
    finally:
        shelf.chmod(0o700)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from napari_ptsam.cache import DiskCache, Kept
cache = DiskCache(Path(sys.argv[1]), 10**9, writes=True)
levels = [np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float16)]
print("ready", flush=True)
number = 0
while True:
    cache.put("f" * 64, "tiny", f"{number % 8:032x}", Kept(levels, 0.1))
    number += 1
"""


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_a_killed_writer_leaves_no_damage(cache: DiskCache, tmp_path: Path) -> None:
    script = textwrap.dedent(WRITER)
    for pause in (0.02, 0.05, 0.1):
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(pause)
            writer.send_signal(signal.SIGKILL)
        assert all(cache.verify())
    fill(cache, range(8))
    assert len(files(tmp_path)) == 8


def test_what_killed_writers_left_is_swept_away_in_time(cache: DiskCache, tmp_path: Path) -> None:
    fill(cache, range(1))
    shelf = files(tmp_path)[0].parent
    young, old = shelf / ".a.part", shelf / ".b.part"
    for path in (young, old):
        path.write_bytes(b"unfinished")
    os.utime(old, (0, 0))
    DiskCache(tmp_path, limit=10**9, writes=True).put(IDENTITY, "tiny", key(2), embedding())
    assert young.exists()
    assert not old.exists()
    assert sum(s.embeddings for s in cache.shares()) == 2


def test_a_file_that_vanishes_while_it_is_asked_for_is_no_error(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, range(1))

    def gone(*_: object) -> Kept:
        raise FileNotFoundError

    monkeypatch.setattr(disk_module, "read_entry", gone)
    assert cache.get(IDENTITY, key(0)) is None
    assert list(cache.verify()) == []


@pytest.mark.parametrize(
    ("text", "nbytes"), [("0", 0), ("1500", 1500), ("50 GB", 50 * 10**9), ("1.5m", 1_500_000)]
)
def test_sizes_are_read(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "much", "-1", "5 PB", "5 G G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no size"):
        parse_size(text)


def test_sizes_are_told() -> None:
    assert [size_text(n) for n in (0, 999, 1500, 20 * 10**9)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "20.0 GB",
    ]


def test_the_limit_is_the_users_or_a_share_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import napari_ptsam.cache.sizes as sizes

    monkeypatch.setattr(sizes, "free_bytes", lambda _: 50 * 10**9)
    assert allowed_bytes(tmp_path, 0) == 5 * 10**9
    assert allowed_bytes(tmp_path, 5 * 10**9) == 5.5 * 10**9  # it does not shrink as it fills
    monkeypatch.setattr(sizes, "free_bytes", lambda _: 10**13)
    assert allowed_bytes(tmp_path, 0) == 20 * 10**9
    monkeypatch.setenv("NAPARI_PTSAM_CACHE_LIMIT", "3 GB")
    assert DiskCache(tmp_path).limit() == 3 * 10**9


def test_nothing_is_made_on_disk_by_looking(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache = DiskCache(tmp_path / "none")
        assert cache.get(IDENTITY, key(1)) is None
        assert (cache.shares(), cache.in_use(), cache.holds(IDENTITY)) == ([], 0, False)
    assert not (tmp_path / "none").exists()
