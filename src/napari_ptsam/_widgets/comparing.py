"""One plane, segmented by several specialists, side by side."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_ptsam._widgets.channels import usual_channel
from napari_ptsam._widgets.layers import RESULT_MARK, is_given, plane_index, planes_of
from napari_ptsam.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_ptsam._widgets.state import PluginState, SpecialistEntry

GAP = 1.05
"""Distance from one to the next, in widths of the plane."""


class Comparison:
    """Shows what each of several specialists makes of the plane in view.

    Parameters
    ----------
    state
        What the sections share.
    """

    def __init__(self, state: PluginState) -> None:
        self._state = state
        self._layers: list[Any] = []

    def image(self) -> Image | None:
        """The image to compare on: the selected one, else the annotated one, else any."""
        viewer, annotated = self._state.viewer, self._state.annotations.image
        images = [x for x in viewer.layers if is_given(x, Image)]
        active = viewer.layers.selection.active
        if active in images:
            return active
        if annotated in images:
            return annotated
        return images[0] if images else None

    def run(self, entries: Sequence[SpecialistEntry], on_over: Callable[[str], None]) -> None:
        """Segment the plane in view with each, in the background, and show them.

        Parameters
        ----------
        on_over
            Called with how much they agree, in words.

        Raises
        ------
        InputError
            If there is no plane in view, or something else runs.
        """
        image = self.image()
        index = None if image is None else plane_index(self._state.viewer, image)
        if image is None or index is None:
            raise InputError("Show a plane of an image first (in 2D, not in 3D).")
        annotations = self._state.annotations
        work = [
            (entry, planes_of(image, usual_channel(image, annotations, entry))) for entry in entries
        ]
        self._clear()
        masks: dict[str, NDArray[np.bool_]] = {}

        def show(found: tuple[SpecialistEntry, NDArray[Any], NDArray[np.bool_]]) -> None:
            entry, pixels, mask = found
            self._add(image, f"plane {index}: {entry.name}", len(masks) + 1, pixels, mask)
            masks[f"{len(masks) + 1} {entry.name}"] = mask

        def predicted() -> Generator[Any, None, None]:
            for entry, planes in work:
                pixels = planes.read(index)
                yield entry, pixels, entry.specialist.predict(pixels).mask

        def over(*_: object) -> None:
            self._state.viewer.reset_view()
            on_over(agreement(list(masks.values())))

        self._state.jobs.run(
            "Comparing specialists",
            predicted,
            on_yield=show,
            on_return=over,
            on_error=over,
            on_stopped=over,
            offer_stop=True,
        )

    def _add(
        self,
        image: Image,
        name: str,
        place: int,
        pixels: NDArray[Any],
        mask: NDArray[np.bool_],
    ) -> None:
        scale, translate = np.array(image.scale[-2:]), np.array(image.translate[-2:])
        translate[1] += place * GAP * mask.shape[1] * scale[1]
        options: dict[str, Any] = {
            "scale": scale,
            "translate": translate,
            "units": image.units[-2:],
            "axis_labels": image.axis_labels[-2:],
            "metadata": {RESULT_MARK: True},
        }
        rgb = pixels.ndim == 3
        shown = (
            {} if rgb else {"colormap": image.colormap, "contrast_limits": image.contrast_limits}
        )
        viewer = self._state.viewer
        self._layers += [
            viewer.add_image(pixels, name=f"{name} (image)", rgb=rgb, **shown, **options),
            viewer.add_labels(mask.astype(np.uint8), name=name, **options),
        ]
        viewer.layers.selection.active = image

    def _clear(self) -> None:
        for layer in self._layers:
            if layer in self._state.viewer.layers:
                self._state.viewer.layers.remove(layer)
        self._layers = []


def agreement(masks: Sequence[NDArray[np.bool_]]) -> str:
    """How much masks of one plane overlap with the first of them, in words."""
    if len(masks) < 2:
        return ""
    shares = [f"{_dice(masks[0], mask):.2f}" for mask in masks[1:]]
    return f"Overlap with the first (Dice, 1 is the same): {', '.join(shares)}."


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    total = int(one.sum()) + int(other.sum())
    return 1.0 if total == 0 else 2 * int((one & other).sum()) / total
