"""Prompt files to specialists in the list, in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ptsam.errors import BackboneError, PtsamError

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import PluginState
    from napari_ptsam.backbones import Backbone
    from napari_ptsam.promptfile import PromptMetadata
    from napari_ptsam.specialist import Specialist


class BackboneFileWantedError(BackboneError):
    """A specialist's backbone is known by no name: the user has to say where its file is."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path


def load_specialists(
    state: PluginState,
    paths: Sequence[Path],
    *,
    backbone: Path | None = None,
    on_news: Callable[[str], None] | None = None,
    on_error: Callable[[PtsamError], None] | None = None,
) -> None:
    """Load prompt files in the background and put them on the list; the last one is used.

    A backbone that is in memory already is shared.

    Parameters
    ----------
    paths
        Prompt files.
    backbone
        File of their backbone, if it is none that is known by name.
    on_news
        Called with what takes time, in words, and with an empty text at the end.
    on_error
        Called with what went wrong, after the user was told. It is a
        `BackboneFileWantedError` if `backbone` was needed.

    Raises
    ------
    InputError
        If something else runs.
    """
    loaded = {e.specialist.backbone.identity: e.specialist.backbone for e in state.specialists}
    stop = threading.Event()
    tell = on_news or (lambda _: None)

    def take(found: str | tuple[Path, Specialist]) -> None:
        if isinstance(found, str):
            tell(found)
        else:
            path, specialist = found
            if state.shelf.holds(path):
                specialist.path = None
                state.add_trained(specialist, path)
            else:
                state.add_specialist(specialist, name_of(path), path)

    def failed(error: PtsamError) -> None:
        tell("")
        if on_error is not None:
            on_error(error)

    state.jobs.run(
        "Loading a specialist",
        lambda: _loaded(paths, loaded, backbone, stop),
        on_yield=take,
        on_return=lambda _: tell(""),
        on_error=failed,
        on_stopped=lambda: tell(""),
        finish=stop.set,
        offer_stop=True,
    )


def name_of(path: Path) -> str:
    """What to call the specialist of a prompt file."""
    return path.name.partition(".ptsam")[0] or path.name


def _loaded(
    paths: Sequence[Path],
    loaded: dict[str, Backbone],
    backbone: Path | None,
    stop: threading.Event,
) -> Generator[str | tuple[Path, Specialist], None, None]:
    from napari_ptsam.promptfile import read_prompt_metadata
    from napari_ptsam.specialist import Specialist

    for path in paths:
        metadata = read_prompt_metadata(path)
        known: Backbone | Path | None = loaded.get(metadata.backbone_identity) or backbone
        if known is None:
            yield backbone_news(path, metadata)
            known = _fetched(metadata.backbone_name, stop)
        if known is None or stop.is_set():
            return
        specialist = Specialist.load(path, backbone=known)
        loaded[specialist.backbone.identity] = specialist.backbone
        yield path, specialist


def _fetched(name: str, stop: threading.Event) -> Backbone | None:
    """A backbone, which may have to be downloaded; None if that was stopped."""
    from napari_ptsam.backbones import load_backbone
    from napari_ptsam.devices import choose_device

    def note(*_: object) -> None:
        if stop.is_set():
            raise _StoppedError

    try:
        return load_backbone(name, choose_device("auto"), note)
    except _StoppedError:
        return None


class _StoppedError(Exception):
    """The user has stopped a download; it goes on from there next time."""


def backbone_news(path: Path, metadata: PromptMetadata) -> str:
    """What loading the backbone takes.

    Raises
    ------
    BackboneFileWantedError
        If nobody knows where it is.
    """
    from napari_ptsam.backbones.download import local_file
    from napari_ptsam.backbones.registry import list_backbones

    name = metadata.backbone_name
    for spec in list_backbones():
        if spec.name == name:
            if local_file(spec).is_file():
                return f"Loading the backbone '{name}' ..."
            size = "" if spec.size_bytes is None else f", {spec.size_bytes / 1e6:.0f} MB"
            return f"Downloading the backbone '{name}'{size}; this happens once ..."
    raise BackboneFileWantedError(
        f"{path.name} was learned on the backbone '{name}', which was loaded from a file and is "
        "not known by name here. Choose that file below; who made the specialist has it.",
        path,
    )
