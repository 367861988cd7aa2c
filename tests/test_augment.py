"""Views: geometry, validity, augmentation, and its picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_ptsam.errors import InputError
from napari_ptsam.training.augment import Augmentation, random_view
from napari_ptsam.training.picture import contact_sheet
from napari_ptsam.views import plain_view, prefilter


@dataclass(frozen=True)
class Sample:
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    valid: NDArray[np.bool_]


def discs(height: int, width: int, count: int = 12, seed: int = 0) -> Sample:
    """Bright discs on dark ground; the mask is where the image is bright."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(count):
        mask |= np.hypot(y - rng.integers(height), x - rng.integers(width)) < 12
    image = np.repeat(np.where(mask, 200, 50)[..., None], 3, 2).astype(np.float32)
    return Sample(image, mask, np.ones_like(mask))


GEOMETRY = Augmentation(
    flips=True, rotation=180.0, zoom=(0.75, 1.33), elastic=0.08, probability=1.0
)
EVERYTHING = replace(Augmentation.paper(), probability=1.0)


def test_plain_view_at_scale_one_is_the_image_itself() -> None:
    sample = discs(64, 64)
    view = plain_view(sample, 64, 1.0)
    np.testing.assert_allclose(view.image, sample.image, atol=1e-2)
    np.testing.assert_array_equal(view.mask, sample.mask)
    assert view.valid.all()
    assert view.content == (64, 64)


def test_smaller_image_is_padded_bottom_right_and_padding_is_invalid() -> None:
    view = plain_view(discs(40, 60), 64, 1.0)
    assert view.content == (40, 60)
    assert view.valid[:40, :60].all()
    assert not view.valid[40:].any()
    assert not view.valid[:, 60:].any()
    assert not view.image[40:].any()
    assert not view.mask[40:].any()


def test_offset_takes_the_right_part_and_pads_beyond_the_end() -> None:
    sample = discs(100, 100)
    view = plain_view(sample, 64, 1.0, offset=(50, 20))
    np.testing.assert_array_equal(view.mask[:50], sample.mask[50:, 20:84])
    assert view.content == (50, 64)
    assert not plain_view(sample, 64, 1.0, offset=(200, 0)).valid.any()


def test_two_tiles_continue_each_other_at_any_scale() -> None:
    sample = discs(90, 90)
    whole = plain_view(sample, 128, 1.37)
    right = plain_view(sample, 64, 1.37, offset=(0, 64))
    np.testing.assert_allclose(right.image[:, :59], whole.image[:64, 64:123], atol=1e-2)


def test_scale_is_model_pixels_per_image_pixel() -> None:
    sample = discs(64, 64)
    twice = plain_view(sample, 128, 2.0)
    np.testing.assert_array_equal(twice.mask, sample.mask.repeat(2, 0).repeat(2, 1))
    assert plain_view(sample, 128, 0.5).content == (32, 32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 7)])
def test_images_one_pixel_wide_give_views(shape) -> None:
    sample = discs(*shape)
    for augmentation in (Augmentation.none(), EVERYTHING):
        view = random_view(sample, 64, 0.7, augmentation, np.random.default_rng(0))
        assert np.isfinite(view.image).all()
        assert view.valid.any()


@pytest.mark.parametrize("seed", range(10))
def test_image_mask_and_valid_move_together(seed) -> None:
    sample = discs(200, 150)
    # Everything left of column 70 is to be ignored, and the blue channel says so.
    sample.valid[:, :70] = False
    sample.image[..., 2] = np.where(sample.valid, 200, 50)
    view = random_view(sample, 128, 1.0, GEOMETRY, np.random.default_rng(seed))
    rows, columns = view.content
    content = view.image[:rows, :columns]
    mask, valid = view.mask[:rows, :columns], view.valid[:rows, :columns]
    # Bilinear and nearest sampling may disagree on the very border only.
    assert ((content[..., 0] > 125) == mask).mean() > 0.98
    assert ((content[..., 2] > 125) == valid).mean() > 0.98
    inside = ndimage.binary_erosion(mask, iterations=2)
    assert (content[..., 0][inside] > 199).all()


def test_view_is_a_pure_function_of_the_seed() -> None:
    sample = discs(200, 200)
    one, same, other = (
        random_view(sample, 128, 1.0, Augmentation.paper(), np.random.default_rng(seed))
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.mask, same.mask)
    assert not np.array_equal(one.image, other.image)


def test_augmentation_leaves_the_example_untouched() -> None:
    sample = discs(100, 100)
    before = sample.image.copy(), sample.mask.copy()
    random_view(sample, 128, 1.0, EVERYTHING, np.random.default_rng(0))
    np.testing.assert_array_equal(sample.image, before[0])
    np.testing.assert_array_equal(sample.mask, before[1])


