"""Images find their masks, and whatever a mask was saved as is understood or refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_ptsam.errors import InputError
from napari_ptsam.examples import data_hash, load_examples
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import open_planes

RNG = np.random.default_rng(0)
SIZE = (8, 9)


def noise(*shape):
    return RNG.integers(0, 250, shape, dtype=np.uint8)


def blob(value=1, dtype=np.uint8):
    mask = np.zeros(SIZE, dtype)
    mask[2:5, 3:6] = value
    return mask


def save(path: Path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def load(images, masks, **options):
    options.setdefault("normalization", Normalization())
    return load_examples(open_planes(images), open_planes(masks), **options)[0]


def keys(examples):
    return [example.key for example in examples]


@pytest.fixture
def folders(tmp_path):
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png", noise(*SIZE, 3))
        save(tmp_path / "masks" / f"{name}.tif", blob())
    return tmp_path / "images", tmp_path / "masks"


# ---- pairing


def test_folders_are_paired_by_name_whatever_the_format(folders):
    images, masks = folders
    (first, *_) = examples = load(images, masks)
    assert keys(examples) == ["a", "b", "c"]
    assert first.image.shape == (*SIZE, 3)
    assert first.image.dtype == np.float32
    assert first.mask.dtype == first.valid.dtype == np.bool_
    np.testing.assert_array_equal(first.mask, blob() > 0)
    assert first.valid.all()
    assert first.instances is None


@pytest.mark.parametrize(
    "ending", ["_mask", "_masks", "-mask", "_cp_masks", "_label", "_labels", "_seg", "_MASK"]
)
def test_usual_endings_of_mask_names_are_understood(tmp_path, ending):
    save(tmp_path / "images" / "sub" / "a_1.png", noise(*SIZE))
    save(tmp_path / "masks" / "sub" / f"a_1{ending}.png", blob())
    assert keys(load(tmp_path / "images", tmp_path / "masks")) == ["sub/a_1"]


def test_images_without_a_mask_are_left_out(folders):
    images, masks = folders
    (masks / "b.tif").unlink()
    assert keys(load(images, masks)) == ["a", "c"]
    with pytest.raises(InputError, match=r"planes 1 of .*\(b\).*no mask"):
        load(images, masks, planes=[0, 1])
    assert keys(load(images, masks, planes=[2])) == ["c"]


def test_masks_without_an_image_are_listed_with_the_rule(folders):
    images, masks = folders
    (masks / "b.tif").rename(masks / "b (copy).tif")
    with pytest.raises(InputError, match=r"1 of the 3 masks.*b \(copy\)\. Images.*: b\..*_masks"):
        load(images, masks)


def test_two_masks_of_one_image_are_refused(folders):
    images, masks = folders
    save(masks / "a_mask.tif", blob())
    with pytest.raises(InputError, match=r"a\.tif and .*a_mask\.tif both"):
        load(images, masks)


def test_stacks_in_folders_are_paired_by_name_and_number(tmp_path):
    save(tmp_path / "images" / "s.tif", noise(3, *SIZE))
    save(tmp_path / "masks" / "s_labels.tif", np.stack([blob(), blob(0), blob()]))
    assert keys(load(tmp_path / "images", tmp_path / "masks")) == ["s/0000", "s/0002"]


def test_stacks_are_paired_by_number_and_only_painted_planes_are_used():
    labels = np.zeros((6, *SIZE), np.int32)
    labels[1] = blob()
    labels[4] = blob()
    images = noise(6, *SIZE)
    examples = load(images, labels)
    assert keys(examples) == ["0001", "0004"]
    expected = Normalization().apply(images[4])
    np.testing.assert_array_equal(examples[1].image, expected)


def test_listed_planes_count_as_annotated_also_without_paint():
    labels = np.zeros((6, *SIZE), np.uint8)
    labels[1] = blob()
    examples = load(noise(6, *SIZE), labels, planes=[3, 1])
    assert keys(examples) == ["0001", "0003"]
    assert not examples[1].mask.any()


def test_as_many_masks_as_listed_planes_belong_to_these():
    masks = np.stack([blob(), np.roll(blob(), 1, 0)])
    examples = load(noise(6, *SIZE), masks, planes=[4, 2])
    assert keys(examples) == ["0002", "0004"]
    np.testing.assert_array_equal(examples[1].mask, masks[1] > 0)


def test_stacks_of_different_length_are_refused():
    with pytest.raises(InputError, match=r"6 planes but .* has 5"):
        load(noise(6, *SIZE), noise(5, *SIZE))


def test_planes_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="no plane 6"):
        load(noise(6, *SIZE), noise(6, *SIZE), planes=[6])


def test_a_folder_and_a_stack_of_equal_length_belong_together(folders):
    images, _ = folders
    assert keys(load(images, np.stack([blob(), blob(0), blob()]))) == ["a", "c"]


def test_a_single_image_and_mask_need_no_common_name(tmp_path):
    save(tmp_path / "image.png", noise(*SIZE))
    save(tmp_path / "painted.tif", blob())
    assert keys(load(tmp_path / "image.png", tmp_path / "painted.tif")) == ["image"]


def test_an_empty_mask_file_says_that_there_is_no_object(folders):
    images, masks = folders
    save(masks / "a.tif", blob(0))
    examples = load(images, masks)
    assert keys(examples) == ["a", "b", "c"]
    assert not examples[0].mask.any()


def test_the_limit_takes_the_first_annotated_ones():
    labels = np.stack([blob(0), *[blob()] * 4])
    assert keys(load(noise(5, *SIZE), labels, limit=2)) == ["0001", "0002"]
    assert len(load(noise(5, *SIZE), labels, limit=99)) == 4
    with pytest.raises(InputError, match="limit of 0"):
        load(noise(5, *SIZE), labels, limit=0)


def test_nothing_annotated_is_explained(folders):
    with pytest.raises(InputError, match=r"None of the 4 planes.*Paint"):
        load(noise(4, *SIZE), np.zeros((4, *SIZE), np.uint8))
    with pytest.raises(InputError, match="no object in any of the 2 masks"):
        load(noise(4, *SIZE), np.zeros((4, *SIZE), np.uint8), planes=[0, 1])


def test_masks_of_another_size_are_refused_with_both_names(folders):
    images, masks = folders
    save(masks / "b.tif", blob().T)
    with pytest.raises(InputError, match=r"b\.png has 8 x 9 .*b\.tif has 9 x 8"):
        load(images, masks)


def test_a_mask_file_of_its_own_counts_as_annotated_also_without_paint(folders):
    save(folders[1] / "a.tif", blob(0))
    assert keys(load(*folders)) == ["a", "b", "c"]


# ---- what a mask may be


@pytest.mark.parametrize(
    "mask",
    [
        blob(dtype=bool),
        blob(1),
        blob(255),
        blob(40000, np.uint16),
        blob(7, np.int32),
        blob(2**31 + 5, np.uint32),
        blob(2, np.int64),
        blob(1, np.float32),
        blob(255, np.float64),
        blob(1, np.float16),
        blob(255)[..., None].repeat(3, -1),
    ],
    ids=lambda mask: f"{mask.dtype}-{mask.max()}-{mask.ndim}D",
)
def test_every_usual_mask_is_understood(mask):
    (example,) = load(noise(*SIZE), mask)
    np.testing.assert_array_equal(example.mask, blob() > 0)
    assert example.instances is None


@pytest.mark.parametrize(
    ("value", "reason"), [(0.5, "probabilities"), (np.nan, "whole"), (np.inf, "whole")]
)
def test_values_that_are_no_labels_are_refused(value, reason):
    with pytest.raises(InputError, match=reason):
        load(noise(*SIZE), blob(value, np.float32))


def test_masks_with_alpha_ignore_it(tmp_path):
    picture = np.dstack([blob(255)] * 3 + [np.full(SIZE, 255, np.uint8)])
    save(tmp_path / "m.png", picture)
    (example,) = load(noise(*SIZE), tmp_path / "m.png")
    np.testing.assert_array_equal(example.mask, blob() > 0)


def test_colours_are_objects_on_black():
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[1, 1] = 255, 0, 0
    picture[5, 5] = 0, 0, 9
    (example,) = load(noise(*SIZE), picture)
    np.testing.assert_array_equal(example.mask, picture.any(-1))
    assert example.instances.max() == 2
    with pytest.raises(InputError, match="no label numbers"):
        load(noise(*SIZE), picture, label=1)
    with pytest.raises(InputError, match="without black"):
        load(noise(*SIZE), picture + np.uint8(1))
    photo = noise(40, 40, 3)
    with pytest.raises(InputError, match="picture in"):
        load(noise(40, 40), photo)


def test_palette_masks_give_their_label_numbers(tmp_path):
    picture = Image.fromarray(blob(3)).convert("P")
    picture.putpalette([0, 0, 0] * 3 + [200, 10, 10])
    picture.save(tmp_path / "m.png")
    (example,) = load(noise(*SIZE), tmp_path / "m.png", label=3)
    np.testing.assert_array_equal(example.mask, blob() > 0)


def test_black_and_white_jpeg_masks_are_cleaned_and_others_refused(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[17:42, 21:45] = 255
    path = tmp_path / "m.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(mask, level=60))
    assert len(np.unique(open_planes(path).read(0))) > 2
    (example,) = load(noise(64, 64), path)
    np.testing.assert_array_equal(example.mask, mask > 0)
    path.write_bytes(imagecodecs.jpeg8_encode(mask // 2, level=60))
    with pytest.raises(InputError, match="JPEG"):
        load(noise(64, 64), path)


# ---- labels


def test_several_ids_are_kept_as_instances():
    labels = blob(5, np.int64)
    labels[7, 0] = 2**40
    (example,) = load(noise(*SIZE), labels)
    assert example.instances.dtype == np.int32
    np.testing.assert_array_equal(example.instances > 0, labels > 0)
    assert len(np.unique(example.instances)) == 3


def test_one_label_can_be_chosen():
    labels = np.stack([blob(3), blob(1)])
    labels[:, 0, 0] = 1
    examples = load(noise(2, *SIZE), labels, label=3)
    np.testing.assert_array_equal(examples[0].mask, labels[0] == 3)
    assert not examples[1].mask.any()  # painted, so it says that 3 does not occur there
    assert examples[0].instances is None
    with pytest.raises(InputError, match=r"label 4 does not occur.*0, 1, 3"):
        load(noise(2, *SIZE), labels, label=4)


@pytest.mark.parametrize("ignored", [255, -1, 0])
def test_ignored_pixels_are_neither_object_nor_valid(ignored):
    labels = blob(2, np.int16)
    labels[0] = ignored
    labels[7] = 1
    (example,) = load(noise(*SIZE), labels, ignore_label=ignored)
    np.testing.assert_array_equal(example.valid, labels != ignored)
    np.testing.assert_array_equal(example.mask, (labels > 0) & (labels != ignored))
    assert set(np.unique(example.instances)) == {0, 1, 2}


def test_a_mask_that_ignores_everything_is_refused():
    with pytest.raises(InputError, match="every pixel"):
        load(noise(*SIZE), np.full(SIZE, 9), ignore_label=9)
    with pytest.raises(InputError, match="both"):
        load(noise(*SIZE), blob(), label=1, ignore_label=1)


# ---- normalisation and hash


def test_normalisation_per_stack_is_measured_on_all_images_and_given_back():
    images = np.stack([noise(*SIZE), noise(*SIZE), np.full(SIZE, 2000)])
    labels = np.stack([blob(), blob(0), blob(0)])
    settings = Normalization(0, 100, per="stack")
    examples, used = load_examples(open_planes(images), open_planes(labels), normalization=settings)
    assert used.range == (images.min(), 2000)
    assert examples[0].image.max() < 40


def test_the_hash_changes_with_any_content():
    (example,) = load(noise(*SIZE), blob())
    known = data_hash([example])
    assert known == data_hash([dataclasses.replace(example, mask=example.mask.copy())])
    assert len(known) == 64
    changes = {
        "key": "b",
        "image": example.image + 1,
        "mask": ~example.mask,
        "valid": ~example.valid,
        "instances": np.ones(SIZE, np.int32),
    }
    others = [data_hash([dataclasses.replace(example, **{k: v})]) for k, v in changes.items()]
    assert len({known, *others, data_hash([example, example])}) == len(changes) + 2
