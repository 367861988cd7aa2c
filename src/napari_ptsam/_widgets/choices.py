"""A drop-down list of the viewer's layers of one type, kept up to date."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QPaintEvent
from qtpy.QtWidgets import (
    QComboBox,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolTip,
)

from napari_ptsam._widgets.layers import is_given

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer


MARGIN = 4
"""Pixels that styles leave free beside the name."""

CUT = Qt.TextElideMode.ElideMiddle
"""Long names are cut in the middle: layers of one file often differ at the end."""


class LayerChoice(QComboBox):
    """A drop-down list of the viewer's layers of one type.

    Images that the plugin computed are left out; labels that it computed may be corrected.

    Parameters
    ----------
    viewer
        napari's.
    layer_type
        Class of the layers to list.
    placeholder
        What to show where there are none.

    Attributes
    ----------
    chosen
        Emitted with the layer when the user chose another one.
    """

    chosen = Signal(object)

    def __init__(self, viewer: Viewer, layer_type: type[Layer], placeholder: str) -> None:
        super().__init__()
        self._viewer = viewer
        self._type = layer_type
        self._layers: list[Layer] = []
        self.setPlaceholderText(placeholder)
        # Long names must not widen the dock.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.view().setTextElideMode(CUT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        for event in self._events():
            event.connect(self.refresh)
        self.refresh()
        self.activated.connect(self._on_activated)

    @property
    def layer(self) -> Layer | None:
        """The layer that is shown as chosen."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        self.setCurrentIndex(next((i for i, x in enumerate(self._layers) if x is layer), -1))

    def refresh(self) -> None:
        """List the layers anew; the chosen one stays."""
        chosen = self.layer
        for layer in self._layers:
            layer.events.name.disconnect(self.refresh)
        self._layers = [x for x in self._viewer.layers if self._is_listed(x)]
        with QSignalBlocker(self):
            self.clear()
            for number, layer in enumerate(self._layers):
                self.addItem(layer.name)
                self.setItemData(number, layer.name, Qt.ItemDataRole.ToolTipRole)
                layer.events.name.connect(self.refresh)
            self.layer = chosen

    def event(self, event: QEvent) -> bool:
        """Tell the name of the chosen layer along with what the list is for."""
        layer = self.layer
        if event.type() == QEvent.Type.ToolTip and layer is not None:
            text = f"<b>{escape(layer.name)}</b><br>{escape(self.toolTip())}"
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return super().event(event)

    def shown_name(self) -> str:
        """The name of the chosen layer, as much of it as there is room for."""
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        room = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        return str(self.fontMetrics().elidedText(self.currentText(), CUT, room.width() - MARGIN))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 (Qt's name)
        """Draw the box with a name that fits; Qt would cut it off anywhere."""
        if self.currentIndex() < 0:
            super().paintEvent(event)
            return
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        option.currentText = self.shown_name()
        painter = QStylePainter(self)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        # Not left to Python, which may keep it until the window has been drawn.
        painter.end()

    def release(self) -> None:
        """Listen to the viewer no longer."""
        for event in self._events():
            event.disconnect(self.refresh)
        for layer in self._layers:
            layer.events.name.disconnect(self.refresh)
        self._layers = []

    def _is_listed(self, layer: Layer) -> bool:
        if issubclass(self._type, Image):
            return is_given(layer, self._type)
        return isinstance(layer, self._type)

    def _events(self) -> list[Any]:
        events = self._viewer.layers.events
        return [events.inserted, events.removed, events.reordered]

    def _on_activated(self) -> None:
        self.chosen.emit(self.layer)
