"""Image encoder, ours against SAM's own: ``python -m benchmarks.encoder_speed``.

ViT-B's shapes at 1024x1024 with random weights, in one process, taking turns, so
that both meet the same machine in the same state. The figure is the fastest run
of each; the relative difference is to `segment_anything` in float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.backbones._sam import ImageEncoderViT
from napari_ptsam.backbones.architecture import ARCHITECTURES, build_sam
from napari_ptsam.backbones.attention import encode_vit

PROMPTS = 8
REFERENCE = "segment_anything fp32"
EXACT, HALF, PROMPTED = "ours fp32", "ours bf16", f"ours fp32, {PROMPTS} prompts a block"
REQUIRED = {EXACT: 2.0, HALF: 3.0}
"""Times faster than the reference on two cores; either is enough. First milestone."""

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Timing:
    """Seconds of each run, and the distance of the embedding from the reference's."""

    seconds: list[float]
    difference: float

    @property
    def fastest(self) -> float:
        """Seconds of the fastest run."""
        return min(self.seconds)


def random_encoder(architecture: str, device: torch.device) -> ImageEncoderViT:
    """An encoder whose weights are all random, relative positions included."""
    torch.manual_seed(0)
    encoder = build_sam(ARCHITECTURES[architecture]).image_encoder.requires_grad_(False)
    for name, weights in encoder.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            weights.normal_(std=0.1)
    return encoder.to(device)


def contenders(encoder: ImageEncoderViT, device: torch.device) -> dict[str, Encode]:
    """What is compared, by name; the reference first."""
    width = encoder.pos_embed.shape[-1]
    prompts = torch.randn(len(encoder.blocks), PROMPTS, width, device=device)

    def in_half(encode: Encode) -> Encode:
        def run(images: Tensor) -> Tensor:
            with torch.autocast(device.type, dtype=torch.bfloat16):
                return encode(images)

        return run

    def ours(images: Tensor) -> Tensor:
        return encode_vit(encoder, images)

    return {
        REFERENCE: encoder,
        EXACT: ours,
        "segment_anything bf16": in_half(encoder),
        HALF: in_half(ours),
        PROMPTED: lambda images: encode_vit(encoder, images, prompts),
    }


@torch.no_grad()
def measure(encoder: ImageEncoderViT, repeats: int, device: torch.device) -> dict[str, Timing]:
    """Run all contenders in turn, `repeats` times after a first turn that does not count."""
    images = torch.randn(1, 3, encoder.img_size, encoder.img_size, device=device)
    names = contenders(encoder, device)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, Tensor] = {}
    for turn in range(repeats + 1):
        for name, encode in names.items():
            begin = time.perf_counter()
            results[name] = encode(images).float().cpu()
            if turn > 0:
                seconds[name].append(time.perf_counter() - begin)
    reference = results[REFERENCE]
    return {
        name: Timing(seconds[name], ((results[name] - reference).norm() / reference.norm()).item())
        for name in names
    }


def report(timings: dict[str, Timing]) -> dict[str, Any]:
    """Print the table; returns the same figures."""
    slowest = timings[REFERENCE].fastest
    print(f"{'':30} {'seconds':>9} {'times faster':>13} {'difference':>11}")
    figures: dict[str, Any] = {}
    for name, timing in timings.items():
        faster = slowest / timing.fastest
        print(f"{name:30} {timing.fastest:9.3f} {faster:13.2f} {timing.difference:11.1e}")
        figures[name] = {
            "seconds": timing.fastest,
            "all_seconds": timing.seconds,
            "times_faster": faster,
            "relative_difference": timing.difference,
        }
    return figures


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="vit_b", choices=ARCHITECTURES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--json", type=Path, default=RESULTS / "encoder_speed.json")
    args = parser.parse_args()
    about = circumstances()
    threads = torch.get_num_threads()
    encoder = random_encoder(args.architecture, args.device)
    machine = about["machine"]
    print(f"{args.architecture} at {encoder.img_size} px on {args.device}, {threads} threads")
    print(f"{machine['processor']}, {machine['cores']} cores, torch {torch.__version__}")
    timings = measure(encoder, args.repeats, args.device)
    figures = report(timings)
    met = any(figures[name]["times_faster"] >= times for name, times in REQUIRED.items())
    print("required:", ", or ".join(f"{n} {t:g} times" for n, t in REQUIRED.items()), end=": ")
    print("met" if met else "NOT met")
    write_json(
        args.json,
        {
            **about,
            "architecture": args.architecture,
            "device": str(args.device),
            "threads": threads,
            "encoders": figures,
            "required_times_faster": REQUIRED,
            "met": met,
        },
    )


if __name__ == "__main__":
    main()
