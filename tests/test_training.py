"""The training loop: what it learns, that it repeats itself exactly, and how it ends."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scenes import bright_discs, example
from torch import Tensor

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.checkpoint import state_identity
from napari_ptsam.backbones.embedded import READOUT_GAIN
from napari_ptsam.errors import InputError, TrainingError
from napari_ptsam.examples import Example
from napari_ptsam.methods import Method, build_method
from napari_ptsam.metrics import dice
from napari_ptsam.predict import predict_plane
from napari_ptsam.tiling import Scaling
from napari_ptsam.training import loop
from napari_ptsam.training.augment import Augmentation
from napari_ptsam.training.heldout import HeldOut, split_examples
from napari_ptsam.training.loop import STARTED_RATE, TrainResult, TrainStep, train
from napari_ptsam.training.losses import ptsam_loss
from napari_ptsam.training.presets import TrainingPlan, training_plan
from napari_ptsam.training.start import RAISES, TaskStart
from napari_ptsam.training.views import FreshViews, Job, KeptViews

PLAN = TrainingPlan(
    "test", steps=6, learning_rate=0.05, views_per_image=2, held_out=0.0, evaluate_every=2
)
Run = Generator[TrainStep, None, TrainResult]


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(tiny_backbone)


@pytest.fixture(scope="module")
def discs() -> list[Example]:
    return bright_discs(4)


def to_end(run: Run) -> tuple[list[TrainStep], TrainResult]:
    steps = []
    while True:
        try:
            steps.append(next(run))
        except StopIteration as end:
            return steps, end.value


def trained(
    backbone: Backbone, examples: Sequence[Example], plan: TrainingPlan, **settings: Any
) -> tuple[Method, list[TrainStep], TrainResult]:
    method = build_method("ptsam", settings, backbone, plan.seed)
    steps, result = to_end(train(method, backbone, examples, plan, Scaling(None)))
    return method, steps, result


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(v, second[k]) for k, v in first.items()
    )


def but_constant(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what is chosen anew after training: the constant of the readout."""
    prompts = tensors["decoder_prompts"].clone()
    prompts[1, -1] = 0
    return {**tensors, "decoder_prompts": prompts}


def losses(steps: Sequence[TrainStep]) -> list[float]:
    return [s.loss for s in steps if s.phase != "embed"]


# What a run learns.


def test_the_loss_falls_and_held_out_objects_are_found(backbone: Backbone) -> None:
    plan = replace(
        PLAN, steps=40, learning_rate=0.2, held_out=0.25, evaluate_every=40,
        augmentation=Augmentation(),
    )  # fmt: skip
    _, steps, result = trained(backbone, bright_discs(4, radius=16), plan)
    found = losses(steps)
    assert np.mean(found[-5:]) < 0.85 * np.mean(found[:2])
    assert result.held_out_dice is not None
    assert result.held_out_dice > 0.6
    assert result.steps == 40
    assert result.final_loss == pytest.approx(np.mean(found[-20:]))


@pytest.mark.parametrize("settings", [{}, {"encoder_prompts": 2}])
def test_a_run_repeats_itself_bit_for_bit(
    backbone: Backbone, discs: list[Example], settings: dict[str, Any]
) -> None:
    plan = replace(PLAN, steps=3)
    first, steps, _ = trained(backbone, discs, plan, **settings)
    np.random.seed(1)  # noqa: NPY002 (global seeds must not matter)
    torch.manual_seed(1)
    again, steps_again, _ = trained(backbone, discs, plan, **settings)
    other, _, _ = trained(backbone, discs, replace(plan, seed=1), **settings)
    assert equal(first.tensors(), again.tensors())
    assert losses(steps) == losses(steps_again)
    assert not equal(first.tensors(), other.tensors())


def test_encoder_prompts_are_trained_on_fresh_views_of_a_frozen_backbone(
    backbone: Backbone, discs: list[Example]
) -> None:
    before = state_identity(backbone.sam.state_dict())
    plan = replace(PLAN, held_out=0.25, start_from_examples=False, augmentation=Augmentation())
    start = build_method("ptsam", {"encoder_prompts": 2}, backbone).tensors()
    method, steps, result = trained(backbone, discs, plan, encoder_prompts=2)
    assert {s.phase for s in steps} == {"train"}
    assert all((v != start[k]).any() for k, v in method.tensors().items())
    assert result.held_out_dice is not None
    assert state_identity(backbone.sam.state_dict()) == before


