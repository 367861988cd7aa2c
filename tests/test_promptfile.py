"""Prompt files: what is kept, what is refused, and how little is read of bad ones."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_ptsam import _safetensors
from napari_ptsam.errors import PromptFileError
from napari_ptsam.promptfile import (
    FORMAT,
    PromptFile,
    PromptMetadata,
    prompt_path,
    read_prompt_file,
    read_prompt_metadata,
    write_prompt_file,
)

FIXTURES = Path(__file__).parent / "fixtures"
VERSION1 = FIXTURES / "version1.ptsam.safetensors"


@pytest.fixture(scope="module")
def example() -> PromptFile:
    return runpy.run_path(str(FIXTURES / "make_version1.py"))["version1"]()


def same(one: PromptFile, other: PromptFile) -> bool:
    return (
        one.metadata == other.metadata
        and one.tensors.keys() == other.tensors.keys()
        and all(np.array_equal(t, other.tensors[name]) for name, t in one.tensors.items())
    )


def raw(header: object, numbers: bytes = b"") -> bytes:
    """Container of any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def with_metadata(**changes: str) -> bytes:
    """Version 1 fixture with other metadata texts."""
    tensors = safetensors.numpy.load(VERSION1.read_bytes())
    length = int.from_bytes(VERSION1.read_bytes()[:8], "little")
    metadata = json.loads(VERSION1.read_bytes()[8 : 8 + length])["__metadata__"]
    return safetensors.numpy.save(tensors, metadata | changes)


def with_record(**changes: object) -> bytes:
    length = int.from_bytes(VERSION1.read_bytes()[:8], "little")
    record = json.loads(VERSION1.read_bytes()[8 : 8 + length])["__metadata__"]["record"]
    values = json.loads(record) | changes
    return with_metadata(record=json.dumps({k: v for k, v in values.items() if v is not None}))


def refusal(tmp_path: Path, content: bytes) -> str:
    """Message with which a file of these bytes is refused."""
    path = tmp_path / "bad.ptsam.safetensors"
    path.write_bytes(content)
    with pytest.raises(PromptFileError) as caught:
        read_prompt_file(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_version_1_is_still_read(example) -> None:
    digest = hashlib.sha256(VERSION1.read_bytes()).hexdigest()
    assert digest == "03d4ed843f6bd91d34dfb17cea06eb574a9c79e731a8a1cd667f109f94fe0b26"
    assert same(read_prompt_file(VERSION1), example)


def test_round_trip_is_exact_and_decoder_only_stays_under_16_kb(tmp_path, example) -> None:
    path = write_prompt_file(tmp_path / "a.ptsam.safetensors", example)
    assert same(read_prompt_file(path), example)
    assert example.trainable_parameters == 2048
    assert len(example.metadata.training["data"]) == 16
    assert path.stat().st_size < 16_000


def test_encoder_prompts_and_half_precision_round_trip(tmp_path, example) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "decoder.tokens": rng.standard_normal((8, 256)).astype(np.float32),
        "encoder.prompts": rng.standard_normal((12, 8, 768)).astype(np.float16),
        "scalar": np.array(3.0, np.float16),
    }
    prompts = PromptFile(tensors, example.metadata)
    found = read_prompt_file(write_prompt_file(tmp_path / "a", prompts))
    assert same(found, prompts)
    assert found.tensors["encoder.prompts"].dtype == np.float16
    assert found.trainable_parameters == 75_777


def test_the_safetensors_library_reads_our_file_and_we_read_its(tmp_path, example) -> None:
    path = write_prompt_file(tmp_path / "a", example)
    theirs = safetensors.numpy.load_file(path)
    assert np.array_equal(theirs["decoder.tokens"], example.tensors["decoder.tokens"])
    path.write_bytes(with_metadata())
    assert same(read_prompt_file(path), example)


def test_equal_content_gives_equal_bytes_whatever_the_order(tmp_path, example) -> None:
    tensors = {name: np.full(3, 1.0, np.float32) for name in "abc"}
    training = {"seed": 0, "steps": 4}
    one = PromptFile(tensors, replace(example.metadata, training=training))
    two = PromptFile(
        dict(reversed(tensors.items())),
        replace(example.metadata, training=dict(reversed(training.items()))),
    )
    first = write_prompt_file(tmp_path / "one", one).read_bytes()
    assert first == write_prompt_file(tmp_path / "two", two).read_bytes()


def test_numpy_values_tuples_and_paths_are_stored_plainly_and_nan_as_null(tmp_path, example):
    training = {
        "dice": np.float32(0.5),
        "folds": (np.int64(1), 2),
        "hashes": np.arange(2),
        "path": Path("a"),
        "bad": float("nan"),
    }
    prompts = PromptFile(example.tensors, replace(example.metadata, training=training))
    found = read_prompt_file(write_prompt_file(tmp_path / "a", prompts)).metadata.training
    assert found == {"dice": 0.5, "folds": [1, 2], "hashes": [0, 1], "path": "a", "bad": None}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("nuclei", "nuclei.ptsam.safetensors"),
        ("nuclei.ptsam", "nuclei.ptsam.safetensors"),
        ("nuclei.safetensors", "nuclei.ptsam.safetensors"),
        ("nuclei.v2", "nuclei.v2.ptsam.safetensors"),
        ("nuclei.ptsam.safetensors", "nuclei.ptsam.safetensors"),
    ],
)
def test_suffix_is_completed(tmp_path, example, given, stored) -> None:
    assert write_prompt_file(tmp_path / given, example) == tmp_path / stored
    assert [p.name for p in tmp_path.iterdir()] == [stored]


