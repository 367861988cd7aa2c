"""What the cache of embeddings saves and costs: ``python -m benchmarks.cache``.

Three parts, each with the real training and the real prediction:

``again``
    A stack is embedded, a specialist trained on 16 of its planes, the stack segmented: first
    with an empty cache, then once more as a new process would. What the images show does
    not matter to speed, so they are made up.
``costs``
    Seconds for one tile: encoding it, and hashing, reading and writing its embedding.
``rounding``
    Embeddings are kept in 16 bits: Dice with and without, on the development data sets. The
    images that are scored belong to the training parts and are not among those learned from.

On two cores with the embedded backbone: some 15 minutes, with ``--quick`` one. With
``--backbone random-vit_b`` (ViT-B's shapes with random weights: as fast as the real one) the
first part takes about an hour and a half, and ``--parts costs --tiles 6`` two minutes. Parts
that are left out keep the figures of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import data
from benchmarks.record import RESULTS, circumstances, write_json
from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.architecture import ARCHITECTURES, build_sam
from napari_ptsam.cache import DiskCache, size_text
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.labels import read_labels
from napari_ptsam.methods import new_method
from napari_ptsam.metrics import dice
from napari_ptsam.planes import open_planes
from napari_ptsam.specialist import Specialist

SIDE = 512
ANNOTATED = 16
REQUIRED = 20.0
"""Times faster the second time, with no image encoded."""

ROOM = 200 * 10**9
RANDOM = "random-"
PARTS = ("again", "costs", "rounding")

Clock = Callable[[], float]


@dataclass(frozen=True)
class Extent:
    """How much is done: the whole, or enough to see that it works."""

    planes: int
    preset: str
    steps: int | None
    tiles: int
    scored: int
    sets: tuple[str, ...]

    @classmethod
    def of(cls, options: argparse.Namespace) -> Extent:
        """What the options ask for."""
        if options.quick:
            return cls(8, "quick", 10, 4, 2, ("dsb2018",))
        return cls(options.planes, options.preset, None, options.tiles, 24, data.NAMES)


def backbone_named(name: str) -> Backbone:
    """One that is known, or with random weights the architecture after ``random-``."""
    if not name.startswith(RANDOM):
        return load_backbone(name)
    torch.manual_seed(0)
    architecture = name.removeprefix(RANDOM)
    return Backbone(build_sam(ARCHITECTURES[architecture]), name, name, architecture)


def made_up_stack(count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bright blobs in noise that change from plane to plane, and their masks."""
    rng = np.random.default_rng(0)
    images, masks = (np.zeros((count, SIDE, SIDE), np.uint8) for _ in range(2))
    for i in range(count):
        field = ndimage.zoom(rng.normal(size=(SIDE // 16, SIDE // 16)), 16, order=1)
        masks[i] = field > np.percentile(field, 80)
        images[i] = np.clip(60 + 90 * masks[i] + rng.normal(0, 15, field.shape), 0, 255)
    return images, masks


def work(
    backbone: Backbone, stack: NDArray[np.uint8], masks: NDArray[np.uint8], extent: Extent,
    folder: Path, clock: Clock,
) -> dict[str, Any]:  # fmt: skip
    """Train, embed and segment, with nothing but the folder's cache to start from."""
    memory = Embeddings(limit=0, disk=DiskCache(folder / "cache", ROOM, writes=True))
    started = clock()
    specialist = Specialist.train(
        stack, masks, planes=range(min(ANNOTATED, len(stack))), backbone=backbone,
        preset=extent.preset, steps=extent.steps, scale="fit", embeddings=memory,
    )  # fmt: skip
    trained = clock()
    cache = DiskCache(folder / "cache", ROOM, writes=True)
    *_, last = specialist.embed(stack, cache=cache)
    embedded = clock()
    specialist.embeddings = Embeddings(limit=0, disk=DiskCache(folder / "cache"))
    for _ in specialist.segment(stack, folder / "masks.tif"):
        pass
    return {
        "train_seconds": trained - started,
        "embed_seconds": embedded - trained,
        "segment_seconds": clock() - embedded,
        "encoder_calls": memory.encoded + last.encoded + specialist.embeddings.encoded,
    }


def measure_again(backbone: Backbone, extent: Extent, folder: Path, clock: Clock) -> dict[str, Any]:
    """Seconds and encoder calls, first and again."""
    stack, masks = made_up_stack(extent.planes)
    first = work(backbone, stack, masks, extent, folder, clock)
    again = work(backbone, stack, masks, extent, folder, clock)
    # Who segments again has no need to embed again.
    before = sum(first[f"{name}_seconds"] for name in ("train", "embed", "segment"))
    after = again["train_seconds"] + again["segment_seconds"]
    segmenting = (first["embed_seconds"] + first["segment_seconds"]) / again["segment_seconds"]
    found = {"planes": extent.planes, "preset": extent.preset, "first": first, "again": again}
    found |= {"times_faster": before / after, "required": REQUIRED}
    found |= {"times_faster_segmenting": segmenting}
    for name, run in (("first", first), ("again", again)):
        print(f"{name:8}" + "  ".join(f"{k} {v:.1f}" for k, v in run.items()))
    print(f"training and segmenting again: {before / after:.1f} times faster ({REQUIRED} wanted)")
    return found


def measure_costs(
    backbone: Backbone, extent: Extent, folder: Path, clock: Clock
) -> dict[str, float]:
    """Median seconds for one tile."""
    size = backbone.input_size
    cache = DiskCache(folder / "costs", ROOM, writes=True)
    served = Embeddings(0, cache, thrifty=False).serve(backbone)
    images = torch.randn(extent.tiles, 1, 3, size, size, generator=torch.Generator().manual_seed(0))
    plain = Embeddings(0).serve(backbone)
    method = new_method("ptsam", {}, backbone).to(backbone.device).eval()
    with torch.inference_mode():
        kept = plain.encode(images[0])
        method.decode(backbone, kept)
        encoding = _seconds(lambda i: plain.encode(images[i]), extent.tiles, clock)
        decoding = _seconds(lambda _: method.decode(backbone, kept), extent.tiles, clock)
        both = _seconds(lambda i: served.encode(images[i]), extent.tiles, clock)
        reading = _seconds(lambda i: served.encode(images[i]), extent.tiles, clock)
    nbytes = cache.in_use() / extent.tiles
    found = {
        "encode_seconds": encoding,
        "encode_and_write_seconds": both,
        "hash_and_read_seconds": reading,
        "decode_seconds": decoding,
        "times_faster_segmenting": (encoding + decoding) / (reading + decoding),
        "bytes": nbytes,
    }
    print(
        f"one tile: encode {encoding * 1e3:.1f} ms, decode {decoding * 1e3:.1f} ms, "
        f"encode and write {both * 1e3:.1f} ms, "
        f"hash and read {reading * 1e3:.1f} ms, {size_text(round(nbytes))}"
    )
    return found


def _seconds(call: Callable[[int], object], count: int, clock: Clock) -> float:
    times = []
    for i in range(count):
        started = clock()
        call(i)
        times.append(clock() - started)
    return float(np.median(times))


class Unrounded(Embeddings):
    """Keeps nothing and rounds nothing, to compare with."""

    def serve(self, backbone: Backbone) -> Any:
        """The backbone itself."""
        return backbone


def measure_rounding(backbone: Backbone, extent: Extent, folder: Path | None) -> dict[str, Any]:
    """Mean Dice in percent with embeddings of 32 and of 16 bits, by data set."""
    found: dict[str, Any] = {}
    for name in extent.sets:
        data_set = data.load(name, data.data_folder(folder), ANNOTATED)
        images, masks = open_planes(data_set.train_images), open_planes(data_set.train_masks)
        # Planes that are neither learned from nor for the test.
        rest = range(16, 20) if name == "isbi2012" else range(len(images))
        unseen = [i for i in rest if i not in data_set.train_planes][: extent.scored]
        scores = {}
        for kind in (Unrounded, Embeddings):
            specialist = Specialist.train(
                images, masks, planes=data_set.train_planes, backbone=backbone,
                preset=extent.preset, steps=extent.steps, embeddings=kind(limit=0),
            )  # fmt: skip
            for other in (Unrounded, Embeddings):
                specialist.embeddings = other(limit=0)
                bits = " ".join("32" if k is Unrounded else "16" for k in (kind, other))
                scores[f"trained, predicted in {bits} bits"] = 100 * float(
                    np.mean([_score(specialist, images, masks, i) for i in unseen])
                )
        found[name] = {"images": len(unseen), "dice": scores}
        print(name, "  ".join(f"{k}: {v:.3f}" for k, v in scores.items()))
    return found


def _score(specialist: Specialist, images: Any, masks: Any, index: int) -> float:
    return dice(specialist.predict(images.read(index)).mask, read_labels(masks, index) > 0)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="embedded", help="name or file (%(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--planes", type=int, default=500, help="of the stack (%(default)s)")
    parser.add_argument("--tiles", type=int, default=30, help="of which costs are measured")
    parser.add_argument("--preset", default="quick", help="of the training (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder of the development data sets")
    parser.add_argument("--folder", type=Path, help="where the cache is measured (a temporary one)")
    parser.add_argument("--quick", action="store_true", help="see that it works; not written")
    parser.add_argument(
        "--cpu-time", action="store_true",
        help="count the processor's time and not the wall's, where others use the machine too",
    )  # fmt: skip
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    extent, backbone = Extent.of(options), backbone_named(options.backbone)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if "again" in options.parts:
            found["again"] = measure_again(backbone, extent, Path(folder), clock)
        if "costs" in options.parts:
            found["costs"] = measure_costs(backbone, extent, Path(folder), clock)
    if "rounding" in options.parts:
        found["rounding"] = measure_rounding(backbone, extent, options.data)
    if options.quick:
        return
    setting = {"backbone": options.backbone, "threads": torch.get_num_threads()}
    setting |= {"clock": "processor" if options.cpu_time else "wall", "extent": asdict(extent)}
    around = {"setting": setting, "circumstances": circumstances()}
    path = RESULTS / f"cache-{options.backbone}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, before | {part: values | around for part, values in found.items()})


if __name__ == "__main__":
    main()
