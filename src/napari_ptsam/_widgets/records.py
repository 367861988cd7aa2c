"""What is known of a specialist, as text to read."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari_ptsam._widgets.words import duration

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import SpecialistEntry

Rows = Iterator[tuple[str, Any]]


def dice_of(entry: SpecialistEntry) -> float | None:
    """Dice on masks that were held out from training, None if it was not measured."""
    dice = entry.specialist.metadata.training.get("held_out_dice")
    return float(dice) if isinstance(dice, int | float) else None


def date_of(entry: SpecialistEntry) -> str:
    """Day of the training, empty if it is not known."""
    return str(entry.specialist.metadata.training.get("date", ""))


def details(entry: SpecialistEntry) -> str:
    """The training record of a specialist, HTML for a text view."""
    rows = [*_identity(entry), *_training(entry), *_use(entry), *_versions(entry)]
    cells = "".join(
        f"<tr><td><b>{html.escape(name)}</b>&nbsp;&nbsp;</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows
        if value not in (None, "")
    )
    return f"{_expectation(entry)}<table>{cells}</table>"


def _expectation(entry: SpecialistEntry) -> str:
    dice = dice_of(entry)
    if dice is None:
        return "<p>No masks were held out from training, so nobody knows how good it is.</p>"
    return (
        f"<p>On masks held out from training it reached a Dice of <b>{dice:.2f}</b> (1 is "
        "perfect): expect about that on images like these.</p>"
    )


def _identity(entry: SpecialistEntry) -> Rows:
    metadata = entry.specialist.metadata
    yield "Object", metadata.class_name
    yield "Backbone", metadata.backbone_name
    yield "Fingerprint", metadata.backbone_identity[:12]
    yield "Learned", f"{entry.specialist.trainable_parameters:,} numbers ({metadata.method})"
    kept = "kept for now" if entry.kept is not None else "none yet"
    yield "File", entry.path if entry.path is not None else f"{kept}: export it to keep it"


def _training(entry: SpecialistEntry) -> Rows:
    record = entry.specialist.metadata.training
    plan = record.get("plan") if isinstance(record.get("plan"), dict) else {}
    held_out = record.get("held_out")
    yield "Date", record.get("date")
    yield "Planes", record.get("images")
    if isinstance(held_out, list) and held_out:
        yield "Held out", ", ".join(map(str, held_out))
    yield "Preset", (plan or {}).get("preset")
    steps = record.get("steps")
    yield "Steps", "none: it was best as it began" if steps == 0 else steps
    seconds = record.get("seconds")
    yield "Took", duration(seconds, short=True) if isinstance(seconds, int | float) else None
    yield "Seed", record.get("seed")


def _use(entry: SpecialistEntry) -> Rows:
    metadata = entry.specialist.metadata
    normal, scale = metadata.normalization, metadata.working_scale
    yield "Threshold", f"{metadata.threshold:g}"
    if "low" in normal and "high" in normal:
        unit = "stack" if normal.get("per") == "stack" else "image"
        yield "Brightness", f"percentiles {normal['low']} to {normal['high']} of each {unit}"
    if scale.get("mode") == "fit":
        yield "Scale", "whole images, fitted to the model"
    elif "factor" in scale:
        yield "Scale", f"tiles at {scale['factor']} of the image's pixels"
    yield "Channel", metadata.channels.get("channel")


def _versions(entry: SpecialistEntry) -> Rows:
    record = entry.specialist.metadata.training
    packages = record.get("packages")
    if isinstance(packages, dict):
        yield "Versions", ", ".join(f"{name} {version}" for name, version in packages.items())
    yield "Data", str(record.get("data_hash", ""))[:16]
    yield "Command", record.get("command")
