"""Backbones are found by name or path, and mistyped names are helped."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_ptsam.backbones.registry import BackboneSpec, find, list_backbones
from napari_ptsam.errors import BackboneError

NAMES = {"embedded", "vit_b", "vit_l", "vit_h", "vit_b_lm", "vit_b_em_organelles", "vit_l_lm"}
DIGITS = {"sha256": 64, "md5": 32, "xxh128": 32}


def test_all_backbones_are_listed_and_the_offline_one_comes_first() -> None:
    specs = list_backbones()
    assert {spec.name for spec in specs} == NAMES
    assert [spec.name for spec in specs if spec.url is None] == [specs[0].name] == ["embedded"]


@pytest.mark.parametrize("spec", list_backbones(), ids=lambda spec: spec.name)
def test_an_entry_is_complete(spec: BackboneSpec) -> None:
    assert spec.title
    assert spec.description
    assert spec.licence
    if spec.url is None:
        assert spec.packaged_file is not None
        assert spec.packaged_file.parts[-2:] == ("weights", "embedded-v6.safetensors")
    else:
        assert spec.url.startswith("https://")
        assert spec.checksum is not None
        digest = spec.checksum.digest
        assert len(digest) == DIGITS[spec.checksum.algorithm]
        assert int(digest, 16)
        assert digest == digest.lower()


def test_file_names_in_the_cache_differ() -> None:
    assert len({spec.file_name for spec in list_backbones()}) == len(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_are_found(name: str) -> None:
    found = find(name)
    assert isinstance(found, BackboneSpec)
    assert found.name == name


@pytest.mark.parametrize(
    "path",
    ["model.pth", "weights/any", "./vit_b", "C:\\models\\sam.pt", "new.safetensors", "A.PTH"],
)
def test_what_looks_like_a_path_is_one(path: str) -> None:
    assert find(path) == Path(path)


def test_an_existing_file_without_suffix_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").touch()
    (tmp_path / "vit_b").touch()
    monkeypatch.chdir(tmp_path)
    assert find("mine") == Path("mine")
    assert isinstance(find("vit_b"), BackboneSpec)
    assert find(Path("vit_b")) == Path("vit_b")


@pytest.mark.parametrize(
    ("typed", "meant"), [("vit-b", "vit_b"), ("VIT_H", "vit_h"), ("embeded", "embedded")]
)
def test_a_mistyped_name_is_helped(typed: str, meant: str) -> None:
    with pytest.raises(BackboneError, match=f"Did you mean '{meant}'"):
        find(typed)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BackboneError, match=r"'resnet'.*vit_b_em_organelles.*\.safetensors"):
        find("resnet")
