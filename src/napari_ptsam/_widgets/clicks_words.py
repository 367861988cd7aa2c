"""What the click dock says of how things stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ptsam._widgets.layers import plane_name

if TYPE_CHECKING:
    from napari_ptsam._widgets.clicks_state import ClickState
    from napari_ptsam.clicking import ClickAnswer

HELP = (
    ("Left click", "this belongs to the object"),
    ("Right click", "this does not (or Shift+click)"),
    ("Shift+drag", "a box around the object"),
    ("Enter, A", "accept it, on to the next"),
    ("Ctrl+Z", "take back the last click"),
    ("Escape", "forget the object"),
)
"""What the mouse and the keys do while clicking is on."""

EMBEDDED = "embedded"
"""The backbone whose expected overlap says nothing: its clicks were learned without it."""

SURE = 0.5
"""Expected overlap from which on the model is believed."""


def help_text() -> str:
    """`HELP` as rich text."""
    rows = "".join(f"<tr><td><b>{a}</b>&nbsp;&nbsp;</td><td>{b}</td></tr>" for a, b in HELP)
    return f"<table>{rows}</table>"


def status(state: ClickState) -> str:
    """How things stand, and what to do next."""
    session, source, image = state.session, state.session.source, state.annotations.image
    if session.problem:
        return session.problem
    if image is None:
        return "Open an image (File > Open), or try one of File > Open Sample > PTSAM."
    if not session.on:
        return "Press <b>Start clicking</b>, then click on an object in the image."
    kept = " Your click is kept, and answered then." if session.said else ""
    index = source.index
    if source.problem or index is None:
        return source.problem or "Show one plane of the image, in 2D."
    if state.clicker is None:
        return f"Getting the model ready ...{kept}"
    asked = session.index if session.index is not None else index
    error = source.ready.error(asked)
    if error is not None:
        return str(error)
    if source.ready.get(asked) is None:
        return f"Looking at {plane_name(image, asked).lower()} ...{kept}"
    return _about_answer(state)


def _about_answer(state: ClickState) -> str:
    session = state.session
    if not session.said:
        return "Click on an object."
    if session.answer is None:
        return "Answering ..."
    specialist = bool(state.chosen and state.chosen.is_specialist)
    known = specialist or (state.chosen is not None and state.chosen.backbone != EMBEDDED)
    return answer_text(session.answer, specialist=specialist, score_known=known)


def answer_text(answer: ClickAnswer, *, specialist: bool, score_known: bool = True) -> str:
    """What to think of an answer; the score is told where the model learned to give one."""
    if not answer.mask[answer.region].any():
        advice = (
            "Click elsewhere, or draw a box."
            if specialist
            else "Train a click specialist for your objects in step 3, or choose a larger model."
        )
        return f"Nothing was found there. {advice}"
    if not score_known:
        return "Enter accepts it. Right click on what is too much, left click on what is missing."
    sure = "" if answer.score >= SURE else " The model is unsure: add clicks, or draw a box."
    return f"Expected overlap <b>{answer.score:.2f}</b>. Enter accepts it.{sure}"
