"""The offer to bring back annotations of another time."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from napari_ptsam._widgets.autosave import Kept


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
        self._kept: Kept | None = None
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.restore = QPushButton("Restore")
        self.restore.setToolTip("Bring them back on a new labels layer.")
        self.dismiss = QPushButton("Not now")
        self.dismiss.setToolTip("Start anew. What was kept stays kept.")
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        row = QHBoxLayout()
        row.addWidget(self.restore)
        row.addWidget(self.dismiss)
        layout.addLayout(row)
        self.restore.clicked.connect(self._on_restore)
        self.dismiss.clicked.connect(self.hide)
        self.hide()

    def show_for(self, kept: Kept) -> None:
        """Offer annotations."""
        self._kept = kept
        planes = "1 plane" if kept.count == 1 else f"{kept.count} planes"
        self.text.setText(
            f"Your annotations of {planes} of this image from {kept.saved:%d %B %Y, %H:%M} "
            "were kept."
        )
        self.show()

    def _on_restore(self) -> None:
        self.hide()
        if self._kept is not None:
            self.accepted.emit(self._kept)
