"""Makes the pictures of procedural scenes: ``python docs/make_gallery.py``, in about a minute.

Writes one contact sheet per group to ``docs/images/synthetic-*.jpg``: a row per family, with
three types of it, each as the image and what its pixels are; and one sheet of stacks.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_ptsam.synthetic import KINDS, STACKS, Family, Scene, stack

IMAGES = Path(__file__).parent / "images"
LIMIT = 1_500_000
"""Bytes that all sheets together may have."""

GROUPS = {
    "light": ("fluorescence", "transmitted", "stained", "phase"),
    "electron": ("electron", "neuropil"),
    "matter": ("particles", "materials", "generic"),
    "body": ("tissue", "lumen", "organs"),
    "unseen": ("unseen",),
}
"""Modules of `napari_ptsam.synthetic` on each sheet."""

SIDE, TILE, STRIP, TYPES = 300, 132, 15, 3
"""Pixels of a scene, of its picture on the sheet, of a caption; types of each family."""

STACK_SIZE, SHOWN = (16, 192, 192), (6, 7, 14)
"""Size of a stack, and the planes of it that are shown."""

Picture = NDArray[np.uint8]


_INKS = (
    "000000 4c8dff 3a9e3a ff5fa2 ffb000 00c8c8 e8e337 7dff7a ff7f2a c04cff d9c36a "
    "8f6cff 6fd3ff ff8f8f 6b7fb0 a8e05f b5651d ffffff 9a9a9a b48ead ff4040"
)
COLOURS = np.frombuffer(bytes.fromhex(_INKS), np.uint8).reshape(-1, 3)
"""One for each of `KINDS`."""


def _tile(pixels: Picture, smooth: bool) -> Image.Image:
    way = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return Image.fromarray(pixels).resize((TILE, TILE), way)


def legible(family: Family) -> list[Scene]:
    """A scene of each of the first types whose contrast shows at the size of a tile."""
    scenes: list[Scene] = []
    for seed in range(60):
        style = family.style(np.random.default_rng([seed, 1]))
        scene = family.render(style, np.random.default_rng([seed, 2]), (SIDE, SIDE))
        low, high = np.percentile(scene.image, [3, 97])
        if high - low > 55 and len(np.unique(scene.kinds)) > 2:
            scenes.append(scene)
        if len(scenes) == TYPES:
            break
    return scenes


def _row(name: str, kinds: list[str], pairs: list[tuple[Image.Image, Image.Image]]) -> Picture:
    """A caption, with the kinds in their colours, over pairs of pictures."""
    row = Image.new("RGB", (2 * TYPES * TILE, STRIP + TILE), (24, 24, 24))
    draw = ImageDraw.Draw(row)
    draw.text((3, 2), name, fill=(255, 255, 255))
    x = 10 + draw.textlength(name)
    for kind in kinds:
        draw.text((x, 2), kind, fill=tuple(COLOURS[KINDS.index(kind)].tolist()))
        x += 8 + draw.textlength(kind)
    for i, (image, mask) in enumerate(pairs):
        row.paste(image, (2 * i * TILE, STRIP))
        row.paste(mask, ((2 * i + 1) * TILE, STRIP))
    return np.asarray(row)


def family_row(family: Family) -> Picture:
    """One family: three types, image and kinds."""
    scenes = legible(family)
    shown = np.unique(np.concatenate([np.unique(scene.kinds) for scene in scenes]))
    pairs = [(_tile(s.image, True), _tile(COLOURS[s.kinds], False)) for s in scenes]
    return _row(family.name, [KINDS[k] for k in shown if k > 0], pairs)


def stack_row(name: str) -> Picture:
    """One sort of stacks: two neighbouring planes and a distant one, image and instances."""
    made = stack(name, 3, STACK_SIZE)
    inks = np.random.default_rng(1).integers(60, 256, (int(made.instances.max()) + 1, 3))
    inks[0] = 0
    pairs = [
        (_tile(made.image[z], True), _tile(inks.astype(np.uint8)[made.instances[z]], False))
        for z in SHOWN
    ]
    return _row(f"{name}: planes {', '.join(map(str, SHOWN))}", [], pairs)


def save(name: str, rows: list[Picture]) -> int:
    """Write one sheet; returns its bytes."""
    path = IMAGES / f"synthetic-{name}.jpg"
    Image.fromarray(np.concatenate(rows)).save(path, quality=74, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return path.stat().st_size


def main() -> None:
    """Write all sheets.

    Raises
    ------
    ValueError
        If they are larger than they should be.
    """
    total = save("stacks", [stack_row(name) for name in STACKS])
    for name, modules in GROUPS.items():
        families = [
            family
            for module in modules
            for family in import_module(f"napari_ptsam.synthetic.{module}").FAMILIES
        ]
        total += save(name, [family_row(family) for family in families])
    if total > LIMIT:
        raise ValueError(f"The sheets have {total} bytes, more than {LIMIT}")


if __name__ == "__main__":
    main()