def test_a_folder_is_no_file_name(tmp_path) -> None:
    with pytest.raises(PromptFileError, match=r"is a folder.*nuclei\.ptsam\.safetensors"):
        prompt_path(tmp_path)


def test_missing_target_folder_is_explained(tmp_path, example) -> None:
    with pytest.raises(PromptFileError, match=r"cannot be written.*folder that exists"):
        write_prompt_file(tmp_path / "nowhere" / "a", example)


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, example, monkeypatch) -> None:
    path = write_prompt_file(tmp_path / "a", example)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = PromptFile({"t": np.ones(3, np.float32)}, example.metadata)
    with pytest.raises(PromptFileError, match="No space left"):
        write_prompt_file(path, other)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (np.ones(2), "float64"),
        (np.ones(2, np.int32), "int32"),
        (np.array([1, np.nan], np.float32), "NaN"),
        (np.ones((2, 0), np.float32), "impossible shape"),
    ],
)
def test_tensors_that_could_not_be_read_are_not_written(tmp_path, example, tensor, words) -> None:
    with pytest.raises(PromptFileError, match=words):
        write_prompt_file(tmp_path / "a", PromptFile({"t": tensor}, example.metadata))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 1.5},
        {"rotations": 3},
        {"threshold": True},
        {"class_name": "a\x1b[2J"},
        {"training": []},
    ],
)
def test_metadata_checks_itself(example, change) -> None:
    with pytest.raises(PromptFileError, match=next(iter(change))):
        replace(example.metadata, **change)


def test_values_that_json_has_not_are_refused_in_words(tmp_path, example) -> None:
    odd = PromptFile(example.tensors, replace(example.metadata, training={"x": {1, 2}}))
    with pytest.raises(PromptFileError, match="plain values"):
        write_prompt_file(tmp_path / "a", odd)


def test_info_holds_what_scripts_depend_on_and_is_json(example) -> None:
    info = json.loads(json.dumps(example.info_dict()))
    assert info["trainable_parameters"] == 2048
    assert info["backbone"] == "embedded"
    assert info["method"] == "prompts"
    assert info["format_version"] == 1
    assert info["tensors"] == {"decoder.tokens": [8, 256]}
    assert info["training"]["seed"] == 0


def test_metadata_is_read_without_the_numbers(tmp_path, example, monkeypatch) -> None:
    path = write_prompt_file(tmp_path / "a", example)
    monkeypatch.delattr(np, "frombuffer")
    assert read_prompt_metadata(path) == example.metadata
    for length in (0, 4, 100):
        path.write_bytes(VERSION1.read_bytes()[:length])
        with pytest.raises(PromptFileError):
            read_prompt_metadata(path)
    with pytest.raises(PromptFileError, match="no prompt file"):
        read_prompt_metadata(tmp_path)


