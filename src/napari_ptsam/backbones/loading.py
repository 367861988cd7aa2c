"""From a name or a file to a frozen backbone on its device."""

from __future__ import annotations

from pathlib import Path

import torch

from napari_ptsam.backbones.architecture import architecture_of
from napari_ptsam.backbones.backbone import Backbone
from napari_ptsam.backbones.checkpoint import build_sam_from_state, load_state, state_identity
from napari_ptsam.backbones.download import fetch
from napari_ptsam.backbones.embedded import load_embedded, shape_of_state
from napari_ptsam.backbones.registry import BackboneSpec, find
from napari_ptsam.fetching import Progress


def load_backbone(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Backbone:
    """A frozen backbone, downloaded and verified first where that is needed.

    Parameters
    ----------
    name_or_path
        A name from `list_backbones`, or a checkpoint file of any SAM: its architecture is
        found from its tensors.
    device
        Where to put the weights.
    progress
        Called during a download, see `fetch`.

    Raises
    ------
    BackboneError
        If there is no such backbone, or the file is not a SAM.
    DownloadError
        If the weights cannot be had.
    """
    found = find(name_or_path)
    if isinstance(found, BackboneSpec):
        name, path = found.name, fetch(found, progress)
    else:
        name, path = found.stem, found
    state = load_state(path)
    if shape_of_state(state) is not None:
        sam, architecture = load_embedded(state), "embedded"
    else:
        sam, architecture = build_sam_from_state(state), architecture_of(state).name
    return Backbone(sam, name, state_identity(state), architecture).to(device)
