"""The settings of a training that most users leave alone: method, length, device, seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from magicgui.widgets import ComboBox, Container, SpinBox, create_widget
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QSizePolicy

PRESETS = {
    "quick": "Quick (150 steps)",
    "standard": "Longer (500 steps, twice)",
    "paper": "As published (20,000 steps)",
}
PRESET_TIPS = (
    "Good for a first look, and often good enough.",
    "Takes longer: tries larger views of the objects, in the end learns from all annotated "
    "planes, and segments more carefully, each plane looked at from four sides.",
    "The published method, step by step. Takes hours; no planes are kept out, so that no Dice "
    "to expect is told.",
)
DEVICES = {"auto": "Automatic", "cpu": "Processor", "cuda": "Graphics card", "mps": "Apple GPU"}

LABELS = {
    "rank": "Rank",
    "encoder": "Image encoder",
    "decoder": "Mask decoder",
    "positions": "Positions",
    "text_encoder": "Name as",
}
"""What to call the settings of methods, as far as they have words of their own."""

TIPS = {
    "rank": "How much may change: the higher, the more numbers are learned. 4 is usual.",
    "encoder": "Change the part of the model that looks at the images. Slower.",
    "decoder": "Change the part of the model that draws the masks.",
    "positions": "Learn anew where in the image what is. Many numbers.",
    "text_encoder": "How the name of the object becomes numbers. CLIP is downloaded (600 MB) and "
    "needs the package 'transformers'.",
}
_TEXTS = {"text_encoder": (("learned numbers", "learned"), ("text (CLIP)", ""))}
"""Texts to choose from, the first by default; an empty one is the method's own."""

_HIDDEN = ("labels", "mask_index")


@dataclass(frozen=True)
class Setting:
    """One setting of a method: a number, a yes or no, or one of a few texts."""

    name: str
    kind: type
    default: Any


@dataclass(frozen=True)
class MethodChoice:
    """A way of training, with what can be set about it.

    Attributes
    ----------
    name
        As in `napari_ptsam.methods`.
    title
        For people.
    settings
        In the order in which to show them.
    """

    name: str
    title: str
    settings: tuple[Setting, ...] = ()


PTSAM = MethodChoice("ptsam", "PTSAM (learned prompts)")
"""How much it learns is the choice between fast and thorough."""


def list_methods() -> list[MethodChoice]:
    """All methods; imports torch, so not for the GUI thread."""
    from napari_ptsam.methods import METHODS

    others = [m for name, m in METHODS.items() if name != PTSAM.name]
    return [PTSAM, *(MethodChoice(m.name, m.title, _settings(m.settings_type)) for m in others)]


def _settings(settings_type: type[Any]) -> tuple[Setting, ...]:
    kinds = get_type_hints(settings_type)
    return tuple(
        Setting(f.name, kinds[f.name], f.default)
        for f in fields(settings_type)
        if f.name not in _HIDDEN and (kinds[f.name] in (int, bool) or f.name in _TEXTS)
    )


class TrainSettings(Container):  # type: ignore[type-arg]
    """A form of method, length, device and seed, and of the settings of the chosen method."""

    def __init__(self) -> None:
        self._methods = [PTSAM]
        self.method = _choice("Method", "How the model is taught.", [(PTSAM.title, PTSAM.name)])
        self.length = _choice("Length", "How long to train.", [(t, n) for n, t in PRESETS.items()])
        _set_tips(self.length, PRESET_TIPS)
        self.device = _choice(
            "Compute on", "What to compute on.", [(t, n) for n, t in DEVICES.items()]
        )
        self.seed = SpinBox(
            name="seed",
            label="Seed",
            max=2**31 - 1,
            tooltip="Decides all that is random. The same seed, planes and settings give the same "
            "specialist.",
        )
        self._own: dict[str, ValueWidget[Any]] = {}
        super().__init__(widgets=[self.method, self.length, self.device, self.seed], labels=True)
        self.margins = (12, 0, 0, 0)
        self.method.changed.connect(self._on_method)

    def offer(self, methods: Sequence[MethodChoice]) -> None:
        """Offer these methods; the chosen one stays."""
        chosen = self.method.value
        self._methods = list(methods)
        with self.method.changed.blocked():
            self.method.choices = [(m.title, m.name) for m in methods]
            self.method.value = chosen

    @property
    def method_settings(self) -> dict[str, Any]:
        """What is set about the chosen method, as `Specialist.train_steps` takes it."""
        return {name: widget.value for name, widget in self._own.items() if widget.value != ""}

    def _on_method(self) -> None:
        for widget in self._own.values():
            self.remove(widget)
            widget.close()
        chosen = next(m for m in self._methods if m.name == self.method.value)
        self._own = {s.name: _control(s) for s in chosen.settings}
        for place, widget in enumerate(self._own.values(), start=1):
            self.insert(place, widget)


def _control(setting: Setting) -> ValueWidget[Any]:
    label = LABELS.get(setting.name, setting.name.replace("_", " ").capitalize())
    tip = TIPS.get(setting.name, "")
    if setting.name in _TEXTS:
        return _choice(label, tip, _TEXTS[setting.name])
    options: dict[str, Any] = {"tooltip": tip}
    if setting.kind is int:
        options |= {"min": 1, "max": 256}
    else:
        options |= {"text": ""}
    control: ValueWidget[Any] = create_widget(  # type: ignore[assignment]
        value=setting.default,
        annotation=setting.kind,
        name=f"method_{setting.name}",
        label=label,
        options=options,
    )
    return control


def _choice(label: str, tip: str, choices: Sequence[tuple[str, Any]]) -> ComboBox:
    widget = ComboBox(
        name=label.replace(" ", "_").lower(), label=label, tooltip=tip, choices=list(choices),
        value=choices[0][1],
    )  # fmt: skip
    combo = _native(widget)
    # Long titles must not widen the dock.
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return widget


def _set_tips(widget: ComboBox, tips: Sequence[str]) -> None:
    for number, tip in enumerate(tips):
        _native(widget).setItemData(number, tip, Qt.ItemDataRole.ToolTipRole)


def _native(widget: ComboBox) -> QComboBox:
    return widget.native
