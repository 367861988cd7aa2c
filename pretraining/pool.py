"""A pool of rendered scenes on disk, one file for each scene type.

Rendering is a pure function of the seeds, so the pool can be made again at any
time, and a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.scene import Family

GROUPS = {
    "light": ("fluorescence", "transmitted", "stained"),
    "matter": ("particles", "electron", "generic", "materials"),
    "body": ("tissue", "organs"),
    "dense": ("neuropil", "phase"),
    "lumen": ("lumen",),
}
"""Modules of `napari_ptsam.synthetic` whose families make up each part of the pool."""

SIDE = 320
"""Side of a pooled scene in pixels; training crops are smaller."""


@dataclass(frozen=True)
class TypeScenes:
    """All pooled scenes of one type: K x side x side x 3, and K x side x side twice."""

    seed: int
    images: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    instances: NDArray[np.uint16]


def families_of(group: str) -> tuple[Family, ...]:
    """All scene families of a group."""
    modules = (import_module(f"napari_ptsam.synthetic.{name}") for name in GROUPS[group])
    return tuple(family for module in modules for family in module.FAMILIES)


def type_file(pool: Path, group: str, seed: int) -> Path:
    """Where the scenes of one type lie."""
    return pool / group / f"type-{seed:06d}.npy"


def make_type(pool: Path, group: str, scenes: int, seed: int) -> None:
    """Render the scenes of one type into its file, unless it is there already.

    Images, kinds and the two bytes of the instance ids are packed into
    K x side x side x 6 uint8.
    """
    target = type_file(pool, group, seed)
    if target.exists():
        return
    families = families_of(group)
    family = families[seed % len(families)]
    style = family.style(np.random.default_rng([seed, 1]))
    packed = np.empty((scenes, SIDE, SIDE, 6), np.uint8)
    for k in range(scenes):
        scene = family.render(style, np.random.default_rng([seed, 2, k]), (SIDE, SIDE))
        packed[k, ..., :3] = scene.image
        packed[k, ..., 3] = scene.kinds
        packed[k, ..., 4] = scene.instances & 255
        packed[k, ..., 5] = scene.instances >> 8
    temporary = target.with_suffix(f".{os.getpid()}.part")
    with temporary.open("wb") as file:
        np.save(file, packed)
    temporary.replace(target)


def read_type(pool: Path, group: str, seed: int) -> TypeScenes:
    """The scenes of one type; memory-mapped, so only what is used is read."""
    packed = np.load(type_file(pool, group, seed), mmap_mode="r")
    instances = packed[..., 4].astype(np.uint16) | (packed[..., 5].astype(np.uint16) << 8)
    return TypeScenes(seed, packed[..., :3], packed[..., 3], instances)


def make_pool(pool: Path, group: str, types: range, scenes: int, workers: int) -> None:
    """Render all types of a range."""
    (pool / group).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as workshop:
        jobs = workshop.map(partial(make_type, pool, group, scenes), types, chunksize=4)
        for done, _ in enumerate(jobs, 1):
            if done % 50 == 0 or done == len(types):
                print(f"{done}/{len(types)} types", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--types", type=int, default=500, help="types of each group")
    parser.add_argument("--scenes", type=int, default=8, help="scenes of each type")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    for group in given.groups:
        make_pool(given.pool, group, range(given.types), given.scenes, given.workers)


if __name__ == "__main__":
    main()