def test_empty_images_among_others_are_learned_from(backbone: Backbone) -> None:
    empty = example(np.full((64, 64), 40.0, np.float32), np.zeros((64, 64), bool), "empty")
    _, steps, result = trained(backbone, [*bright_discs(2), empty, empty], PLAN)
    assert np.isfinite(losses(steps)).all()
    assert result.steps == PLAN.steps


def test_a_mask_that_covers_everything_is_learned(backbone: Backbone) -> None:
    full = example(np.full((64, 64), 90.0, np.float32), np.ones((64, 64), bool))
    _, steps, _ = trained(backbone, [full], replace(PLAN, steps=12))
    assert losses(steps)[-1] < 0.5 * losses(steps)[0]


def test_one_image_is_enough_and_is_not_held_out(backbone: Backbone) -> None:
    _, steps, result = trained(backbone, bright_discs(1), replace(PLAN, steps=2, held_out=0.5))
    assert result.held_out == ()
    assert result.held_out_dice is None
    assert np.isfinite(losses(steps)).all()


def test_without_examples_or_objects_there_is_nothing_to_learn(
    backbone: Backbone, discs: list[Example]
) -> None:
    with pytest.raises(TrainingError, match="paint at least one mask"):
        trained(backbone, [], PLAN)
    empty = [replace(e, mask=np.zeros_like(e.mask)) for e in discs]
    with pytest.raises(TrainingError, match=r"None of the 4 annotated images shows the object"):
        trained(backbone, empty, PLAN)
    ignored = [replace(e, valid=~e.mask) for e in discs]
    with pytest.raises(TrainingError, match=r"None of the 4 annotated images shows the object"):
        trained(backbone, ignored, PLAN)


@pytest.mark.parametrize("loss_size", [64, 16])
def test_ignored_pixels_do_not_influence_the_result(
    backbone: Backbone,
    discs: list[Example],
    loss_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "LOSS_SIZE", loss_size)
    valid = np.ones((64, 64), bool)
    valid[:, 29:] = False
    shown = [replace(e, valid=valid) for e in discs]
    turned = [replace(e, mask=np.where(valid, e.mask, ~e.mask)) for e in shown]
    plan = replace(PLAN, steps=3, held_out=0.25)
    first, _, result = trained(backbone, shown, plan)
    again, _, result_again = trained(backbone, turned, plan)
    assert equal(first.tensors(), again.tensors())
    assert result == result_again
    everything, _, _ = trained(backbone, discs, plan)
    assert not equal(first.tensors(), everything.tensors())


def test_a_loss_that_is_no_number_ends_the_run_in_words(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "ptsam_loss", lambda *a: ptsam_loss(*a) * float("nan"))
    with pytest.raises(TrainingError, match=r"became nan at step 1.*lower learning rate"):
        trained(backbone, discs, PLAN)


# Views.


def job(backbone: Backbone, plan: TrainingPlan, **settings: Any) -> Job:
    return Job(build_method("ptsam", settings, backbone), backbone, plan, Scaling(None))


def test_only_views_that_are_drawn_are_encoded_and_kept(backbone: Backbone) -> None:
    examples = bright_discs(3) * 10
    feed = KeptViews(job(backbone, PLAN), examples, views_per_image=50, steps=3)
    assert feed.count <= 3 * PLAN.batch_size
    added = list(feed.fill())
    assert max(added) <= 4
    assert sum(added) == feed.count == len(feed.kept)
    for step in range(3):
        assert feed.batch(step).embedding[0].shape == (2, 256, 8, 8)


def test_a_kept_view_takes_16_bits_a_feature_and_2_bits_a_pixel(backbone: Backbone) -> None:
    feed = KeptViews(job(backbone, PLAN), bright_discs(1), views_per_image=1, steps=1)
    list(feed.fill())
    (kept,) = feed.kept.values()
    assert {level.dtype for level in kept.embedding} == {torch.float16}
    assert all(
        level.numel() * 4 * 2 >= level.untyped_storage().nbytes() for level in kept.embedding
    )
    assert kept.marks.nbytes == 2 * 64 * 64 // 8


