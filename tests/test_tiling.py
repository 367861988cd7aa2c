"""Working scale, tiles, and blending them back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scenes import disc, example

from napari_ptsam.errors import InputError, PromptFileError
from napari_ptsam.examples import Example
from napari_ptsam.tiling import OVERLAP, Scaling, blend, choose_scaling, object_thickness
from napari_ptsam.tiling import tile_offsets as offsets_of

SIZES = [(64, 64), (65, 64), (1, 300), (130, 63), (257, 480), (2, 2)]


def of_mask(mask: np.ndarray) -> Example:
    return example(np.zeros(mask.shape, np.float32), mask)


@pytest.mark.parametrize("scaled", SIZES)
def test_tiles_cover_every_pixel_and_stay_inside(scaled: tuple[int, int]) -> None:
    covered = np.zeros(scaled, int)
    for row, column in offsets_of(scaled, 64):
        assert row >= 0
        assert column >= 0
        assert row == 0 or row + 64 <= scaled[0]
        assert column == 0 or column + 64 <= scaled[1]
        covered[row : row + 64, column : column + 64] += 1
    assert covered.min() == 1


@pytest.mark.parametrize("length", [65, 111, 112, 113, 200, 1000])
def test_neighbouring_tiles_overlap_by_the_promised_share(length: int) -> None:
    starts = [row for row, _ in offsets_of((length, 64), 64)]
    assert starts[0] == 0
    assert starts[-1] == length - 64
    assert max(np.diff(starts)) <= 64 * (1 - OVERLAP) + 1
    assert len(starts) <= np.ceil((length - 64) / 48) + 1


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_tiles_lie_whole_tokens_apart_except_for_the_last(size: int) -> None:
    for length in (size + 1, 2 * size - 7, 5 * size + 100):
        starts = [column for _, column in offsets_of((size, length), size)]
        assert not np.any(np.array(starts[:-1]) % 16)
        assert starts[-1] == length - size


def test_what_fits_is_one_tile() -> None:
    assert offsets_of((64, 10), 64) == [(0, 0)]


@pytest.mark.parametrize("scaled", SIZES)
def test_constant_logits_blend_to_one_constant(scaled: tuple[int, int]) -> None:
    tiles = [(torch.full((64, 64), 0.7), offset) for offset in offsets_of(scaled, 64)]
    probability = blend(tiles, scaled, scaled)
    assert probability.shape == scaled
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, torch.tensor(0.7).sigmoid().item(), atol=1e-6)


def test_tiles_of_one_map_blend_to_that_map() -> None:
    whole = torch.randn(150, 97, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(whole, (0, 64, 0, 64), value=50.0)
    tiles = [(padded[r : r + 64, c : c + 64], (r, c)) for r, c in offsets_of((150, 97), 64)]
    np.testing.assert_allclose(blend(tiles, (150, 97), (150, 97)), whole.sigmoid(), atol=1e-5)


def test_a_tile_weighs_most_in_its_middle() -> None:
    tiles = [(torch.full((64, 64), -4.0), (0, 0)), (torch.full((64, 64), 4.0), (0, 48))]
    row = blend(tiles, (64, 112), (64, 112))[30]
    assert (np.diff(row) >= 0).all()
    assert row[47] < 0.02
    assert row[64] > 0.98
    assert row[55] == pytest.approx(0.5, abs=0.15)


def test_the_blended_map_has_the_planes_own_size() -> None:
    probability = blend([(torch.zeros(64, 64), (0, 0))], (64, 32), (501, 250))
    assert probability.shape == (501, 250)


def test_fit_takes_the_longest_side_to_the_input_and_a_factor_is_kept() -> None:
    assert Scaling(None).scale_for((512, 128), 256) == 0.5
    assert Scaling(None).scale_for((10, 128, 3), 256) == 2.0
    assert Scaling(0.3).scale_for((512, 128), 256) == 0.3


@pytest.mark.parametrize("factor", [0.0, -1.0, 0.005, 17.0, float("nan"), float("inf")])
def test_impossible_factors_are_refused(factor: float) -> None:
    with pytest.raises(InputError, match=r"0\.01 to 16"):
        Scaling(factor)


@pytest.mark.parametrize("scaling", [Scaling(None), Scaling(0.537), Scaling(16)])
def test_a_scaling_survives_the_prompt_file(scaling: Scaling) -> None:
    assert Scaling.from_dict(scaling.to_dict()) == scaling


@pytest.mark.parametrize(
    "stored",
    [
        {}, {"mode": "pyramid"}, {"mode": "fixed"}, {"mode": "fixed", "factor": "wide"},
        {"mode": "fixed", "factor": None}, {"mode": "fixed", "factor": 1e9},
    ],
)  # fmt: skip
def test_a_stored_scaling_that_makes_no_sense_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(PromptFileError, match="working scale is"):
        Scaling.from_dict(stored)


@pytest.mark.parametrize("radius", [3, 8, 20])
def test_a_disc_is_as_thick_as_two_thirds_of_its_diameter(radius: int) -> None:
    mask = disc((64, 64), (32, 32), radius)
    assert object_thickness([of_mask(mask)]) == pytest.approx(2 * radius / 1.5, abs=1)


@pytest.mark.parametrize("width", [1, 3, 4, 9])
def test_a_stripe_is_as_thick_as_it_is_wide_however_long(width: int) -> None:
    mask = np.zeros((64, 200), bool)
    mask[20 : 20 + width] = True
    assert object_thickness([of_mask(mask)]) == pytest.approx(width, abs=1.0)


def test_specks_do_not_decide_the_thickness() -> None:
    mask = disc((100, 100), (50, 50), 20)
    mask[::9, :9:4] = True
    assert object_thickness([of_mask(mask)]) == pytest.approx(40 / 1.5, abs=1)


def test_no_object_has_no_thickness_and_fits_whole_images() -> None:
    empty = of_mask(np.zeros((64, 64), bool))
    assert object_thickness([empty]) is None
    assert choose_scaling([empty], 256, 12) == Scaling(None)


def test_empty_images_do_not_change_the_thickness() -> None:
    mask = disc((64, 64), (32, 32), 8)
    with_empty = [of_mask(mask), of_mask(np.zeros((64, 64), bool))]
    assert object_thickness(with_empty) == object_thickness([of_mask(mask)])


def test_an_object_that_fills_the_image_counts_up_to_its_border() -> None:
    assert object_thickness([of_mask(np.ones((40, 40), bool))]) == pytest.approx(40 / 1.5, abs=1)


def test_large_objects_let_whole_images_in() -> None:
    assert choose_scaling([of_mask(disc((512, 512), (256, 256), 60))], 256, 12) == Scaling(None)


def test_images_of_several_sizes_share_one_scale() -> None:
    sizes = [(256, 256), (256, 320), (512, 640)]
    masks = [disc(shape, (100, 100), 12) for shape in sizes]
    assert choose_scaling([of_mask(m) for m in masks], 256, 12) == Scaling(0.8)
    assert choose_scaling([of_mask(m) for m in masks[:2]], 256, 12) == Scaling(None)


def test_small_images_of_several_sizes_are_not_enlarged_without_bound() -> None:
    masks = [disc((side, side), (20, 20), 6) for side in (40, 64, 80)]
    assert choose_scaling([of_mask(m) for m in masks], 256, 12) == Scaling(2.0)


def test_objects_that_fill_much_of_the_view_let_whole_images_in_whatever_their_size() -> None:
    masks = [disc((side, side), (side // 2, side // 2), side // 4) for side in (256, 512, 700)]
    assert choose_scaling([of_mask(m) for m in masks], 256, 12) == Scaling(None)


def test_small_objects_ask_for_tiles_at_the_wanted_width() -> None:
    scaling = choose_scaling([of_mask(disc((1000, 1000), (400, 400), 10))], 256, 12)
    assert scaling.factor == pytest.approx(12 / 13, rel=0.1)


def test_thin_objects_are_not_enlarged_beyond_what_the_camera_saw() -> None:
    mask = np.zeros((600, 600), bool)
    mask[::50] = True
    assert choose_scaling([of_mask(mask)], 256, 12) == Scaling(2.0)


def test_tiles_never_show_less_detail_than_fitting_in() -> None:
    mask = np.zeros((64, 64), bool)
    mask[30] = True
    # Fitted in, these 64 pixels are enlarged fourfold; tiles would enlarge them twofold.
    assert choose_scaling([of_mask(mask)], 256, 12) == Scaling(None)
