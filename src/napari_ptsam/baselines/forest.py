"""A random-forest pixel classifier on multi-scale features, as ilastik has it.

The strong, cheap rival: scikit-image's `TrainableSegmenter` on intensity, edges and texture
(eigenvalues of the Hessian) of every colour channel at scales of 1 to 16 pixels. It is given
whole masks and not scribbles, so it sees more than an ilastik user would paint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from skimage.future import TrainableSegmenter

from napari_ptsam.baselines import Predictor, check_pairs
from napari_ptsam.errors import InputError


@dataclass(frozen=True)
class ForestBaseline:
    """How the pixels are drawn, and how many trees learn from them.

    Attributes
    ----------
    balanced
        Draw as many pixels inside objects as outside, where there are as many. Otherwise all
        pixels are drawn alike. Neither is better everywhere: balance helps where objects are
        rare and hard to tell, and else makes them too large.
    trees
        How many.
    pixels_per_image
        How many pixels are drawn from each image.
    jobs
        Processor cores to learn with; -1 for all.
    """

    balanced: bool = False
    trees: int = 100
    pixels_per_image: int = 4000
    jobs: int = -1

    def __post_init__(self) -> None:
        if self.trees < 1 or self.pixels_per_image < 2:
            raise InputError(
                "A pixel classifier takes at least 1 tree and 2 pixels per image, not "
                f"{self.trees} and {self.pixels_per_image}; 100 and 4000 are usual."
            )

    @property
    def name(self) -> str:
        """Short name for tables."""
        return "forest"

    @property
    def missing(self) -> str | None:
        """scikit-learn, where it is not installed."""
        if find_spec("sklearn") is not None:
            return None
        return "scikit-learn is not installed: pip install 'napari-ptsam[benchmark]'"

    def fit(
        self,
        images: Sequence[NDArray[np.float32]],
        masks: Sequence[NDArray[np.bool_]],
        seed: int,
    ) -> Predictor:
        """Learn from pixels of all images; see `Baseline`.

        Raises
        ------
        InputError
            If scikit-learn is not installed, there are no images, not as many masks, or all
            pixels are of one kind.
        """
        if self.missing is not None:
            raise InputError(f"{self.missing}.")
        check_pairs("The pixel classifier", images, masks)
        ensemble: Any = import_module("sklearn.ensemble")
        forest = ensemble.RandomForestClassifier(
            n_estimators=self.trees, min_samples_leaf=2, n_jobs=self.jobs, random_state=seed
        )
        rng = np.random.default_rng(seed)
        vectors, classes = [], []
        for image, mask in zip(images, masks, strict=True):
            chosen = self._choose(mask, rng)
            made = features(image)
            vectors.append(made.reshape(-1, made.shape[-1])[chosen])
            classes.append(mask.ravel()[chosen])
        forest.fit(np.concatenate(vectors), np.concatenate(classes))
        if len(forest.classes_) < 2:
            raise InputError("The masks hold object alone, or background alone; give both.")
        forest.set_params(n_jobs=1)
        return _Fitted(TrainableSegmenter(forest, features_func=features))

    def _choose(self, mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
        """Positions, in the flattened image, of up to `pixels_per_image` pixels."""
        if not self.balanced:
            return rng.permutation(np.arange(mask.size))[: self.pixels_per_image]
        inside, outside = np.flatnonzero(mask), np.flatnonzero(~mask)
        few = min(len(inside), len(outside), self.pixels_per_image // 2)
        many = self.pixels_per_image - few
        counts = (few, many) if len(inside) <= len(outside) else (many, few)
        drawn = [
            rng.permutation(part)[:n] for part, n in zip((inside, outside), counts, strict=True)
        ]
        return np.concatenate(drawn)


@dataclass(frozen=True)
class _Fitted:
    """A trained forest; its trees vote, so that a probability is 0 or 1."""

    segmenter: TrainableSegmenter

    @property
    def parameters(self) -> None:
        """Nodes of trees are no parameters."""

    @property
    def nbytes(self) -> int:
        """Of all nodes."""
        states = (tree.tree_.__getstate__() for tree in self.segmenter.clf.estimators_)
        return sum(int(s["nodes"].nbytes + s["values"].nbytes) for s in states)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self.segmenter.predict(image), np.float32)


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
