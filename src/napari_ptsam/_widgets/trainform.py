"""What a user can choose about a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QRadioButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_ptsam._widgets.controls import combo
from napari_ptsam._widgets.training import Request
from napari_ptsam._widgets.trainsettings import (
    PTSAM,
    MethodChoice,
    TrainSettings,
    list_methods,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ptsam.specialist import Specialist

OWN_FILE = "A file of your own ..."


@dataclass(frozen=True)
class BackboneChoice:
    """A line of the list of models."""

    name: str
    title: str
    tip: str


EMBEDDED = BackboneChoice("embedded", "Small SAM (in this plugin)", "Needs no download.")


def list_choices() -> tuple[list[BackboneChoice], list[MethodChoice]]:
    """The models that are known by name, and the ways to train them.

    Imports torch, so not for the GUI thread.
    """
    from napari_ptsam.backbones import list_backbones
    from napari_ptsam.backbones.download import local_file

    choices = []
    for spec in list_backbones():
        there = local_file(spec).is_file()
        tip = f"{spec.title}. {spec.description} Licence: {spec.licence}."
        title = EMBEDDED.title if spec.name == EMBEDDED.name else spec.title
        choices.append(BackboneChoice(spec.name, title if there else f"{title} (download)", tip))
    return choices, list_methods()


class TrainForm(QWidget):
    """The controls.

    Attributes
    ----------
    changed
        Emitted when the user changed something.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._files: list[Path] = []
        self._make_controls()
        self._lay_out()
        self.backbone.currentIndexChanged.connect(self.changed)
        self.settings.changed.connect(self._on_settings)
        self.backbone.activated.connect(self._on_backbone)
        self.modes.buttonToggled.connect(self._on_mode)
        self.advanced.toggled.connect(self._on_advanced)
        self._on_advanced(False)

    def _make_controls(self) -> None:
        self.class_name = QLineEdit("object")
        self.class_name.setMaxLength(60)
        self.class_name.setToolTip("What you painted, such as nucleus. Names the specialist.")
        self.backbone = combo("The model that is taught. It is not changed by training.")
        self.set_backbones([EMBEDDED])
        self.fast = QRadioButton("Fast (2,048 numbers)")
        self.fast.setToolTip(
            "Teaches the part of the model that draws masks. The images are looked at once, "
            "after that training takes seconds, and so does training again."
        )
        self.thorough = QRadioButton("Thorough (encoder too, slower)")
        self.thorough.setToolTip(
            "Also teaches the part that looks at the images. Each step looks at them anew, which "
            "takes much longer. With the small model it has hardly ever helped; with larger ones "
            "it may, where images look unlike photographs."
        )
        self.fast.setChecked(True)
        self.modes = QButtonGroup(self)
        self.modes.addButton(self.fast)
        self.modes.addButton(self.thorough)
        self.advanced = QToolButton()
        self.advanced.setText("Advanced")
        self.advanced.setCheckable(True)
        self.advanced.setAutoRaise(True)
        self.advanced.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.advanced.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.settings = TrainSettings()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Object", self.class_name)
        form.addRow("Model", self.backbone)
        self.more: QWidget = self.settings.native
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        for widget in (self.fast, self.thorough, self.advanced, self.more):
            layout.addWidget(widget)

    def set_choices(self, choices: tuple[list[BackboneChoice], list[MethodChoice]]) -> None:
        """Offer these models and methods; the chosen ones stay."""
        backbones, methods = choices
        self.set_backbones(backbones)
        self.settings.offer(methods)

    def set_backbones(self, choices: list[BackboneChoice]) -> None:
        """Offer these models; the chosen one stays."""
        chosen = self.backbone.currentData() or EMBEDDED.name
        with QSignalBlocker(self.backbone):
            self.backbone.clear()
            for choice in choices:
                self.backbone.addItem(choice.title, choice.name)
                tip = Qt.ItemDataRole.ToolTipRole
                self.backbone.setItemData(self.backbone.count() - 1, choice.tip, tip)
            for path in self._files:
                self.backbone.addItem(path.name, str(path))
            self.backbone.addItem(OWN_FILE, None)
            self._last = max(self.backbone.findData(chosen), 0)
            self.backbone.setCurrentIndex(self._last)

    def add_file(self, path: Path) -> None:
        """Offer the checkpoint file of a SAM, and choose it."""
        self._files.append(path)
        place = self.backbone.count() - 1
        self.backbone.insertItem(place, path.name, str(path))
        self._last = place
        self.backbone.setCurrentIndex(place)

    def request(self, examples: Mapping[str, Any], start: Specialist | None = None) -> Request:
        """What is asked for.

        Parameters
        ----------
        examples
            What to learn from.
        start
            A specialist to go on from. Its model and mode are used again.
        """
        name = self.class_name.text().strip() or "object"
        settings, anew = self.settings, start is None
        return Request(
            examples=examples,
            backbone=self.backbone.currentData() or EMBEDDED.name,
            device=settings.device.value,
            encoder_prompts=anew and self._has_modes() and self.thorough.isChecked(),
            preset=settings.length.value,
            seed=settings.seed.value,
            class_name=name,
            start_from=start,
            method=settings.method.value if anew else PTSAM.name,
            method_settings=settings.method_settings if anew else {},
        )

    def _has_modes(self) -> bool:
        return bool(self.settings.method.value == PTSAM.name)

    def _on_settings(self) -> None:
        for button in (self.fast, self.thorough):
            button.setVisible(self._has_modes())
        self.changed.emit()

    def _on_mode(self, _: QRadioButton, checked: bool) -> None:
        if checked:
            self.changed.emit()

    def _on_backbone(self, index: int) -> None:
        if index < self.backbone.count() - 1:
            self._last = index
            return
        self.backbone.setCurrentIndex(self._last)
        name, _ = QFileDialog.getOpenFileName(
            self, "Checkpoint of a SAM", "", "SAM weights (*.pth *.pt *.safetensors)"
        )
        if name:
            self.add_file(Path(name))

    def _on_advanced(self, opened: bool) -> None:
        self.more.setVisible(opened)
        arrow = Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow
        self.advanced.setArrowType(arrow)