def test_kept_views_equal_fresh_ones_of_the_same_draw(backbone: Backbone) -> None:
    plan = replace(PLAN, batch_size=1, augmentation=Augmentation())
    examples = [replace(e, valid=e.image[..., 0] < 220) for e in bright_discs(1)]
    kept = KeptViews(job(backbone, plan), examples, views_per_image=1, steps=1)
    list(kept.fill())
    first, second = kept.batch(0), FreshViews(job(backbone, plan), examples).batch(0)
    assert torch.equal(first.mask, second.mask)
    assert torch.equal(first.valid, second.valid)
    assert first.mask.shape == (1, 1, 64, 64)
    assert np.array_equal(first.mask[0, 0].numpy() > 0, examples[0].mask)
    for one, other in zip(first.embedding, second.embedding, strict=True):
        torch.testing.assert_close(one, other, atol=0.01, rtol=0.01)


def test_a_batch_shows_different_images_while_there_are_enough(backbone: Backbone) -> None:
    plan = replace(PLAN, batch_size=4)
    feed = FreshViews(job(backbone, plan), bright_discs(4))
    for step in range(5):
        assert sorted(feed._draw(feed._rng(step))) == [0, 1, 2, 3]
    few = FreshViews(job(backbone, plan), bright_discs(2))
    assert len(few._draw(few._rng(0))) == 4


# Held-out examples.


def test_a_share_is_held_out_and_every_example_is_used_once() -> None:
    examples = bright_discs(16)
    training, held = split_examples(examples, 0.2, seed=0)
    assert (len(training), len(held)) == (13, 3)
    assert sorted(e.key for e in [*training, *held]) == [e.key for e in examples]
    again = split_examples(examples, 0.2, seed=0)[1]
    assert [e.key for e in held] == [e.key for e in again]
    others = [{e.key for e in split_examples(examples, 0.2, seed=s)[1]} for s in range(1, 5)]
    assert any(other != {e.key for e in held} for other in others)


@pytest.mark.parametrize(("count", "share"), [(2, 0.2), (2, 0.9), (16, 0.0)])
def test_nothing_is_held_out_of_too_few_or_on_request(count: int, share: float) -> None:
    training, held = split_examples(bright_discs(count), share, seed=0)
    assert (len(training), held) == (count, [])


@pytest.mark.parametrize("shown", [1, 2, 3])
def test_what_is_held_out_shows_the_object_and_leaves_some_to_learn(shown: int) -> None:
    examples = bright_discs(10)
    some = examples[:shown] + [replace(e, mask=np.zeros_like(e.mask)) for e in examples[shown:]]
    for seed in range(4):
        training, held = split_examples(some, 0.2, seed)
        assert len(held) == min(2, shown - 1)
        assert all(e.mask.any() for e in held)
        assert any(e.mask.any() for e in training)


