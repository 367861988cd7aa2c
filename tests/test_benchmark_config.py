"""Files that describe studies, and splits of their data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_ptsam.benchmark.config import read_config
from napari_ptsam.benchmark.splits import draw_splits, read_splits, write_splits
from napari_ptsam.errors import InputError

GOOD = """
backbone = "embedded"
sizes = [2, 4]
[[data]]
name = "d"
folder = "d"
[[methods]]
name = "m"
method = "ptsam"
"""
NAMES = [f"n{i}" for i in range(50)]


def test_a_short_file_has_the_papers_protocol(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text(GOOD.replace("sizes = [2, 4]", ""))
    config = read_config(path)
    assert config.title == "short"
    assert (config.sizes, config.splits, config.seeds) == ((16, 32, 64), 3, (0,))
    assert len({cell.training_seed for cell in config.cells()}) == 3
    assert [cell.split for cell in config.cells()] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_variants_come_last_and_on_their_own_data_alone(tmp_path: Path) -> None:
    path = tmp_path / "variants.toml"
    variant = '[[methods]]\nname = "v"\nmethod = "ptsam"\nsizes = [2]\ndata = ["e"]\n'
    more = '[[data]]\nname = "e"\nfolder = "e"\n'
    path.write_text(GOOD.replace("[[methods]]", f"{more}{variant}[[methods]]", 1))
    config = read_config(path)
    cells = list(config.cells())
    assert [m.name for m in config.methods if m.is_variant] == ["v"]
    assert {(c.data, c.size) for c in cells if c.method == "v"} == {("e", 2)}
    assert [c.method for c in cells] == ["m"] * 4 * config.splits + ["v"] * config.splits


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("backbone =", "backbones =", "no 'backbones' here"),
        ('backbone = "embedded"\n', "", "'backbone' is missing"),
        ("[2, 4]", "[4, 2]", "numbers of images that grow"),
        ("[2, 4]", '["2"]', "'sizes' is"),
        ('name = "d"', 'name = "a/b"', "becomes a folder"),
        ('folder = "d"', "", "given by one of"),
        ('folder = "d"', 'folder = "d"\npublished = "emps"', "given by one of"),
        ('folder = "d"', 'images = "i"', "given by one of"),
        ('method = "ptsam"', 'method = "ptsam"\nbaseline = "unet"', "either a 'method' or"),
        ('method = "ptsam"', 'baseline = "svm"', "no baseline 'svm'.*unet, forest"),
        ('method = "ptsam"', 'baseline = "unet"\nsteps = 3', "its 'settings' alone"),
        ('method = "ptsam"', 'method = "ptsam"\nsizes = [3]', "names 3, which is no size"),
        ('method = "ptsam"', 'method = "ptsam"\ndata = ["x"]', "names x, which is no size, data"),
        ('method = "ptsam"', 'method = "ptsam"\ndata = [1]', "'data' is"),
        ('method = "ptsam"', 'method = "ptsam"\nlonger_than = "x"', "names x, which is no size"),
        ("[[methods]]", "[[methods]]\nname = 'm'\nmethod = 'lora'\n[[methods]]", "called m, m"),
        ("[[data]]", "data = 3\n[[dat]]", r"given as \[\[data\]\]"),
        ('name = "m"', "name = true", "'name' is True"),
        ("sizes", "sizes = [", "no TOML file"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_what_is_wrong(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in GOOD
    path = tmp_path / "bad.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=told):
        read_config(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read"):
        read_config(tmp_path / "nowhere.toml")


def test_a_fifth_tests_in_all_splits_and_training_sets_are_nested() -> None:
    splits = draw_splits(NAMES, 3, 32, seed=0)
    assert len(splits.test) == 10
    for split in range(3):
        small, large = splits.training(split, 16), splits.training(split, 32)
        assert large[:16] == small
        assert len(set(large)) == 32
        assert not set(large) & set(splits.test)
    assert len({splits.training(split, 16) for split in range(3)}) == 3


def test_draws_depend_on_names_and_seed_alone() -> None:
    assert draw_splits(NAMES, 3, 16, 0) == draw_splits(NAMES[::-1], 3, 16, 0)
    assert draw_splits(NAMES, 3, 16, 0) != draw_splits(NAMES, 3, 16, 1)
    more = draw_splits(NAMES, 5, 32, 0)
    fewer = draw_splits(NAMES, 3, 16, 0)
    assert more.test == fewer.test
    assert [names[:16] for names in more.train[:3]] == list(fewer.train)


def test_test_images_that_come_with_the_data_are_all_used_and_none_is_drawn() -> None:
    splits = draw_splits(NAMES, 2, 50, 0, test=["t1", "t0"])
    assert splits.test == ("t0", "t1")
    assert sorted(splits.train[0]) == sorted(NAMES)


def test_a_split_file_gives_what_was_drawn(tmp_path: Path) -> None:
    splits = draw_splits(NAMES, 3, 16, 7)
    write_splits(tmp_path / "s.json", splits)
    assert read_splits(tmp_path / "s.json", 3, 16, 7) == splits
    assert read_splits(tmp_path / "s.json", 2, 8, 7) == splits


@pytest.mark.parametrize(("count", "size", "seed"), [(4, 16, 7), (3, 17, 7), (3, 16, 8)])
def test_a_split_file_of_another_study_is_refused(
    tmp_path: Path, count: int, size: int, seed: int
) -> None:
    write_splits(tmp_path / "s.json", draw_splits(NAMES, 3, 16, 7))
    with pytest.raises(InputError, match="Name another split_folder"):
        read_splits(tmp_path / "s.json", count, size, seed)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"format": 1})])
def test_a_damaged_split_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError, match=r"s\.json cannot be read"):
        read_splits(tmp_path / "s.json", 3, 16, 7)


def test_too_few_images_make_no_test_set() -> None:
    with pytest.raises(InputError, match="at least 3"):
        draw_splits(["a", "b"], 1, 1, 0)
