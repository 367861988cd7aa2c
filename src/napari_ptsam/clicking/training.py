"""Training a click specialist from instance annotations."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.clicking.clicker import Clicker
from napari_ptsam.clicking.plan import ClickPlan, ClickStep
from napari_ptsam.clicking.run import ClickRun
from napari_ptsam.devices import choose_device
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.examples import load_examples
from napari_ptsam.methods.plm import LEARNING_RATE, Plm, PlmSettings
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import open_planes
from napari_ptsam.promptfile import PromptMetadata
from napari_ptsam.training.scale import working_scale

STEPS = 60
"""Of a usual run."""


def click_plan(*, steps: int = STEPS, seed: int = 0, **changes: Any) -> ClickPlan:
    """The plan of a usual run.

    Parameters
    ----------
    **changes
        Other fields of `ClickPlan`.
    """
    rate = changes.pop("learning_rate", None) or LEARNING_RATE
    return ClickPlan("clicks", steps=steps, learning_rate=rate, seed=seed, **changes)


def train_clicks(  # noqa: PLR0913 (each is an option that a user may set)
    images: Any,
    masks: Any,
    *,
    plan: ClickPlan | None = None,
    settings: PlmSettings | None = None,
    planes: Sequence[int] | None = None,
    limit: int | None = None,
    axes: str | None = None,
    channel: int | str | None = None,
    normalization: Normalization | None = None,
    backbone: str | Path | Backbone = "embedded",
    device: str = "auto",
    scale: float | Literal["auto", "fit"] = "auto",
    class_name: str = "object",
    command: str = "",
    embeddings: Embeddings | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[ClickStep, None, Clicker]:
    """Train a click specialist (PLM, with PMM in training) step by step.

    Parameters
    ----------
    images, masks
        Folder, file or array, see `open_planes`. Each label is one object; where a mask has one
        label only, its connected regions are the objects.
    plan
        By default that of `click_plan`.
    settings
        Of the Prompt Learning Module; with `tokens` it learns the automatic mode as well.
    planes, limit, normalization
        Which planes to learn from, see `load_examples`.
    axes, channel
        Names of the images' axes and the channel to use, see `open_planes`.
    backbone, device, scale, class_name, command, embeddings
        As in `Specialist.train_steps`.
    should_stop
        Asked between steps; once it says True the run ends and gives the best so far.

    Yields
    ------
    ClickStep
        After each step.

    Returns
    -------
    Clicker
        As the generator's value.

    Raises
    ------
    InputError, BackboneError, TrainingError, OutOfMemoryError
        In words.
    """
    plan = plan or click_plan()
    examples, fitted = load_examples(
        open_planes(images, axes=axes, channel=channel),
        open_planes(masks),
        planes=planes,
        limit=limit,
        normalization=normalization or Normalization(),
    )
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, device=choose_device(device))
    method = Plm(settings or PlmSettings(), backbone, plan.seed)
    metadata = PromptMetadata(
        backbone_name=backbone.name,
        backbone_identity=backbone.identity,
        backbone_architecture=backbone.architecture,
        method=method.name,
        method_settings=method.settings_dict,
        normalization=fitted.to_dict(),
        channels={"axes": axes, "channel": channel},
        working_scale=working_scale(scale, examples, backbone).to_dict(),
        class_name=class_name,
    )
    clicker = Clicker(method, backbone, metadata)
    usual = clicker.embeddings
    clicker.embeddings = embeddings or usual
    run = ClickRun(clicker, method, plan, examples, should_stop)
    with closing(run.steps()) as steps:
        yield from steps
    clicker.embeddings = usual
    clicker.metadata = replace(metadata, training=run.record(command))
    return clicker