def scripted(scores: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the held-out Dice be these, one look after the other."""
    left = iter(scores)
    monkeypatch.setattr(HeldOut, "dice", lambda self: next(left))


def test_training_stops_when_held_out_examples_get_no_better(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([0.1, 0.3, 0.5, 0.4, 0.5, 0.4, 0.3, 0.2, 0.9], monkeypatch)
    plan = replace(PLAN, steps=99, held_out=0.25, evaluate_every=1, patience=3)
    method = build_method("ptsam", {}, backbone)
    seen: dict[int, dict[str, Tensor]] = {}
    run = train(method, backbone, discs, plan, Scaling(None))
    while True:
        try:
            step = next(run)
        except StopIteration as end:
            result = end.value
            break
        if step.phase == "train":
            seen[step.step] = method.tensors()
    assert max(seen) == 7
    assert (result.steps, result.held_out_dice) == (4, 0.5)  # the later of two equal ones
    assert equal(but_constant(method.tensors()), but_constant(seen[4]))


def test_a_refit_takes_all_examples_and_as_many_steps_as_were_best(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([0.2, 0.3, 0.8, 0.4], monkeypatch)
    plan = replace(PLAN, held_out=0.25, refit=True)
    method, steps, result = trained(backbone, discs, plan)
    refit = [s for s in steps if s.phase == "refit"]
    assert [s.step for s in refit] == [1, 2, 3, 4]
    assert {s.steps for s in refit} == {4}
    assert (result.steps, result.held_out_dice) == (4, 0.8)
    alone, _, _ = trained(backbone, discs, replace(plan, steps=4, held_out=0.0, refit=False))
    assert equal(method.tensors(), alone.tensors())


# Stopping.


def test_a_stopped_run_leaves_the_best_so_far(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([0.2, 0.3, 0.8, 0.4, 0.9], monkeypatch)
    plan = replace(PLAN, held_out=0.25, evaluate_every=1)
    method = build_method("ptsam", {}, backbone)
    run, seen = train(method, backbone, discs, plan, Scaling(None)), {}
    for step in run:
        if step.phase == "train":
            seen[step.step] = method.tensors()
        if step.step == 3 and step.phase == "train":
            run.close()
    assert len(seen) == 3
    assert equal(method.tensors(), seen[2])


def test_a_run_stopped_before_any_look_leaves_the_last_numbers(
    backbone: Backbone, discs: list[Example]
) -> None:
    method = build_method("ptsam", {}, backbone)
    run = train(method, backbone, discs, PLAN, Scaling(None))
    for step in run:
        if step.phase == "train":
            now = method.tensors()
            run.close()
    assert equal(method.tensors(), now)


@pytest.mark.parametrize("phase", ["embed", "refit"])
def test_a_stopped_refit_leaves_the_best_of_the_phase_before(
    backbone: Backbone, discs: list[Example], phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([0.2, 0.3, 0.8, 0.4], monkeypatch)
    plan = replace(PLAN, held_out=0.25, refit=True)
    method = build_method("ptsam", {}, backbone)
    run, seen = train(method, backbone, discs, plan, Scaling(None)), {}
    for step in run:
        if step.phase == "train":
            seen[step.step] = method.tensors()
        elif len(seen) == 6 and step.phase == phase and (phase == "refit" or step.steps > 3):
            run.close()  # after the looks for the constant, one for each of three
    assert equal(but_constant(method.tensors()), but_constant(seen[4]))


def test_encoding_can_be_stopped_between_a_few_views(
    backbone: Backbone, discs: list[Example]
) -> None:
    plan = replace(PLAN, views_per_image=8, steps=50, held_out=0.25)
    method = build_method("ptsam", {}, backbone)
    run = train(method, backbone, discs, plan, Scaling(None))
    first = next(run)
    assert (first.phase, first.step) == ("embed", 1)
    seen = [first, *(next(run) for _ in range(6))]
    run.close()
    assert all(0 < b.step - a.step <= 4 for a, b in pairwise(seen))
    assert len({s.steps for s in seen}) == 1


# Going on after being killed.


@pytest.fixture
def always_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)


RESUMABLE = replace(PLAN, steps=4, held_out=0.25, refit=True)


@pytest.mark.parametrize("settings", [{}, {"encoder_prompts": 2}])
@pytest.mark.parametrize(("phase", "killed_at"), [("train", 3), ("train", 4), ("refit", 1)])
def test_a_killed_run_goes_on_to_the_same_numbers(
    backbone: Backbone,
    discs: list[Example],
    settings: dict[str, Any],
    phase: str,
    killed_at: int,
    tmp_path: Path,
    always_saving: None,
) -> None:
    whole, steps, result = trained(backbone, discs, RESUMABLE, **settings)
    file = tmp_path / "made" / "run.safetensors"
    method = build_method("ptsam", settings, backbone)
    run = train(method, backbone, discs, RESUMABLE, Scaling(None), file)
    for step in run:
        if (step.phase, step.step) == (phase, killed_at):
            break
    again = build_method("ptsam", settings, backbone)
    rest, result_again = to_end(train(again, backbone, discs, RESUMABLE, Scaling(None), file))
    done = [s for s in steps if s.phase != "embed"]
    went_on = [s for s in rest if s.phase != "embed"]
    assert [(s.phase, s.step, s.loss) for s in went_on] == [
        (s.phase, s.step, s.loss) for s in done[-len(went_on) :]
    ]
    last = next(i for i, s in enumerate(done) if (s.phase, s.step) == (phase, killed_at))
    assert len(went_on) == len(done) - last - 1
    assert equal(whole.tensors(), again.tensors())
    assert result == result_again


def test_a_run_killed_at_its_last_look_does_not_train_on(
    backbone: Backbone,
    discs: list[Example],
    tmp_path: Path,
    always_saving: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted([0.2, 0.5, 0.4, 0.3, 0.9], monkeypatch)
    plan = replace(PLAN, held_out=0.25, evaluate_every=1, patience=2)
    file = tmp_path / "run.safetensors"
    run = train(build_method("ptsam", {}, backbone), backbone, discs, plan, Scaling(None), file)
    for step in run:
        if (step.phase, step.step) == ("train", 3):
            break
    again = build_method("ptsam", {}, backbone)
    rest, result = to_end(train(again, backbone, discs, plan, Scaling(None), file))
    assert {s.phase for s in rest} == {"embed"}
    assert (result.steps, result.held_out_dice) == (1, 0.5)


def test_a_resumed_refit_that_is_stopped_leaves_the_best_of_the_phase_before(
    backbone: Backbone, discs: list[Example], tmp_path: Path, always_saving: None
) -> None:
    file = tmp_path / "run.safetensors"
    best: dict[str, Tensor] = {}
    for _ in range(2):
        method = build_method("ptsam", {}, backbone)
        run = train(method, backbone, discs, RESUMABLE, Scaling(None), file)
        for step in run:
            if step.phase == "refit":
                run.close()
        best = best or method.tensors()
        assert equal(method.tensors(), best)


@pytest.mark.parametrize("other", ["seed", "examples", "backbone", "scaling", "method"])
def test_the_checkpoint_of_another_run_is_refused_before_anything_is_computed(
    backbone: Backbone, discs: list[Example], other: str, tmp_path: Path, always_saving: None
) -> None:
    file = tmp_path / "run.safetensors"
    run = train(build_method("ptsam", {}, backbone), backbone, discs, PLAN, Scaling(None), file)
    next(s for s in run if s.phase == "train")
    run.close()
    before = file.read_bytes()
    second = Backbone(backbone.sam, "second", "another", "embedded")
    again = train(
        build_method("ptsam", {"decoder_prompts": 4} if other == "method" else {}, backbone),
        second if other == "backbone" else backbone,
        discs[:3] if other == "examples" else discs,
        replace(PLAN, seed=1) if other == "seed" else PLAN,
        Scaling(1.0) if other == "scaling" else Scaling(None),
        file,
    )
    with pytest.raises(TrainingError, match=r"run\.safetensors belongs to another run"):
        next(again)
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\xff" * 64])
def test_a_damaged_checkpoint_is_refused(
    backbone: Backbone, discs: list[Example], content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "run.safetensors"
    file.write_bytes(content)
    method = build_method("ptsam", {}, backbone)
    with pytest.raises(TrainingError, match=r"cannot be read.*Delete it"):
        next(train(method, backbone, discs, PLAN, Scaling(None), file))


# Presets.


@pytest.mark.parametrize(("encoder_prompts", "rate"), [(False, 0.05), (True, 0.01)])
def test_the_paper_preset_holds_the_papers_numbers(encoder_prompts: bool, rate: float) -> None:
    plan = training_plan("paper", encoder_prompts=encoder_prompts)
    assert plan.steps == 1000 * 20
    assert plan.batch_size == 2
    assert plan.learning_rate == rate
    assert plan.held_out == 0
    assert plan.views_per_image is None
    assert plan.augmentation == Augmentation.paper()
    assert plan.full_resolution_loss
    assert not plan.start_from_examples
    assert not plan.refit
    weights = inspect.signature(ptsam_loss).parameters
    assert (weights["ce_weight"].default, weights["dice_weight"].default) == (0.2, 0.8)


def test_the_paper_preset_draws_fresh_views_at_each_step_and_keeps_the_last_weights(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []
    view = FreshViews._view

    def noted(self: FreshViews, index: int, rng: np.random.Generator) -> Any:
        drawn.append(view(self, index, rng).image)
        return view(self, index, np.random.default_rng(0))

    monkeypatch.setattr(FreshViews, "_view", noted)
    method = build_method("ptsam", {}, backbone)
    plan = training_plan("paper", encoder_prompts=False, steps=3)
    for step in train(method, backbone, discs, plan, Scaling(None)):
        assert step.phase == "train"
        assert step.held_out_dice is None
        last = method.tensors()
    assert equal(method.tensors(), last)
    assert len(drawn) == 3 * 2
    assert len({image.tobytes() for image in drawn}) == 6


def test_the_learning_rate_falls_to_zero_along_a_cosine(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def noted(self: Any, feed: Any, optimiser: torch.optim.Optimizer, step: int) -> float:
        assert isinstance(optimiser, torch.optim.AdamW)
        rates.append(optimiser.param_groups[0]["lr"])
        assert optimiser.param_groups[0]["weight_decay"] == 0.01
        return 1.0

    monkeypatch.setattr(loop._Run, "_step", noted)
    trained(backbone, discs, training_plan("paper", encoder_prompts=False, steps=100))
    np.testing.assert_allclose(rates[0], 0.05)
    np.testing.assert_allclose(rates[50], 0.025)
    np.testing.assert_allclose(rates, 0.025 * (1 + np.cos(np.pi * np.arange(100) / 100)))


def test_masks_are_compared_at_the_models_size_only_where_the_plan_asks(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []

    def noted(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        sizes.append(tuple(logits.shape))
        return ptsam_loss(logits, target, valid)

    monkeypatch.setattr(loop, "ptsam_loss", noted)
    monkeypatch.setattr(loop, "LOSS_SIZE", 32)
    trained(backbone, discs, replace(PLAN, steps=1))
    trained(backbone, discs, replace(PLAN, steps=1, full_resolution_loss=True))
    assert sizes == [(2, 1, 32, 32), (2, 1, 64, 64)]


@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_our_presets_hold_out_stop_early_and_start_from_the_examples(preset: str) -> None:
    plan = training_plan(preset, encoder_prompts=False, seed=3)
    assert (plan.preset, plan.seed) == (preset, 3)
    assert plan.held_out > 0
    assert plan.start_from_examples
    assert plan.patience * plan.evaluate_every < plan.steps


def test_an_unknown_preset_and_impossible_plans_are_refused() -> None:
    with pytest.raises(InputError, match=r"'fast'.*quick, standard, paper"):
        training_plan("fast", encoder_prompts=False)
    with pytest.raises(InputError, match="at least one step"):
        training_plan("quick", encoder_prompts=False, steps=0)
    with pytest.raises(InputError, match=r"between 0 and 1, not 1\.0"):
        replace(PLAN, held_out=1.0)


# The start that the task encoder makes.


def test_the_task_encoders_prompts_start_a_run_only_where_asked(
    backbone: Backbone, discs: list[Example]
) -> None:
    random = build_method("ptsam", {}, backbone).tensors()
    still = replace(PLAN, steps=1, learning_rate=0.0, weight_decay=0.0)
    plain, _, _ = trained(backbone, discs, replace(still, start_from_examples=False))
    assert equal(plain.tensors(), random)
    started, _, _ = trained(backbone, discs, still)
    assert not equal(started.tensors(), random)
    turned, _, _ = trained(backbone, [replace(e, mask=~e.mask) for e in discs], still)
    assert not equal(started.tensors(), turned.tensors())


def test_the_start_is_what_the_task_encoder_says_of_the_training_examples(
    backbone: Backbone, discs: list[Example]
) -> None:
    still = replace(PLAN, steps=1, learning_rate=0.0, weight_decay=0.0, held_out=0.25)
    method, _, result = trained(backbone, discs, still)
    used = [e for e in discs if e.key not in result.held_out]
    assert len(used) == 3
    images = torch.stack([torch.from_numpy(e.image).permute(2, 0, 1) for e in used])
    masks = torch.stack([torch.from_numpy(e.mask)[None] for e in used]).float()
    encoder = backbone.task_encoder
    assert encoder is not None
    with torch.inference_mode():
        encoded = backbone.encode(backbone.normalise_input(images, [(64, 64)] * 3))
        embedding = tuple(level.half().float() for level in encoded)
        statistics = encoder.statistics(embedding, masks, torch.ones_like(masks))
        prompts = encoder(statistics.over(torch.ones(1, 3)))[0]
    told = but_constant({"decoder_prompts": prompts})["decoder_prompts"]
    found = but_constant(method.tensors())["decoder_prompts"]
    torch.testing.assert_close(found, told, rtol=1e-3, atol=1e-3)


def mean_dice(method: Method, backbone: Backbone, examples: Sequence[Example]) -> float:
    scores = []
    for shown in examples:
        probability = predict_plane(method, backbone, shown.image, Scaling(None))
        scores.append(dice(probability >= 0.5, shown.mask))
    return float(np.mean(scores))


@pytest.mark.parametrize("moved", [-1.5, 0.0, 1.5])
def test_the_constant_is_the_one_with_the_best_dice_before_training_and_after(
    backbone: Backbone, discs: list[Example], moved: float
) -> None:
    still = replace(PLAN, steps=2, learning_rate=0.0, weight_decay=0.0)
    method = build_method("ptsam", {}, backbone)
    for step in train(method, backbone, discs, still, Scaling(None)):
        if (step.phase, step.step) == ("train", 2):
            started = mean_dice(method, backbone, discs)
            method.raise_logits(moved)
            disturbed = mean_dice(method, backbone, discs)
    ended = mean_dice(method, backbone, discs)
    assert ended >= started > 0.8
    assert (disturbed < ended - 0.05) == (moved != 0)
    for by in (-0.5, 0.5):
        method.raise_logits(by)
        assert mean_dice(method, backbone, discs) <= ended
        method.raise_logits(-by)


def test_of_constants_that_are_equally_good_the_middle_one_is_taken(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (RAISES > -0.6) & (RAISES < 1.6)
    monkeypatch.setattr(
        TaskStart, "_dice_by_raise", lambda *_: list(np.where(good, 0.9, 0.5 + 0.1 * RAISES))
    )
    method = build_method("ptsam", {}, backbone)
    before = float(method.tensors()["decoder_prompts"][1, -1])
    list(TaskStart(replace(job(backbone, PLAN), method=method), discs).raise_logits())
    added = (float(method.tensors()["decoder_prompts"][1, -1]) - before) * READOUT_GAIN
    assert added == pytest.approx(0.5)


def test_the_start_is_kept_where_no_step_is_better(
    backbone: Backbone, discs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([0.9, 0.8, 0.7, 0.6], monkeypatch)
    method, steps, result = trained(backbone, discs, replace(PLAN, held_out=0.25, refit=True))
    assert (result.steps, result.held_out_dice) == (0, 0.9)
    assert np.isfinite(result.final_loss)
    assert not [s for s in steps if s.phase == "refit"]
    # Made anew of all examples, the one that was held out among them.
    still = replace(PLAN, steps=1, learning_rate=0.0, weight_decay=0.0)
    of_all, _, _ = trained(backbone, discs, still)
    assert equal(method.tensors(), of_all.tensors())
    assert len(result.learned_from) == len(discs)


def test_steps_after_a_start_made_of_examples_are_smaller(
    backbone: Backbone, tiny_backbone: Path, discs: list[Example]
) -> None:
    plan = replace(PLAN, steps=1, weight_decay=0.0)
    bare = load_backbone(tiny_backbone)
    del bare.sam.task_encoder
    still = replace(plan, learning_rate=0.0)
    moved = []
    for frozen in (backbone, bare):
        before, after = (
            but_constant(trained(frozen, discs, p)[0].tensors())["decoder_prompts"]
            for p in (still, plan)
        )
        moved.append(float((after - before).abs().median()))
    # The first step of AdamW is as long as the rate.
    assert moved == pytest.approx([STARTED_RATE * 0.05, 0.05], rel=0.02)


def test_a_single_prompt_has_no_constant_to_choose(
    backbone: Backbone, discs: list[Example]
) -> None:
    method, steps, _ = trained(backbone, discs, PLAN, decoder_prompts=1)
    assert not method.raises_logits
    assert steps[-1].phase == "train"
    assert method.tensors()["decoder_prompts"].shape == (1, 256)


def test_a_backbone_without_task_encoder_starts_at_random(
    tiny_backbone: Path, discs: list[Example]
) -> None:
    bare = load_backbone(tiny_backbone)
    del bare.sam.task_encoder
    still = replace(PLAN, steps=1, learning_rate=0.0, weight_decay=0.0)
    method, _, _ = trained(bare, discs, still)
    assert equal(method.tensors(), build_method("ptsam", {}, bare).tensors())
    assert TaskStart(job(bare, PLAN), discs).count == 0


def test_a_method_of_encoder_prompts_alone_starts_at_random(
    backbone: Backbone, discs: list[Example]
) -> None:
    still = replace(PLAN, steps=1, learning_rate=0.0, weight_decay=0.0)
    settings = {"decoder_prompts": 0, "encoder_prompts": 2}
    method, _, _ = trained(backbone, discs, still, **settings)
    assert equal(method.tensors(), build_method("ptsam", settings, backbone).tensors())
