"""Small controls as all steps use them."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QWidget,
)


def button(text: str, tip: str) -> QPushButton:
    """A button that says what it does."""
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


def words(text: str = "") -> QLabel:
    """Text that is as wide as the dock."""
    label = QLabel(text)
    label.setWordWrap(True)
    return label


def row(*widgets: QWidget) -> QHBoxLayout:
    """Controls beside each other, of which the first takes what is left."""
    made = QHBoxLayout()
    for number, widget in enumerate(widgets):
        made.addWidget(widget, stretch=number == 0)
    return made


def combo(tip: str) -> QComboBox:
    """A list to choose from; long titles do not widen the dock."""
    made = QComboBox()
    made.setToolTip(tip)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(8)
    made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return made


def show_row(form: QFormLayout, field: QWidget, shown: bool) -> None:
    """Show a row of a form with its label, or hide both."""
    field.setVisible(shown)
    label = form.labelForField(field)
    if label is not None:
        label.setVisible(shown)
