"""Makes the demo's masks again: ``python -m benchmarks.demo_masks [--overlays DIR]``.

Four pictures inside scikit-image's wheel get one mask each. Every mask starts
from a threshold or a watershed; coordinates that were read off enlarged
overlays then place markers and correct what the computer got wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import color, draw, filters, measure, morphology, segmentation

from napari_ptsam.demo_data import MASK_FOLDER, SETS, wheel_image

Mask = NDArray[np.bool_]
Polygon = Sequence[tuple[int, int]]

# Centre x, centre y and radius of each coin in pixels, by eye.
COINS = (
    (45, 54, 22), (101, 56, 19), (156, 51, 23), (216, 51, 23), (276, 53, 20), (335, 43, 29),
    (46, 125, 20), (103, 126, 19), (154, 128, 19), (206, 125, 20), (271, 119, 25), (337, 125, 19),
    (44, 197, 18), (102, 196, 22), (155, 198, 19), (213, 193, 23), (274, 194, 22), (347, 187, 31),
    (47, 260, 27), (114, 266, 21), (173, 262, 28), (244, 264, 24), (301, 264, 25), (358, 268, 22),
)  # fmt: skip

# Pale nuclei at the glands' rims, which the brown stain misses: polygons of (x, y).
RIM_NUCLEI: tuple[Polygon, ...] = (
    ((126, 300), (134, 319), (143, 330), (149, 356), (153, 375), (156, 389), (157, 413),
     (159, 441), (159, 469), (160, 511), (94, 511), (84, 422), (84, 300)),
    ((80, 234), (94, 256), (105, 277), (121, 296), (129, 312), (84, 312), (61, 263), (56, 234),
     (61, 217)),
    ((455, 141), (461, 157), (462, 170), (459, 206), (422, 206), (422, 141)),
    ((300, 199), (307, 211), (319, 225), (338, 206), (328, 192)),
    ((255, 356), (256, 398), (260, 408), (270, 431), (281, 445), (300, 422), (291, 356)),
    ((366, 349), (373, 359), (377, 375), (381, 398), (356, 398), (347, 375)),
    ((338, 253), (349, 270), (370, 277), (389, 281), (394, 263), (347, 234)),
    ((325, 82), (338, 82), (338, 91), (333, 93), (328, 88)),
    ((302, 31), (305, 31), (306, 45), (311, 46), (311, 59), (306, 52), (302, 40)),
    ((304, 498), (338, 498), (338, 512), (304, 512)),
    ((288, 310), (294, 310), (294, 322), (288, 322)),
)  # fmt: skip

# The glands' openings, with the debris in them.
OPENINGS: tuple[Polygon, ...] = (
    ((277, 0), (281, 0), (289, 18), (303, 37), (311, 59), (321, 72), (331, 90), (350, 110),
     (352, 127), (370, 150), (380, 180), (381, 192), (377, 196), (371, 195), (356, 180),
     (331, 140), (323, 115), (313, 107), (300, 62), (284, 17)),
    ((129, 0), (142, 10), (139, 28), (147, 40), (154, 45), (166, 38), (160, 22), (153, 0)),
)  # fmt: skip


def coins(image: NDArray[np.uint8]) -> Mask:
    """Coins: a watershed of the gradient from one marker each, then smoothed."""
    markers = np.ones(image.shape, int)
    for x, y, radius in COINS:
        markers[draw.disk((y, x), 1.25 * radius + 1, shape=image.shape)] = 0
    for i, (x, y, radius) in enumerate(COINS, start=2):
        markers[draw.disk((y, x), 0.8 * radius, shape=image.shape)] = i
    smooth = filters.gaussian(image, 1, preserve_range=True)
    labels = segmentation.watershed(filters.sobel(smooth), markers)
    mask = np.zeros(image.shape, bool)
    for i in range(2, len(COINS) + 2):
        filled = ndimage.binary_fill_holes(labels == i)
        mask |= morphology.opening(filled, morphology.disk(4))
    return mask


def cell(image: NDArray[np.uint8]) -> Mask:
    """The floating cell: a watershed of the gradient between dark and bright."""
    smooth = filters.gaussian(image, 1.5, preserve_range=True)
    markers = np.where(smooth > 150, 2, np.where(smooth < 95, 1, 0))
    mask = segmentation.watershed(filters.sobel(smooth), markers) == 2
    return np.asarray(morphology.opening(ndimage.binary_fill_holes(mask), morphology.disk(5)))


def ihc(image: NDArray[np.uint8]) -> Mask:
    """Stained epithelium with its nuclei, without the glands' openings."""
    stain = filters.gaussian(color.rgb2hed(image)[..., 2], 2)
    mask = morphology.remove_small_objects(stain > filters.threshold_otsu(stain), max_size=600)
    mask |= _polygons(RIM_NUCLEI, mask.shape)
    mask = ndimage.binary_fill_holes(_beyond_border(morphology.closing, mask, 9))
    light = filters.gaussian(image.min(2), 1, preserve_range=True) > 178
    mask &= ~morphology.remove_small_objects(light, max_size=60)
    mask &= ~_polygons(OPENINGS, mask.shape)
    mask = morphology.remove_small_objects(
        _beyond_border(morphology.opening, mask, 3), max_size=600
    )
    return np.asarray(morphology.remove_small_holes(mask, max_size=150))


