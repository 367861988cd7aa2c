"""What to segment: a plane, layers or a folder, and which of their channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QVBoxLayout, QWidget

from napari_ptsam._widgets.channels import ChannelChoice, channel_in, usual_channel
from napari_ptsam._widgets.choices import LayerChoice
from napari_ptsam._widgets.controls import show_row
from napari_ptsam._widgets.folders import FolderRows
from napari_ptsam._widgets.layers import is_given, plane_index

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import PluginState

PLANE, LAYER, SELECTED, FOLDER = "plane", "layer", "selected", "folder"

_WHAT = (
    (PLANE, "The plane in view"),
    (LAYER, "The whole layer"),
    (SELECTED, "All selected image layers"),
    (FOLDER, "A folder of files"),
)


class _Source:
    """The image to segment and its channel, as `ChannelChoice` wants to see them.

    Attributes
    ----------
    chosen
        Whether the user chose the channel.
    """

    def __init__(self) -> None:
        self.image: Image | None = None
        self.chosen = False
        self._channel: int | str | None = None

    @property
    def channel(self) -> int | str | None:
        """The channel to use of several, None for all."""
        return self._channel

    @channel.setter
    def channel(self, value: int | str | None) -> None:
        self._channel, self.chosen = value, True

    def suggest(self, channel: int | str | None) -> None:
        """Use this channel unless the user chose one."""
        if not self.chosen:
            self._channel = channel


class SegmentInput(QWidget):
    """Rows in which to choose what is segmented; those that matter are shown.

    Parameters
    ----------
    state
        What the sections share.

    Attributes
    ----------
    changed
        Emitted when something was chosen, or the viewer's layers changed.
    """

    changed = Signal()

    def __init__(self, state: PluginState) -> None:
        super().__init__()
        self._state = state
        self._source = _Source()
        self._chosen_here = False
        self._make_controls()
        self._lay_out()
        self._connect()
        self._on_image()

    def _make_controls(self) -> None:
        self.what = QComboBox()
        for key, label in _WHAT:
            self.what.addItem(label, key)
        self.what.setToolTip("What the specialist segments when you press the button.")
        self.image = LayerChoice(self._state.viewer, Image, "open an image first")
        self.image.setToolTip("The image layer to segment.")
        self.channels = ChannelChoice(self._source)
        self.channel = QLineEdit()
        self.channel.setPlaceholderText("as in training")
        self.channel.setToolTip(
            "Number (from 0) or name of the channel to look at, in what has several. Leave it "
            "empty for the one that the specialist learned on."
        )
        self.folders = FolderRows()

    def _lay_out(self) -> None:
        self._form = QFormLayout()
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.addRow("What", self.what)
        self._form.addRow("Image", self.image)
        self._form.addRow("Channel", self.channel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._form)
        layout.addWidget(self.channels)
        layout.addWidget(self.folders)

    def _connect(self) -> None:
        state, viewer = self._state, self._state.viewer
        self.what.currentIndexChanged.connect(self._on_what)
        self.image.chosen.connect(self._on_chosen)
        self.channels.axis.activated.connect(self._on_axis)
        self.channels.channel.activated.connect(self.changed)
        self.folders.changed.connect(self.changed)
        self._signals: list[tuple[Any, Any]] = [
            (state.current_changed, self._on_specialist),
            (state.annotations.changed, self._follow_annotations),
            (viewer.layers.events.inserted, self._on_image),
            (viewer.layers.events.removed, self._on_image),
            (viewer.layers.selection.events.changed, self._on_selection),
        ]
        for signal, slot in self._signals:
            signal.connect(slot)

    def release(self) -> None:
        """Listen to the viewer no longer."""
        for signal, slot in self._signals:
            signal.disconnect(slot)
        self.image.release()

    @property
    def kind(self) -> str:
        """One of `PLANE`, `LAYER`, `SELECTED` and `FOLDER`."""
        return str(self.what.currentData())

    @property
    def layer(self) -> Image | None:
        """The image that is chosen, for a plane of it or all."""
        return self._source.image

    @property
    def layer_channel(self) -> int | str | None:
        """The channel to use of that image."""
        return self._source.channel

    @property
    def folder_channel(self) -> str | None:
        """The channel to use of files, None for the specialist's own."""
        return self.channel.text().strip() or None

    def layers(self) -> list[tuple[Image, int | str | None, list[int] | None]]:
        """Layers to segment, and of each the channel and the planes; None for all planes."""
        viewer, image = self._state.viewer, self._source.image
        if self.kind == SELECTED:
            selected = viewer.layers.selection
            images = [x for x in viewer.layers if x in selected and is_given(x, Image)]
            return [(x, self._channel_of(x), None) for x in images]
        if image is None:
            return []
        if self.kind == LAYER:
            return [(image, self._source.channel, None)]
        shown = plane_index(viewer, image)
        return [] if shown is None else [(image, self._source.channel, [shown])]

    def _channel_of(self, image: Image) -> int | str | None:
        """The channel to use of one of several images."""
        if self.folder_channel is not None:
            return channel_in(image, self.folder_channel)
        if image is self._source.image:
            return self._source.channel
        return usual_channel(image, self._state.annotations, self._state.current)

    def reason(self) -> str:
        """Why there is nothing to segment; empty if there is."""
        if self.kind == FOLDER:
            return self.folders.reason()
        if self.kind == SELECTED:
            missing = "Select one or more image layers in the layer list first."
        elif self._source.image is None:
            missing = "Open an image first."
        else:
            missing = "Show a single plane of the image first (in 2D, not in 3D)."
        return "" if self.layers() else missing

    def refresh(self) -> None:
        """Show the rows for what is chosen."""
        one_layer = self.kind in (PLANE, LAYER)
        show_row(self._form, self.image, one_layer)
        show_row(self._form, self.channel, not one_layer)
        self.folders.setVisible(self.kind == FOLDER)
        if one_layer:
            self.channels.refresh()
        else:
            self.channels.hide()

    def _on_what(self) -> None:
        self.changed.emit()

    def _on_selection(self, *_: object) -> None:
        self.changed.emit()

    def _on_chosen(self, *_: object) -> None:
        self._chosen_here = True
        self._on_image()

    def _on_axis(self) -> None:
        # Of other channels than before, none was chosen yet.
        self._source.chosen = False
        self._on_image()

    def _on_specialist(self, *_: object) -> None:
        self._source.chosen = False
        self._on_image()

    def _follow_annotations(self) -> None:
        """Segment the image that was painted on, unless another one was chosen here."""
        image = self._state.annotations.image
        if image is not None and image is not self.image.layer and not self._chosen_here:
            self.image.layer = image
        self._on_image()

    def _on_image(self, *_: object) -> None:
        if self.image.layer is None and self.image.count():
            self.image.setCurrentIndex(0)
        image = self.image.layer
        if image is not self._source.image:
            self._source.image, self._source.chosen = image, False
        if image is not None:
            state = self._state
            self._source.suggest(usual_channel(image, state.annotations, state.current))
        self.changed.emit()
