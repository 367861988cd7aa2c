"""What several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

SHIPPED_WEIGHTS = (
    Path(__file__).parents[1] / "src/napari_ptsam/backbones/weights/embedded-v6.safetensors"
)

needs_trained_weights = pytest.mark.skipif(
    not SHIPPED_WEIGHTS.is_file(), reason=f"the trained weights {SHIPPED_WEIGHTS.name} are missing"
)


def write_tiny_backbone(path: Path, seed: int) -> Path:
    """Write a checkpoint of a tiny, randomly initialised SAM: 64 px input, two blocks."""
    from safetensors.torch import save_file

    from napari_ptsam.backbones.embedded import EmbeddedShape, build_embedded

    shape = EmbeddedShape(
        input_size=64, stem=(8, 16, 16), width=32, depth=2, heads=2, window=2, global_blocks=(1,)
    )
    state = build_embedded(shape, seed=seed).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint file of a SAM that is quick, and has learned nothing."""
    return write_tiny_backbone(tmp_path_factory.mktemp("backbone") / "tiny.safetensors", seed=0)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither find what the user keeps nor leave anything there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_PTSAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