def hubble_deep_field(image: NDArray[np.uint8]) -> Mask:
    """Galaxies and stars of at least 40 pixels; fainter and smaller ones are background."""
    smooth = filters.gaussian(image.max(2), 1, preserve_range=True)
    mask = filters.apply_hysteresis_threshold(smooth, 45, 100)
    mask = ndimage.binary_fill_holes(morphology.opening(mask, morphology.disk(2)))
    return np.asarray(morphology.remove_small_objects(mask, max_size=39))


def _polygons(polygons: Sequence[Polygon], shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, bool)
    for polygon in polygons:
        mask |= draw.polygon2mask(shape, np.array(polygon)[:, ::-1])
    return mask


def _beyond_border(operation: Callable[..., Mask], mask: Mask, radius: int) -> Mask:
    """A morphological operation as if objects went on outside the picture."""
    margin = 2 * radius
    padded = operation(np.pad(mask, margin, mode="edge"), morphology.disk(radius))
    return padded[margin:-margin, margin:-margin]


def save_overlay(image: NDArray[np.uint8], mask: Mask, path: Path, enlarge: int = 3) -> None:
    """The picture enlarged, with the mask's outline in red: what was checked by eye."""
    rgb = image if image.ndim == 3 else np.stack([image] * 3, -1)
    rgb = rgb.repeat(enlarge, 0).repeat(enlarge, 1)
    large = mask.repeat(enlarge, 0).repeat(enlarge, 1)
    rgb[segmentation.find_boundaries(large, mode="inner")] = (255, 0, 0)
    Image.fromarray(rgb).save(path)


MAKERS: dict[str, Callable[[NDArray[np.uint8]], Mask]] = {
    "coins": coins,
    "ihc": ihc,
    "cell": cell,
    "hubble_deep_field": hubble_deep_field,
}


def main() -> None:
    """Write all masks into the package, and overlays where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overlays", type=Path, help="folder for enlarged overlays")
    overlays: Path | None = parser.parse_args().overlays
    for demo_set in SETS:
        image = wheel_image(demo_set)
        mask = MAKERS[demo_set.name](image)
        path = MASK_FOLDER / f"{demo_set.name}.png"
        Image.fromarray(mask).convert("1").save(path, optimize=True)
        objects = int(measure.label(mask).max())
        print(f"{path.name}: {objects} objects, {mask.mean():.1%}, {path.stat().st_size} bytes")
        if overlays is not None:
            overlays.mkdir(parents=True, exist_ok=True)
            save_overlay(image, mask, overlays / path.name)


if __name__ == "__main__":
    main()
