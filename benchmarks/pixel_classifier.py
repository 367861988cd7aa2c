"""A random-forest pixel classifier on multi-scale features, as ilastik has it.

The strong, cheap rival: scikit-image's `TrainableSegmenter` on intensity, edges
and texture (eigenvalues of the Hessian) of every colour channel at scales of 1
to 16 pixels, learned from the same images, with the same normalisation, as
PTSAM. Whole masks are given and not scribbles, so it sees more than an ilastik
user would paint.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from skimage.future import TrainableSegmenter
from sklearn.ensemble import RandomForestClassifier

from napari_ptsam.examples import Example

PIXELS_PER_IMAGE = 4000


def features(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """HxWx3 to HxWxF; a grey picture's three equal channels count once."""
    grey = np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(
        image[..., 0], image[..., 2]
    )
    pixels = image[..., :1] if grey else image
    made: NDArray[np.float32] = multiscale_basic_features(
        pixels / 255.0, sigma_min=1, sigma_max=16, channel_axis=-1
    )
    return made


class PixelClassifier:
    """Learns pixels of examples; `predict` gives a mask.

    Parameters
    ----------
    seed
        For the choice of pixels and the trees.
    balanced
        Draw as many pixels inside objects as outside, where there are as many.
        Otherwise all pixels are drawn alike. Neither is better everywhere:
        balance helps where objects are rare and hard to tell, and else makes
        them too large, so the benchmark reports both.
    trees, jobs
        Number of trees, and of processor cores to learn with.
    """

    def __init__(
        self, seed: int = 0, balanced: bool = False, trees: int = 100, jobs: int = 1
    ) -> None:
        self._seed = seed
        self._balanced = balanced
        forest = RandomForestClassifier(
            n_estimators=trees, min_samples_leaf=2, n_jobs=jobs, random_state=seed
        )
        self._segmenter = TrainableSegmenter(forest, features_func=features)

    def fit(self, examples: Sequence[Example]) -> PixelClassifier:
        """Learn from the valid pixels of all examples; returns itself."""
        rng = np.random.default_rng(self._seed)
        vectors, classes = [], []
        for example in examples:
            chosen = self._choose(example, rng)
            made = features(example.image)
            vectors.append(made.reshape(-1, made.shape[-1])[chosen])
            classes.append(example.mask.ravel()[chosen])
        self._segmenter.clf.fit(np.concatenate(vectors), np.concatenate(classes))
        self._segmenter.clf.set_params(n_jobs=1)
        return self

    def predict(self, image: NDArray[np.float32]) -> NDArray[np.bool_]:
        """HxWx3, 0..255, to the mask HxW."""
        mask: NDArray[np.bool_] = self._segmenter.predict(image).astype(bool)
        return mask

    def _choose(self, example: Example, rng: np.random.Generator) -> NDArray[np.intp]:
        """Positions, in the flattened image, of up to `PIXELS_PER_IMAGE` valid pixels."""
        mask, valid = example.mask.ravel(), example.valid.ravel()
        if not self._balanced:
            return rng.permutation(np.flatnonzero(valid))[:PIXELS_PER_IMAGE]
        inside, outside = np.flatnonzero(mask & valid), np.flatnonzero(~mask & valid)
        few = min(len(inside), len(outside), PIXELS_PER_IMAGE // 2)
        many = PIXELS_PER_IMAGE - few
        counts = (few, many) if len(inside) <= len(outside) else (many, few)
        drawn = [
            rng.permutation(part)[:n] for part, n in zip((inside, outside), counts, strict=True)
        ]
        return np.concatenate(drawn)