def test_rotated_view_of_a_large_image_has_no_blank_corner() -> None:
    sample = discs(128, 128)
    rotation = Augmentation(rotation=45.0, probability=1.0)
    for seed in range(5):
        view = random_view(sample, 128, 1.0, rotation, np.random.default_rng(seed))
        assert view.valid.all()
        assert view.image.min() > 40


def test_crops_seek_a_rare_small_object() -> None:
    sample = discs(600, 600, count=0)
    sample.mask[500:504, 300:304] = True

    def hits(share: float) -> float:
        augmentation = Augmentation(object_crops=share)
        rng = np.random.default_rng(0)
        views = [random_view(sample, 64, 1.0, augmentation, rng) for _ in range(500)]
        return sum(view.mask.any() for view in views) / len(views)

    assert hits(0.0) < 0.1
    assert 0.6 < hits(0.7) < 0.8
    assert hits(1.0) == 1.0


def test_objects_in_ignored_regions_do_not_attract_crops() -> None:
    sample = discs(600, 600, count=0)
    sample.mask[:4, :4] = True
    sample.valid[:4, :4] = False
    view = random_view(sample, 64, 1.0, Augmentation(object_crops=1.0), np.random.default_rng(1))
    assert not view.mask.any()


def test_elastic_deformation_does_not_fold() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.float32)[None, :, None], 256, 0).repeat(3, 2)
    sample = Sample(ramp, np.zeros((256, 256), bool), np.ones((256, 256), bool))
    elastic = replace(Augmentation.none(), elastic=0.08, probability=1.0)
    moved = 0.0
    for seed in range(5):
        view = random_view(sample, 256, 1.0, elastic, np.random.default_rng(seed))
        inner = view.image[20:-20, 20:-20, 0]
        moved = max(moved, float(np.abs(inner - ramp[20:-20, 20:-20, 0]).max()))
        assert (np.diff(inner, axis=1) > 0).mean() > 0.999
    assert moved > 2


@pytest.mark.parametrize(
    "change",
    [
        {"noise": 12.0},
        {"gamma": (0.5, 0.8)},
        {"brightness": 25.0},
        {"contrast": (1.2, 1.5)},
    ],
)
def test_intensity_changes_alter_the_image_alone_and_stay_in_range(change) -> None:
    sample = discs(100, 80)
    augmentation = Augmentation(probability=1.0, **change)
    view = random_view(sample, 128, 1.0, augmentation, np.random.default_rng(0))
    assert np.abs(view.image[:100, :80] - sample.image).mean() > 1
    np.testing.assert_array_equal(view.mask[:100, :80], sample.mask)
    assert view.image.min() >= 0
    assert view.image.max() <= 255
    assert not view.image[100:].any()
    np.testing.assert_array_equal(view.image[..., 0], view.image[..., 2])


def test_paper_has_all_eight_augmentations_and_none_has_no_effect() -> None:
    paper = Augmentation.paper()
    assert paper.flips
    assert min(paper.rotation, paper.elastic, paper.noise, paper.brightness) > 0
    assert all(low < 1 < high for low, high in (paper.zoom, paper.gamma, paper.contrast))
    sample = discs(64, 64)
    view = random_view(sample, 64, 1.0, Augmentation.none(), np.random.default_rng(0))
    np.testing.assert_allclose(view.image, sample.image, atol=1e-2)


@pytest.mark.parametrize("wrong", [{"zoom": (0.0, 1.0)}, {"gamma": (2, 1)}, {"probability": 2.0}])
def test_impossible_ranges_are_refused_in_words(wrong) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_prefilter_prevents_aliasing_and_leaves_mild_scales_alone() -> None:
    stripes = np.zeros((128, 128, 3), np.float32)
    stripes[:, ::4] = 255
    assert prefilter(stripes, 0.7) is stripes
    sample = Sample(stripes, stripes[..., 0] > 0, np.ones((128, 128), bool))
    smooth = replace(sample, image=prefilter(stripes, 0.25))
    # Sampled at a quarter, stripes of period 4 must become even grey.
    raw, filtered = (plain_view(s, 32, 0.27).image[:, 4:-4] for s in (sample, smooth))
    assert raw.std() > 40
    assert filtered.std() < 15
    assert filtered.mean() == pytest.approx(255 / 4, rel=0.05)


def test_contact_sheet_shows_sixteen_views_with_outlines(tmp_path) -> None:
    rng = np.random.default_rng(0)
    views = [random_view(discs(80, 80), 64, 1.0, Augmentation.paper(), rng) for _ in range(16)]
    contact_sheet(views, tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape == (4 * 66, 4 * 66, 3)
    assert (picture == (255, 220, 0)).all(-1).sum() > 16 * 20


def test_contact_sheet_refuses_no_views_and_unknown_formats(tmp_path) -> None:
    with pytest.raises(InputError, match="no views"):
        contact_sheet([], tmp_path / "sheet.png")
    with pytest.raises(InputError, match=r"sheet\.nope.*png"):
        contact_sheet([plain_view(discs(8, 8), 8, 1.0)], tmp_path / "sheet.nope")