def test_no_file_and_no_regular_file_are_refused_at_once(tmp_path) -> None:
    for path in (tmp_path / "none.ptsam.safetensors", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(PromptFileError, match=r"no prompt file|cannot be read"):
            read_prompt_file(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(PromptFileError, match="no prompt file"):
            read_prompt_file(tmp_path / "pipe")


def test_newer_version_asks_for_an_update(tmp_path) -> None:
    assert "newer version" in refusal(tmp_path, with_metadata(format_version="2"))
    assert "update napari-ptsam" in refusal(tmp_path, with_metadata(format_version="10"))


@pytest.mark.parametrize("version", ["", "0", "-1", "1.5", "one", "²", "9" * 5000])
def test_senseless_versions_are_refused(tmp_path, version) -> None:
    assert "format version" in refusal(tmp_path, with_metadata(format_version=version))


def test_safetensors_of_something_else_is_told_apart(tmp_path) -> None:
    plain = safetensors.numpy.save({"weight": np.ones(3, np.float32)}, {"format": "pt"})
    assert "another kind" in refusal(tmp_path, plain)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04" + b"\0" * 90, b"\x89PNG" * 9])
def test_other_files_are_refused_in_words(tmp_path, content) -> None:
    assert "safetensors" in refusal(tmp_path, content)


def test_every_truncation_is_refused(tmp_path) -> None:
    whole = VERSION1.read_bytes()
    for length in [*range(40), *range(40, len(whole), 97), len(whole) - 1]:
        refusal(tmp_path, whole[:length])


def test_surplus_bytes_are_refused(tmp_path) -> None:
    assert "numbers instead of" in refusal(tmp_path, VERSION1.read_bytes() + b"\0" * 8)


def test_unknown_fields_of_the_record_are_ignored(tmp_path, example) -> None:
    path = tmp_path / "a"
    path.write_bytes(with_record(colour={"of": "the future"}))
    assert same(read_prompt_file(path), example)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone_identity": None, "method": None}, "lacks backbone_identity, method"),
        ({"threshold": "0.5"}, "threshold"),
        ({"method_settings": [1]}, "method_settings"),
        ({"class_name": "x\nBackbone: fine"}, "class_name"),
    ],
)
def test_damaged_records_are_refused_by_the_field(tmp_path, change, words) -> None:
    assert words in refusal(tmp_path, with_record(**change))


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        "null",
        '{"a": 1, "a": 2}',
        '{"threshold": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        "[" * 100_000,
        '{"a":' * 40 + "1" + "}" * 40,
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_hostile_records_are_refused(tmp_path, record) -> None:
    refusal(tmp_path, with_metadata(record=record))


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 500_000,
        b"\xff\xfe{\0}\0",
        b"{}",
        b'{"t": {}, "t": {}}',
        {"t": 5},
        {"t": ENTRY | {"dtype": "F64"}},
        {"t": ENTRY | {"dtype": ["F32"]}},
        {"t": ENTRY | {"shape": [2**62, 2**62]}},
        {"t": ENTRY | {"shape": [-1, -2]}},
        {"t": ENTRY | {"shape": [2.0]}},
        {"t": ENTRY | {"shape": [True, 2]}},
        {"t": ENTRY | {"shape": [1] * 70 + [2]}},
        {"t": ENTRY | {"shape": [0, 2**62], "data_offsets": [0, 0]}},
        {"t": ENTRY | {"data_offsets": [8, 16]}},
        {"t": ENTRY | {"data_offsets": [0, 2**70]}},
        {"t": ENTRY | {"data_offsets": [8]}},
        {"t": ENTRY | {"more": 1}},
        {"t": ENTRY, "u": ENTRY},
        {"__metadata__": {"format": FORMAT, "format_version": 1}, "t": ENTRY},
        {"__metadata__": [], "t": ENTRY},
        {"__metadata__": {"format": FORMAT, "format_version": "1"}, "t": ENTRY},
        {"__metadata__": {"format": FORMAT, "format_version": "1", "record": "{}"}},
    ],
)
def test_hostile_headers_are_refused(tmp_path, header) -> None:
    refusal(tmp_path, raw(header, b"\0" * 8))


def test_nan_and_infinite_numbers_are_refused(tmp_path) -> None:
    content = bytearray(VERSION1.read_bytes())
    for bad in (np.nan, np.inf):
        content[-4:] = np.float32(bad).tobytes()
        assert "NaN or infinite" in refusal(tmp_path, bytes(content))


class CountingFile:
    """A file of zeros behind a given start that counts what is read of it."""

    def __init__(self, start: bytes) -> None:
        self.start = start
        self.read_bytes = 0

    def read(self, count: int) -> bytes:
        piece = self.start[self.read_bytes : self.read_bytes + count]
        self.read_bytes += count
        return piece.ljust(count, b"\0")


@pytest.mark.parametrize("announced", [2**63, 10**9, 1_000_001])
def test_an_oversized_header_is_refused_after_eight_bytes(announced) -> None:
    file = CountingFile(struct.pack("<Q", announced))
    with pytest.raises(_safetensors.ContainerError, match=str(announced)):
        _safetensors.unpack(file, 200_000_000)
    assert file.read_bytes == 8


def test_too_many_numbers_are_refused_before_they_are_read() -> None:
    count = _safetensors.MAX_NUMBERS + 1
    start = raw({"t": {"dtype": "F16", "shape": [count], "data_offsets": [0, 2 * count]}})
    file = CountingFile(start)
    with pytest.raises(_safetensors.ContainerError, match="more than"):
        _safetensors.unpack(file, len(start) + 2 * count)
    assert file.read_bytes == len(start)


def test_an_oversized_file_is_refused_without_reading_it(tmp_path) -> None:
    path = tmp_path / "big.ptsam.safetensors"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(PromptFileError, match="at most"):
        read_prompt_file(path)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    changes=st.lists(
        st.tuples(st.integers(0, VERSION1.stat().st_size - 1), st.integers(0, 255)),
        min_size=1,
        max_size=6,
    ),
    in_header=st.booleans(),
)
def test_mutated_files_are_read_validly_or_refused(tmp_path, changes, in_header) -> None:
    content = bytearray(VERSION1.read_bytes())
    for place, value in changes:
        content[place % 600 if in_header else place] = value
    path = tmp_path / "fuzzed.ptsam.safetensors"
    path.write_bytes(content)
    try:
        found = read_prompt_file(path)
    except PromptFileError:
        return
    assert isinstance(found.metadata, PromptMetadata)
    assert all(np.isfinite(t).all() for t in found.tensors.values())
    json.dumps(found.info_dict(), allow_nan=False).encode()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=300), framed=st.booleans())
def test_random_bytes_are_refused(tmp_path, content, framed) -> None:
    refusal(tmp_path, raw(content) if framed else content)


def test_the_module_needs_no_torch() -> None:
    code = "import sys, napari_ptsam.promptfile; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
