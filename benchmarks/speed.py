"""Speed on ready embeddings: ``python -m benchmarks.speed``.

Decoder prompts at batch 2 on 256-pixel views, and segmentation of 256x256
planes, each with the real training loop and the real prediction. What the
images show does not matter to speed, so they are made up.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.examples import Example
from napari_ptsam.methods import build_method
from napari_ptsam.predict import decode_plane, embed_plane
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.loop import train
from napari_ptsam.training.presets import training_plan

SIDE = 256
WARM_UP = 5
LARGE_SIDE = 512
"""Side of a plane that the embedded encoder takes in one piece."""

REQUIRED = {"training_steps_per_second": 10.0, "decoded_planes_per_second": 20.0}
"""On two cores, from the project's first milestone."""


def made_up_examples(count: int) -> list[Example]:
    """Bright blobs in noise, 256x256."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(count):
        field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 8)
        mask = field > np.percentile(field, 80)
        grey = np.clip(60 + 90 * mask + rng.normal(0, 15, mask.shape), 0, 255)
        image = np.repeat(grey[..., None], 3, 2).astype(np.float32)
        examples.append(Example(str(i), image, mask, np.ones_like(mask), None))
    return examples


def training_speed(backbone: Backbone, examples: list[Example], steps: int) -> float:
    """Steps per second once all views are encoded, without held-out looks."""
    plan = training_plan("standard", encoder_prompts=False, steps=steps + WARM_UP)
    plan = replace(plan, held_out=0.0, refit=False, views_per_image=2)
    method = build_method("ptsam", {}, backbone, 0)
    moments = [
        step.seconds
        for step in train(method, backbone, examples, plan, Scaling(1.0))
        if step.phase == "train"
    ]
    return steps / (moments[-1] - moments[-1 - steps])


def prediction_speed(
    backbone: Backbone, examples: list[Example], planes: int
) -> tuple[float, float]:
    """Planes per second: decoding a ready embedding to a mask, and encoding a plane."""
    method = build_method("ptsam", {}, backbone, 0).eval()
    embedded = [embed_plane(method, backbone, e.image, Scaling(1.0)) for e in examples]
    for plane in embedded[:WARM_UP]:
        decode_plane(method, backbone, plane)
    started = time.perf_counter()
    for i in range(planes):
        _ = decode_plane(method, backbone, embedded[i % len(embedded)]) >= 0.5
    decoded = time.perf_counter()
    for i in range(planes):
        embed_plane(method, backbone, examples[i % len(examples)].image, Scaling(1.0))
    encoded = time.perf_counter()
    return planes / (decoded - started), planes / (encoded - decoded)


def encoder_seconds(backbone: Backbone, repeats: int = 10) -> float:
    """Median seconds of the encoder on one input of 512x512 pixels."""
    image = torch.rand(1, 3, LARGE_SIDE, LARGE_SIDE)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            backbone.encode(image)
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def main() -> None:
    """Measure, print, compare with what is required, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="embedded", help="name or file (%(default)s)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--planes", type=int, default=60)
    options = parser.parse_args()
    backbone, examples = load_backbone(options.backbone), made_up_examples(8)
    decoding, encoding = prediction_speed(backbone, examples, options.planes)
    found = {
        "training_steps_per_second": training_speed(backbone, examples, options.steps),
        "decoded_planes_per_second": decoding,
        "encoded_planes_per_second": encoding,
    }
    if backbone.architecture == "embedded":
        found["encoder_seconds_at_512"] = encoder_seconds(backbone)
    for name, value in found.items():
        required = f"  (at least {REQUIRED[name]:g} required)" if name in REQUIRED else ""
        print(f"{name:<28}{value:8.2f}{required}")
    setting = {"threads": torch.get_num_threads(), "backbone": options.backbone}
    write_json(
        RESULTS / "speed.json", found | {"setting": setting, "circumstances": circumstances()}
    )


if __name__ == "__main__":
    main()
