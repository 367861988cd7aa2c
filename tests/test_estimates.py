"""What a training will cost is told before it starts, from a short timing."""

from __future__ import annotations

import mmap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scenes import bright_discs, disc, example

from napari_ptsam import estimates
from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.estimates import Speed, Speeds, estimate_training
from napari_ptsam.methods import build_method
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.loop import train
from napari_ptsam.training.presets import TrainingPlan, training_plan
from napari_ptsam.training.scale import FOLDS, search_scaling
from napari_ptsam.training.steps import RunContext

NOTHING = Speed(0, 0, 0, 0, weights=0, kept=1, working=0, task_encoder=True, learned=0)
PLAN = TrainingPlan(
    "test", steps=60, learning_rate=0.05, views_per_image=2, held_out=0.25, evaluate_every=20
)


@pytest.fixture
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(tiny_backbone)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many views were encoded and decoded."""
    count = {"encode": 0, "decode": 0}
    originals = {name: getattr(Backbone, name) for name in count}

    def counted(name: str) -> Any:
        def call(self: Backbone, images: Any, *args: Any) -> Any:
            count[name] += len(images if name == "encode" else images[0])
            return originals[name](self, images, *args)

        return call

    for name in count:
        monkeypatch.setattr(Backbone, name, counted(name))
    return count


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("settings", [{}, {"encoder_prompts": 2}])
def test_as_many_encodings_are_estimated_as_a_training_does(
    backbone: Backbone, calls: dict[str, int], refit: bool, settings: dict[str, int]
) -> None:
    plan = replace(PLAN, refit=refit, patience=99, start_from_examples=not settings)
    plan = replace(plan, steps=20 if settings else 60)
    method = build_method("ptsam", settings, backbone)
    context = RunContext(embeddings=Embeddings())
    steps = []
    run = train(method, backbone, bright_discs(8), plan, Scaling(None), None, context)
    for step in run:
        steps.append((step.phase, step.step))
    trained = [s for s in steps if s[0] == "train"]
    again = [s for s in steps if s[0] == "refit"]
    assert len(trained) == plan.steps
    if settings:
        speed = replace(NOTHING, step=1, encode=1, kept=0, task_encoder=False)
    else:
        speed = replace(NOTHING, encode=1)
    # A refit may be shorter; it is estimated at its longest.
    shorter = (len(trained) - len(again)) * plan.batch_size if refit and settings else 0
    estimated = estimate_training(speed, plan, 8).seconds
    # Drawn at random, an image's every view need not be among those of a short run.
    assert calls["encode"] + shorter == pytest.approx(estimated, abs=2)


def test_known_images_are_not_encoded_again() -> None:
    speed = replace(NOTHING, encode=1)
    fresh, half, known = (estimate_training(speed, PLAN, 8, known=k).seconds for k in (0, 4, 8))
    assert fresh == 2 * half > 0
    assert known == 0


def test_a_search_for_the_scale_is_estimated_as_it_comes_out(calls: dict[str, int]) -> None:
    backbone = load_backbone("embedded", device="cpu")
    mask = disc((256, 256), (60, 80), 12)
    blobs = [example(150.0 * mask + 30 + number, mask, str(number)) for number in range(FOLDS)]
    for _ in search_scaling(backbone, blobs, Scaling(1.0)):
        pass
    speed = replace(NOTHING, encode=1)
    plan = replace(PLAN, search_scale=True)
    plain, sought = (estimate_training(speed, plan, FOLDS, search=s).seconds for s in (False, True))
    assert sought - plain == calls["encode"]
    assert estimate_training(speed, PLAN, FOLDS, search=True).seconds == plain
    few = (estimate_training(speed, plan, FOLDS - 1, search=s).seconds for s in (False, True))
    assert next(few) == next(few)


def test_tiles_make_planes_dearer_and_encoder_prompts_every_step() -> None:
    speed = replace(NOTHING, decode=1)
    one, four = (estimate_training(speed, PLAN, 8, tiles=t).seconds for t in (1, 4))
    assert four == 4 * one == 4 * 2 * 3
    through = replace(NOTHING, step=1, view=1, kept=0)
    assert estimate_training(through, PLAN, 8).seconds == 60 * 2 * 2


def test_memory_is_weights_work_and_what_is_kept() -> None:
    speed = replace(NOTHING, weights=1000, working=100, kept=10)
    plan = training_plan("quick", encoder_prompts=False)
    assert estimate_training(speed, plan, 16).memory == 1000 + 2 * 100 + 13 * 4 * 10
    assert estimate_training(speed, plan, 16, tiles=9).memory == 1000 + 4 * 100 + 13 * 4 * 10
    assert estimate_training(replace(speed, working=None), plan, 16).memory is None


@pytest.mark.parametrize("images", [1, 2, 3])
def test_few_images_have_an_estimate_too(images: int) -> None:
    speed = replace(NOTHING, step=1)
    plan = training_plan("paper", encoder_prompts=False, steps=10)
    assert estimate_training(speed, plan, images).seconds == 20
    assert estimate_training(speed, PLAN, images).seconds == 120


def test_a_backbone_is_measured_once_for_each_way_of_training(
    backbone: Backbone, calls: dict[str, int]
) -> None:
    speeds = Speeds()
    assert speeds.known(backbone) is None
    speed = speeds.of(backbone)
    assert 0 < calls["encode"] <= 5
    assert min(speed.view, speed.encode, speed.decode, speed.step) > 0
    assert speed.weights == sum(p.numel() * 4 for p in backbone.sam.parameters())
    assert speed.task_encoder
    assert speed.learned == 8 * backbone.decoder_width
    calls.update(encode=0, decode=0)
    assert speeds.of(backbone) is speed is speeds.known(backbone)
    assert calls == {"encode": 0, "decode": 0}
    through = speeds.of(backbone, "ptsam", {"encoder_prompts": 8})
    assert through.kept == 0 < speed.kept
    assert calls["encode"] > 0


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lora", {}),
        ("lora", {"encoder": True}),
        ("autosam", {}),
        ("samed", {"rank": 2}),
        ("ssam", {"text_encoder": "learned"}),
        ("decoder", {}),
    ],
)
def test_other_methods_are_measured_too(
    backbone: Backbone, method: str, settings: dict[str, Any]
) -> None:
    speed = Speeds().of(backbone, method, settings)
    built = build_method(method, settings, backbone)
    assert speed.learned == built.trainable_parameters > 0
    assert bool(speed.kept) is built.works_on_embeddings
    assert not speed.task_encoder
    assert estimate_training(speed, PLAN, 8).seconds > 0


def test_the_memory_of_a_large_array_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    with estimates._peak_memory(torch.device("cpu")) as peak:
        # Fresh from the system: an allocator may hand out memory that it held before.
        array = np.frombuffer(mmap.mmap(-1, 50_000_000), np.uint8)
        array[:] = 1
        time.sleep(0.05)
        assert 45e6 < peak() < 80e6
    monkeypatch.setattr(estimates, "_process_memory", lambda: None)
    with estimates._peak_memory(torch.device("cpu")) as peak:
        assert peak() is None
