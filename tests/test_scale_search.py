"""The search for the working scale: what it chooses, when it is left out, and what it leaves."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import bright_discs, disc, example

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.examples import Example
from napari_ptsam.specialist import Specialist
from napari_ptsam.synthetic.scene import kind
from napari_ptsam.synthetic.unseen import FAMILIES, TARGETS
from napari_ptsam.tiling import Scaling
from napari_ptsam.training import scale
from napari_ptsam.training.scale import FOLDS, LARGEST, STEP, TRIED, WORTH, search_scaling


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("embedded", device="cpu")


def cracks(count: int) -> list[Example]:
    """Images of 128x128 with cracks 2.5 pixels wide."""
    family = next(f for f in FAMILIES if f.name == "cracks")
    style, found, number = family.style(np.random.default_rng([7, 1])), [], 0
    while len(found) < count:
        scene = family.render(style, np.random.default_rng([0, number]), (128, 128))
        mask = scene.kinds == kind(TARGETS["cracks"])
        number += 1
        if mask.any():
            pixels, valid = scene.image.astype(np.float32), np.ones(mask.shape, bool)
            found.append(Example(str(number), pixels, mask, valid, None))
    return found


def searched(run: Generator[tuple[int, int], None, Scaling]) -> tuple[list[Any], Scaling]:
    looks = []
    while True:
        try:
            looks.append(next(run))
        except StopIteration as end:
            return looks, end.value


def scripted(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float | None]) -> list[float | None]:
    """Let the scales have these scores, one after the other; returns which were tried."""
    tried: list[float | None] = []

    def score(*given: Any) -> Generator[tuple[int, int], None, float | None]:
        yield 1, 1
        tried.append(given[4].factor)
        return scores[len(tried) - 1]

    monkeypatch.setattr(scale, "_cross_validated", score)
    return tried


def blobs(count: int = FOLDS, side: int = 256, radius: float = 12.0) -> list[Example]:
    mask = disc((side, side), (60, 80), radius)
    return [example(150.0 * mask + 30 + number, mask, str(number)) for number in range(count)]


def stacked() -> tuple[Any, Any]:
    """Pixels and masks of `blobs` as stacks."""
    images = np.stack([e.image[..., 0] for e in blobs()]).astype(np.uint8)
    return images, np.stack([e.mask for e in blobs()]).astype(np.uint8)


def test_thin_objects_are_enlarged_where_that_tells_them_better(backbone: Backbone) -> None:
    looks, found = searched(search_scaling(backbone, cracks(6), Scaling(1.0)))
    assert found.factor is not None
    assert found.factor > 1.0
    assert looks[:6] == [(n + 1, 6) for n in range(6)]


def test_objects_that_are_told_well_stay_as_small_as_they_are(backbone: Backbone) -> None:
    looks, found = searched(search_scaling(backbone, blobs(), Scaling(1.0)))
    assert found == Scaling(1.0)
    assert len(looks) == 2 * FOLDS


def test_a_larger_scale_has_to_be_worth_its_time(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = scripted(monkeypatch, [0.5, 0.5 + 0.9 * WORTH])
    assert searched(search_scaling(backbone, blobs(), Scaling(1.0)))[1] == Scaling(1.0)
    assert tried == [1.0, STEP]
    tried = scripted(monkeypatch, [0.5, 0.5 + 1.1 * WORTH, 0.5 + 1.2 * WORTH])
    assert searched(search_scaling(backbone, blobs(), Scaling(1.0)))[1] == Scaling(STEP)
    assert tried == [1.0, STEP, STEP**2]


def test_the_search_ends_at_the_largest_scale(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = scripted(monkeypatch, [0.1 * n for n in range(9)])
    found = searched(search_scaling(backbone, blobs(), Scaling(1.0)))[1]
    assert found.factor == tried[-1]
    assert tried[-1] is not None
    assert tried[-1] <= LARGEST < tried[-1] * STEP


def test_whole_images_go_on_from_the_scale_that_fits_them_in(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = scripted(monkeypatch, [0.5, 0.6, 0.0])
    found = searched(search_scaling(backbone, blobs(side=512), Scaling(None)))[1]
    assert found == Scaling(0.5 * STEP)
    assert tried[0] is None


def looked_at(
    backbone: Backbone, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> list[Example]:
    """What of the examples is tried."""
    given: list[Example] = []

    def score(*arguments: Any) -> Generator[tuple[int, int], None, float]:
        given[:] = arguments[3]
        yield 1, 1
        return 0.0

    monkeypatch.setattr(scale, "_cross_validated", score)
    searched(search_scaling(backbone, examples, Scaling(1.0)))
    return given


def test_many_examples_are_looked_at_in_part(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = looked_at(backbone, blobs(TRIED + 5), monkeypatch)
    assert len({e.key for e in given}) == TRIED


def test_large_planes_are_looked_at_in_part(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = looked_at(backbone, blobs(side=700), monkeypatch)
    assert len(seen) == FOLDS
    for crop in seen:
        assert crop.image.shape == (256, 256, 3)
        assert crop.mask.any()


@pytest.mark.parametrize(
    "examples",
    [blobs(FOLDS - 1), bright_discs(FOLDS), blobs(radius=80.0)],
    ids=["few", "enlarged as it is", "large objects"],
)
def test_nothing_is_tried_where_there_is_nothing_to_choose(
    backbone: Backbone, examples: list[Example]
) -> None:
    looks, found = searched(search_scaling(backbone, examples, Scaling(None)))
    assert (looks, found) == ([], Scaling(None))


def test_examples_without_the_object_do_not_count(backbone: Backbone) -> None:
    empty = [replace(e, mask=np.zeros_like(e.mask)) for e in blobs(2)]
    assert searched(search_scaling(backbone, blobs(3) + empty, Scaling(1.0)))[0] == []


def test_a_backbone_without_a_task_encoder_keeps_its_scale(tiny_backbone: Path) -> None:
    tiny = load_backbone(tiny_backbone)
    run = search_scaling(tiny, blobs(), Scaling(1.0))
    assert searched(run) == ([], Scaling(1.0))


def test_all_methods_are_trained_at_the_same_scale(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("decoder", "lora"):
        scripted(monkeypatch, [0.5, 0.6, 0.0])
        trained = Specialist.train(*stacked(), backbone=backbone, method=method, steps=1)
        assert trained.scaling == Scaling(STEP)


def test_what_was_encoded_for_the_search_is_found_again(backbone: Backbone) -> None:
    kept = Embeddings()
    searched(search_scaling(backbone, blobs(), Scaling(1.0), kept))
    encoded = kept.encoded
    assert encoded == 5 * FOLDS
    searched(search_scaling(backbone, blobs(), Scaling(1.0), kept))
    assert kept.encoded == encoded


def test_who_stops_gets_the_best_so_far(backbone: Backbone) -> None:
    run = search_scaling(backbone, cracks(4), Scaling(1.0), should_stop=lambda: True)
    looks, found = searched(run)
    assert (looks, found) == ([(1, 4)], Scaling(1.0))


def test_a_specialist_is_trained_at_the_scale_that_was_found(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.5, 0.6, 0.0])
    images, masks = stacked()
    options: dict[str, Any] = {"backbone": backbone, "steps": 1}
    assert Specialist.train(images, masks, **options).scaling == Scaling(STEP)
    given = Specialist.train(images, masks, scale=1.0, **options)
    assert given.scaling == Scaling(1.0)
    quick = Specialist.train(images, masks, preset="quick", **options)
    assert quick.scaling == Scaling(None)
    again = Specialist.train(images, masks, start_from=quick, steps=1)
    assert again.scaling == Scaling(None)
