"""Which channel of an image shows the object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_ptsam._widgets.controls import show_row
from napari_ptsam._widgets.layers import axes_of, channel_axis, data_shape, set_channel_axis

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_ptsam._widgets.annotations import Annotations
    from napari_ptsam._widgets.state import SpecialistEntry

COLOURS = ("red", "green", "blue")
MOST_CHANNELS = 64
"""A longer axis is not offered as one of channels."""
FEW_CHANNELS = 8
"""A single slider that is longer goes through planes: the user is not asked."""


def channel_in(image: Image, channel: int | str | None) -> int | str | None:
    """A channel as the lists name it; None for an image that has none to choose from.

    Parameters
    ----------
    channel
        As a specialist's file or the user names it, by number or colour.
    """
    number = int(channel) if isinstance(channel, str) and channel.isdecimal() else channel
    if image.rgb:
        if isinstance(number, int) and number in range(len(COLOURS)):
            return COLOURS[number]
        return number
    axis = channel_axis(image)
    return None if axis is None or data_shape(image)[axis] == 1 else number


def usual_channel(
    image: Image, annotations: Annotations, entry: SpecialistEntry | None
) -> int | str | None:
    """The channel to look at unless told otherwise.

    It is the one that was chosen for annotating, else the one that the specialist learned on.
    """
    if image is annotations.image and annotations.channel is not None:
        return annotations.channel
    channels = {} if entry is None else entry.specialist.metadata.channels
    return channel_in(image, channels.get("channel"))


class HasChannel(Protocol):
    """An image, and which of its channels is used."""

    @property
    def image(self) -> Image | None:
        """The image layer."""

    @property
    def channel(self) -> int | str | None:
        """The channel to use of several, None for all."""

    @channel.setter
    def channel(self, value: int | str | None) -> None: ...


class ChannelChoice(QWidget):
    """Two lists: which axis holds channels, and which channel to use; hidden where needless.

    Parameters
    ----------
    source
        Whose image is asked for, and whose channel is set.
    """

    def __init__(self, source: HasChannel) -> None:
        super().__init__()
        self._source = source
        self._image: Image | None = None
        self.axis = QComboBox()
        self.axis.setToolTip("Whether one of the sliders goes through colour channels.")
        self.channel = QComboBox()
        self.channel.setToolTip("The channel in which the object is seen best.")
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.addRow("Channel axis", self.axis)
        self._form.addRow("Channel", self.channel)
        self.axis.activated.connect(self._on_axis)
        self.channel.activated.connect(self._on_channel)
        self.refresh()

    def refresh(self) -> None:
        """Show what there is to choose from for the image of now."""
        image = self._image = self._source.image
        with QSignalBlocker(self.axis), QSignalBlocker(self.channel):
            self._fill_axis(image)
            self._fill_channel(image)
        for box in (self.axis, self.channel):
            show_row(self._form, box, box.count() > 1)
        self.setVisible(self.axis.count() > 1 or self.channel.count() > 1)

    def _fill_axis(self, image: Image | None) -> None:
        self.axis.clear()
        self.axis.addItem("none", None)
        if image is None or image.rgb:
            return
        letters, sizes = axes_of(image), data_shape(image)[:-2]
        if len(sizes) == 1 and sizes[0] > FEW_CHANNELS and channel_axis(image) is None:
            return
        for axis, size in enumerate(sizes):
            if 1 < size <= MOST_CHANNELS:
                self.axis.addItem(f"slider {axis} ({letters[axis]}, {size} long)", axis)
        self.axis.setCurrentIndex(max(0, self.axis.findData(channel_axis(image))))

    def _fill_channel(self, image: Image | None) -> None:
        self.channel.clear()
        if image is None:
            return
        axis = channel_axis(image)
        if image.rgb:
            self.channel.addItem("all (colour)", None)
            for colour in COLOURS:
                self.channel.addItem(f"{colour} only", colour)
        elif axis is not None:
            count = data_shape(image)[axis]
            self.channel.addItem("all (as red, green, blue)" if count == 3 else "choose ...", None)
            for number in range(count):
                self.channel.addItem(str(number), number)
        self.channel.setCurrentIndex(max(0, self.channel.findData(self._source.channel)))

    def _on_axis(self) -> None:
        if self._image is not None:
            set_channel_axis(self._image, self.axis.currentData())
            self._source.channel = None

    def _on_channel(self) -> None:
        self._source.channel = self.channel.currentData()
