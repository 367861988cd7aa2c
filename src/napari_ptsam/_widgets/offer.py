"""The offer to bring back annotations of another time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QPushButton, QVBoxLayout

from napari_ptsam._widgets.controls import combo, row, words
from napari_ptsam._widgets.keeping import Kept
from napari_ptsam._widgets.words import planes


class RestoreOffer(QFrame):
    """Says what was kept for the image, and asks whether to bring it back.

    Attributes
    ----------
    accepted
        Emitted with the `Kept` annotations if the user wants them.
    """

    accepted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Kept] = []
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = words()
        self.which = combo(
            "The labels layers that were kept. Each comes back on a layer of its own."
        )
        self.restore = QPushButton("Restore")
        self.restore.setToolTip("Bring them back on a new labels layer.")
        self.dismiss = QPushButton("Not now")
        self.dismiss.setToolTip("Start anew. What was kept stays kept.")
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        layout.addWidget(self.which)
        layout.addLayout(row(self.restore, self.dismiss))
        self.restore.clicked.connect(self._on_restore)
        self.dismiss.clicked.connect(self.clear)
        self.hide()

    def show_for(self, kept: Sequence[Kept]) -> None:
        """Offer annotations, one or several of which the user chooses one; with none hide."""
        self._kept = list(kept)
        self.which.clear()
        for one in self._kept:
            self.which.addItem(
                f"{one.labels or 'labels'}: {planes(one.count)}, {one.saved:%d %B, %H:%M}"
            )
        self.which.setVisible(len(self._kept) > 1)
        self.text.setText(_said_of(self._kept))
        self.setVisible(bool(self._kept))

    def clear(self) -> None:
        """Offer nothing."""
        self.show_for([])

    def leave_out(self, folders: Collection[str]) -> None:
        """Offer no longer what lies in folders of these names."""
        left = [kept for kept in self._kept if kept.folder.name not in folders]
        if len(left) < len(self._kept):
            self.show_for(left)

    def _on_restore(self) -> None:
        index = self.which.currentIndex()
        if 0 <= index < len(self._kept):
            kept = self._kept[index]
            # The others are still to be had.
            self.leave_out({kept.folder.name})
            self.accepted.emit(kept)


def _said_of(kept: Sequence[Kept]) -> str:
    if len(kept) > 1:
        return f"Your annotations of this image were kept, on {len(kept)} labels layers."
    return "".join(
        f"Your annotations of {planes(one.count)} of this image from "
        f"{one.saved:%d %B %Y, %H:%M} were kept."
        for one in kept
    )
