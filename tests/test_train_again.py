"""A training that is stopped gives the best so far; one that goes on reuses what there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_tiny_backbone
from numpy.typing import NDArray
from scenes import bright_discs

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.errors import InputError, TrainingError
from napari_ptsam.specialist import Specialist, TrainStep
from napari_ptsam.training.heldout import HeldOut, split_examples
from napari_ptsam.training.presets import CONTINUED_RATE, training_plan

QUICK: dict[str, Any] = {"preset": "quick", "steps": 20, "device": "cpu", "scale": "fit"}
Stack = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(tiny_backbone)


@pytest.fixture(scope="module")
def stack() -> Stack:
    examples = bright_discs(8)
    images = np.stack([e.image[..., 0] for e in examples]).astype(np.uint8)
    return images, np.stack([e.mask for e in examples]).astype(np.uint8)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the encoder took."""
    calls: list[int] = []
    encode = Backbone.encode

    def counted(self: Backbone, images: torch.Tensor, prompts: Any = None) -> Any:
        calls.append(len(images))
        return encode(self, images, prompts)

    monkeypatch.setattr(Backbone, "encode", counted)
    return calls


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(v, second[k]) for k, v in first.items()
    )


def run(
    stack: Stack, stop: Callable[[TrainStep], bool] = lambda _: False, **options: Any
) -> tuple[list[TrainStep], Specialist]:
    """A training that is told to stop after the first step for which `stop` is true."""
    seen: list[TrainStep] = []
    steps = Specialist.train_steps(
        *stack, should_stop=lambda: bool(seen) and stop(seen[-1]), **{**QUICK, **options}
    )
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def scripted(scores: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(scores)
    monkeypatch.setattr(HeldOut, "dice", lambda self: next(left))


# Stopped.


def test_a_stopped_training_gives_the_best_specialist_so_far(
    stack: Stack, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([0.2, 0.8, 0.4], monkeypatch)
    numbers: dict[int, Any] = {}
    seen, specialist = [], None
    steps = Specialist.train_steps(
        *stack, backbone=backbone, should_stop=lambda: 17 in numbers, **QUICK
    )
    while specialist is None:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            specialist = end.value
            break
        if seen[-1].phase == "train":
            frame = steps.gi_frame.f_locals["specialist"]
            numbers[seen[-1].step] = frame.method.tensors()
    assert seen[-1].step == 17
    assert equal(specialist.method.tensors(), numbers[15])
    record = specialist.metadata.training
    assert (record["stopped"], record["steps"], record["held_out_dice"]) == (True, 15, 0.8)


def test_the_numbers_of_the_moment_are_scored_before_a_stopped_training_ends(
    stack: Stack, backbone: Backbone
) -> None:
    seen, specialist = run(stack, lambda s: s.phase == "train" and s.step == 4, backbone=backbone)
    assert seen[-1].step == 4
    record = specialist.metadata.training
    assert record["steps"] == 4
    assert 0 <= record["held_out_dice"] <= 1
    assert len(record["held_out"]) == 2


def test_a_training_that_was_not_stopped_says_so_and_equals_one_that_could_not_be(
    stack: Stack, backbone: Backbone
) -> None:
    _, specialist = run(stack, backbone=backbone)
    plain = Specialist.train(*stack, backbone=backbone, **QUICK)
    assert specialist.metadata.training["stopped"] is False
    assert equal(specialist.method.tensors(), plain.method.tensors())


def test_a_training_stopped_while_images_are_encoded_has_nothing_to_give(
    stack: Stack, backbone: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="stopped before its first step"):
        run(stack, lambda s: s.phase == "embed" and s.step == 5, backbone=backbone)


@pytest.mark.parametrize("phase", ["embed", "refit"])
def test_a_training_stopped_in_its_refit_gives_the_best_before_it(
    stack: Stack, backbone: Backbone, phase: str
) -> None:
    trained: list[bool] = []

    def stop(step: TrainStep) -> bool:
        trained.append(step.phase == "train")
        # Not at the looks for the constant, one for each of the six that were learned from.
        return any(trained) and step.phase == phase and (phase == "refit" or step.steps > 6)

    standard = {"backbone": backbone, "preset": "standard", "steps": 6}
    _, specialist = run(stack, stop, **standard)
    _, whole = run(stack, **standard)
    assert specialist.metadata.training["stopped"]
    assert equal(specialist.method.tensors(), whole.continuation.tensors)
    assert not equal(specialist.method.tensors(), whole.method.tensors())
    held = specialist.metadata.training["held_out"]
    assert len(specialist.metadata.training["learned_from"]) == len(stack[0]) - len(held)
    assert len(whole.metadata.training["learned_from"]) == len(stack[0])


def test_a_preview_is_offered_once_the_examples_were_looked_at(
    stack: Stack, backbone: Backbone
) -> None:
    seen, _ = run(stack, backbone=backbone)
    ready = [s.preview is not None for s in seen]
    looks = 2 * 6  # for the closed form, and for its constant
    assert ready == [False] * looks + [True] * (len(seen) - looks)
    assert seen[looks].phase == "embed"


# Embeddings are kept.


def test_training_on_kept_embeddings_gives_the_same_numbers(
    stack: Stack, backbone: Backbone, encoded: list[int]
) -> None:
    memory = Embeddings()
    _, plain = run(stack, backbone=backbone)
    assert sum(encoded) > 20
    encoded.clear()
    _, first = run(stack, backbone=backbone, embeddings=memory)
    assert sum(encoded) > 20
    encoded.clear()
    _, second = run(stack, backbone=backbone, embeddings=memory)
    assert encoded == []
    assert equal(first.method.tensors(), second.method.tensors())
    assert equal(first.method.tensors(), plain.method.tensors())


def test_training_again_encodes_new_planes_alone(
    stack: Stack, backbone: Backbone, encoded: list[int]
) -> None:
    memory = Embeddings()
    options = {"backbone": backbone, "embeddings": memory, "preset": "standard", "steps": 60}
    images, masks = stack
    # Painted in any order: the later ones lie before the earlier ones in the stack.
    before = np.where(np.arange(8)[:, None, None] >= 2, masks, 0)
    _, first = run((images, before), **options)
    encoded.clear()
    corrected = masks.copy()
    corrected[:2] = 0
    corrected[4] = np.roll(corrected[4], 1, axis=0)
    _, again = run((images, corrected), start_from=first, **options)
    assert encoded == []
    assert not equal(first.method.tensors(), again.method.tensors())
    _, more = run(stack, start_from=again, **options)
    # Two new planes of eight views each, and each once as it is where it is held out.
    assert 0 < sum(encoded) <= 2 * (8 + 1)
    assert more.metadata.training["images"] == 8


def test_the_plane_in_view_is_encoded_once_for_all_its_previews(
    stack: Stack, backbone: Backbone, encoded: list[int]
) -> None:
    memory = Embeddings()
    steps = Specialist.train_steps(*stack, backbone=backbone, embeddings=memory, **QUICK)
    in_view = stack[0][0][::-1]
    shown = []
    for step in steps:
        if step.phase == "train":
            encoded.clear()
            shown.append(step.preview(in_view).probability)
            assert sum(encoded) == (1 if len(shown) == 1 else 0)
    assert not np.array_equal(shown[0], shown[-1])


# Going on from a specialist.


def test_training_again_starts_at_the_numbers_learned_and_at_a_lower_rate(
    stack: Stack, backbone: Backbone
) -> None:
    _, first = run(stack, backbone=backbone)
    steps = Specialist.train_steps(*stack, start_from=first, **QUICK)
    assert next(steps).preview is not None
    start = steps.gi_frame.f_locals["specialist"].method.tensors()
    assert equal(start, first.method.tensors())
    plan = steps.gi_frame.f_locals["plan"]
    fresh = training_plan("quick", encoder_prompts=False)
    assert plan.learning_rate == fresh.learning_rate * CONTINUED_RATE
    steps.close()


def test_the_record_names_the_file_that_training_went_on_from(
    stack: Stack, backbone: Backbone, tmp_path: Path
) -> None:
    _, first = run(stack, backbone=backbone)
    assert first.metadata.training["started_from"] is None
    first.save(tmp_path / "discs")
    loaded = Specialist.load(tmp_path / "discs.ptsam.safetensors", backbone=backbone)
    _, again = run(stack, start_from=loaded)
    origin = again.metadata.training["started_from"]
    assert origin["file"] == "discs.ptsam.safetensors"
    assert origin["data_hash"] == first.metadata.training["data_hash"]
    kept = Specialist.load(again.save(tmp_path / "again"), backbone=backbone)
    assert kept.metadata.training["started_from"] == origin


def test_images_that_were_learned_from_are_never_held_out_again(
    stack: Stack, backbone: Backbone, tmp_path: Path
) -> None:
    images, masks = stack
    _, first = run((images[:5], masks[:5]), backbone=backbone)
    _, again = run(stack, start_from=first)
    held = {int(key) for key in again.metadata.training["held_out"]}
    before = {int(key) for key in first.metadata.training["held_out"]}
    assert held <= before | {5, 6, 7}
    assert held
    # Refitted on all, and read from a file: no image is left that it does not know.
    _, refitted = run(stack, backbone=backbone, preset="standard", steps=6)
    loaded = Specialist.load(refitted.save(tmp_path / "a"), backbone=backbone)
    _, known = run(stack, start_from=loaded)
    assert known.metadata.training["held_out"] == []
    assert known.metadata.training["held_out_dice"] is None
    # Fresh from training the numbers before the refit are there to go on from.
    _, fresh = run(stack, start_from=refitted)
    assert set(fresh.metadata.training["held_out"]) <= set(refitted.metadata.training["held_out"])
    assert fresh.metadata.training["held_out"]


def test_a_split_without_unseen_images_holds_out_none() -> None:
    examples = bright_discs(6)
    seen = frozenset(e.image_digest for e in examples)
    assert split_examples(examples, 0.2, 0, seen)[1] == []
    some = seen - {examples[2].image_digest}
    assert [e.key for e in split_examples(examples, 0.2, 0, some)[1]] == ["02"]


def test_a_start_that_is_best_stays(
    stack: Stack, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = run(stack, backbone=backbone)
    scripted([0.9, 0.5, 0.4], monkeypatch)
    _, again = run(stack, start_from=first, preset="standard", steps=50)
    assert equal(again.method.tensors(), first.method.tensors())
    record = again.metadata.training
    assert (record["steps"], record["held_out_dice"]) == (0, 0.9)


def test_the_checkpoint_of_another_start_is_refused(
    stack: Stack, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ptsam.training import loop

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    _, first = run(stack, backbone=backbone)
    file = tmp_path / "run.safetensors"
    steps = Specialist.train_steps(*stack, start_from=first, checkpoint=file, **QUICK)
    next(s for s in steps if s.phase == "train")
    steps.close()
    assert file.exists()
    _, other = run(stack, backbone=backbone, seed=3)
    with pytest.raises(TrainingError, match="belongs to another run"):
        run(stack, start_from=other, checkpoint=file)
    run(stack, start_from=first, checkpoint=file)


def test_going_on_with_another_backbone_or_new_encoder_prompts_is_refused(
    stack: Stack, backbone: Backbone, tmp_path: Path
) -> None:
    _, first = run(stack, backbone=backbone, steps=1)
    other = load_backbone(write_tiny_backbone(tmp_path / "stranger.safetensors", seed=5))
    with pytest.raises(InputError, match=r"backbone 'tiny'.*'stranger'"):
        run(stack, start_from=first, backbone=other)
    with pytest.raises(InputError, match="'vit_b'"):
        run(stack, start_from=first, backbone="vit_b")
    with pytest.raises(InputError, match="no encoder prompts"):
        run(stack, start_from=first, encoder_prompts=True)


def test_encoder_prompts_are_trained_on_as_well(stack: Stack, backbone: Backbone) -> None:
    _, first = run(stack, backbone=backbone, encoder_prompts=True, steps=2)
    _, again = run(stack, start_from=first, steps=2)
    assert again.method.settings_dict == first.method.settings_dict
    assert not equal(again.method.tensors(), first.method.tensors())
