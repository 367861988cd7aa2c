"""What of a specialist stays when a training goes on from it, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ptsam.backbones import Backbone
from napari_ptsam.errors import InputError
from napari_ptsam.methods import Method

if TYPE_CHECKING:
    from napari_ptsam.specialist import Specialist


def origin_of(start: Specialist) -> dict[str, Any]:
    """As much of a specialist as tells which one a training went on from."""
    record = start.metadata.training
    facts = {name: record.get(name) for name in ("data_hash", "date", "images", "steps")}
    return {"file": None if start.path is None else start.path.name, **facts}


def check_start(
    start: Specialist,
    backbone: str | Path | Backbone | None,
    encoder_prompts: bool,
    method: str | None,
    settings: Mapping[str, Any] | None,
) -> None:
    """Raise if a run is to differ from what it goes on from in what cannot be changed."""
    if isinstance(backbone, Backbone):
        fits = backbone.identity == start.backbone.identity
    else:
        fits = backbone is None or str(backbone) == start.backbone.name
    if not fits:
        name = backbone.name if isinstance(backbone, Backbone) else backbone
        raise InputError(
            f"The specialist to go on from works on the backbone '{start.backbone.name}' and "
            f"cannot be trained on '{name}'. Leave the choice of a backbone away, or start anew."
        )
    if method not in (None, start.method.name) or settings:
        raise InputError(
            f"The specialist to go on from was made by the method '{start.method.name}' with the "
            f"settings {start.method.settings_dict}, which stay. Leave method and settings away, "
            "or start anew."
        )
    if encoder_prompts and start.method.works_on_embeddings:
        raise InputError(
            "The specialist to go on from has no encoder prompts, so none can be trained on. "
            "Train again without encoder prompts, or start anew with them."
        )


def names_of(method: Method) -> tuple[str, ...]:
    """The objects that a method tells apart; none if it knows one, whatever it is called."""
    return tuple(method.settings_dict["labels"]) if method.knows_names else ()


def object_name(
    start: Specialist | None, given: str | None, classes: Mapping[str, int] | None
) -> str:
    """What the object is called that a specialist will predict."""
    first = next(iter(classes)) if classes else given
    if start is None:
        return first or "object"
    known = names_of(start.method)
    _check_classes(start.method, known, classes)
    # A method that knows names can be asked for no other: one that it does not know is passed over.
    own = start.metadata.class_name
    return next(n for n in (given, own, *known) if n in known) if known else first or own


def _check_classes(method: Method, known: Sequence[str], classes: Mapping[str, int] | None) -> None:
    """Raise if a method to go on with cannot learn these objects, or is to forget one."""
    if not known and classes is not None and len(classes) > 1:
        raise InputError(
            f"The specialist to go on from was made by the method '{method.name}', which learns "
            f"one object, not {', '.join(classes)} at once. Give one of them, or start anew with "
            "a method that learns several."
        )
    if known and (len(known) > 1 if classes is None else set(classes) != set(known)):
        given = "no labels by name" if classes is None else f"labels of {', '.join(classes)}"
        example = ", ".join(f'"{name}": {label}' for label, name in enumerate(known, start=1))
        raise InputError(
            f"The specialist to go on from knows {', '.join(known)} by name, but there are {given} "
            f"to go on with. Give each its label in the masks, such as classes={{{example}}}, or "
            "start anew."
        )
