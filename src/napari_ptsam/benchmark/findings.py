"""Which findings of the PTSAM paper hold in a study, each by a rule that is told beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_ptsam.benchmark.tables import Figures

NOT_TESTED = "not tested"
"""Verdict where nothing was run that could tell."""

ENOUGH = 8
"""Prompts in the paper."""

NO_MATTER = 1.0
"""Points of Dice by which more prompts must improve to count."""


@dataclass(frozen=True)
class Finding:
    """A statement of the paper, and what became of it here.

    Attributes
    ----------
    statement
        Of the paper.
    verdict
        ``holds``, ``holds in part``, ``does not hold`` or ``not tested``.
    rule
        What decides.
    evidence
        Lines of figures.
    """

    statement: str
    verdict: str
    rule: str
    evidence: tuple[str, ...]


def find_all(figures: Figures) -> list[Finding]:
    """The four statements that a study can speak of."""
    return [
        encoder_prompts_help(figures),
        loses_least(figures),
        others_overfit(figures),
        eight_suffice(figures),
    ]


def encoder_prompts_help(figures: Figures) -> Finding:
    """Section 4.2.3: encoder prompts improve on decoder prompts on every data set."""
    gains, lines = [], []
    for _, frozen, tuned in figures.families():
        if frozen.method != "ptsam":
            continue
        for data in figures.config.data:
            for size in figures.config.sizes:
                gain = figures.gain(data.name, frozen.name, tuned.name, size)
                if gain is not None:
                    gains.append(gain.mean)
                    lines.append(f"{data.shown}, {size} images: {_points(gain.mean)}")
    return Finding(
        "Encoder prompts improve on decoder prompts alone.",
        _verdict([gain > 0 for gain in gains]),
        "The mean Dice over splits is higher with encoder prompts; in part if only on some data "
        "sets and sizes.",
        tuple(lines),
    )


def loses_least(figures: Figures) -> Finding:
    """Section 4.2.4: from 64 to 16 images PTSAM loses least, least of all with encoder prompts."""
    small, large = figures.config.sizes[0], figures.config.sizes[-1]
    drops = sorted(drop_of(figures).items(), key=lambda item: item[1])
    titles = {m.name: m.shown for m in figures.config.methods}
    ours = {m.name for m in figures.config.methods if m.method == "ptsam"}
    best_rival = min((drop for name, drop in drops if name not in ours), default=None)
    verdicts = [
        drop < best_rival for name, drop in drops if name in ours and best_rival is not None
    ]
    return Finding(
        f"From {large} to {small} images PTSAM loses least.",
        _verdict(verdicts),
        "Each of PTSAM's rows loses less Dice, as mean over data sets, than any other method; in "
        "part if only some of its rows do.",
        tuple(f"{titles[name]}: {_points(-drop)}" for name, drop in drops),
    )


def drop_of(figures: Figures) -> dict[str, float]:
    """Loss of Dice from the largest to the smallest training sets, mean over data sets."""
    small, large = figures.config.sizes[0], figures.config.sizes[-1]
    found = {}
    for method in figures.main_methods():
        less, more = (figures.over_data(method.name, size) for size in (small, large))
        if less is not None and more is not None and small != large:
            found[method.name] = more - less
    return found


def others_overfit(figures: Figures) -> Finding:
    """Sections 4.2.1 to 4.2.3: with few images, tuning the encoder in other ways does harm."""
    size, verdicts, lines = figures.config.sizes[0], [], []
    for name, frozen, tuned in figures.families():
        if frozen.method == "ptsam":
            continue
        each = []
        for data in figures.config.data:
            gain = figures.gain(data.name, frozen.name, tuned.name, size)
            loss = figures.loss_change(data.name, frozen.name, tuned.name, size)
            if gain is not None and loss is not None:
                verdicts.append(gain.mean < 0 and loss <= 0)
                each.append(f"{data.shown} {_points(gain.mean)}, loss {loss:+.3f}")
        if each:
            lines.append(f"{name}: {'; '.join(each)}")
    return Finding(
        f"Heavier tuning of the encoder overfits with {size} images.",
        _verdict(verdicts),
        "The row with a tuned encoder has a lower mean Dice than the one with a frozen encoder, "
        "though its training loss at the end is no higher: one that has only learned less so far "
        "does not overfit; in part if only on some data sets or for some methods.",
        tuple(lines),
    )


def eight_suffice(figures: Figures) -> Finding:
    """Section 4.3: more than eight prompts bring little."""
    verdicts, lines = [], []
    for where, (dice, data) in figures.by_prompts().items():
        told = ", ".join(f"{n} prompt{'s' * (n > 1)} {mean:.1f}" for n, mean in dice.items())
        lines.append(f"{where} ({', '.join(data)}): {told}")
        more = [mean for n, mean in dice.items() if n > ENOUGH]
        if ENOUGH in dice and more:
            verdicts.append(max(more) - dice[ENOUGH] < NO_MATTER)
    return Finding(
        f"{ENOUGH} prompts suffice.",
        _verdict(verdicts),
        f"More than {ENOUGH} prompts improve the Dice, as mean over data sets with "
        f"{figures.config.sizes[0]} images, by less than {NO_MATTER:g} point; in part if only in "
        "the decoder or the encoder.",
        tuple(lines),
    )


def _verdict(cases: Sequence[bool]) -> str:
    if not cases:
        return NOT_TESTED
    if all(cases):
        return "holds"
    return "holds in part" if any(cases) else "does not hold"


def _points(value: float) -> str:
    return f"{value:+.1f}"
