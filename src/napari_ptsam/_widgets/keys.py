"""Keys for what is done over and over while annotating."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import PluginState

KEYS = {
    "Shift-N": ("annotate", "suggest"),
    "Shift-E": ("annotate", "empty"),
    "Shift-G": ("annotate", "predict"),
}
"""Keys, and the button that each presses. None of them is one of napari's."""


def bind_keys(state: PluginState, sections: Mapping[str, Any]) -> None:
    """Bind the keys in a viewer until its dock goes; one that the user has bound is left alone."""
    keymap = state.viewer.keymap
    taken = set(keymap)
    bound = []
    for key, (section, button) in KEYS.items():
        try:
            state.viewer.bind_key(key, _press(sections, section, button))
        except ValueError:
            continue
        bound += [k for k in keymap if k not in taken]
        taken.update(keymap)

    def release() -> None:
        for key in bound:
            keymap.pop(key, None)

    # A plain function is kept by the signal as long as the state lives.
    state.closing.connect(release)


def _press(sections: Mapping[str, Any], section: str, button: str) -> Callable[[Any], None]:
    def press(viewer: Any) -> None:  # noqa: ARG001 (napari's signature)
        getattr(sections[section], button).click()

    return press
