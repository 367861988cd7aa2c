"""What a report says of where its figures come from: study, backbone, machine, packages, code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from napari_ptsam.benchmark.results import Result
from napari_ptsam.benchmark.tables import Figures

_IDENTITY_DIGITS = 12
"""Of a backbone's identity that are shown, as elsewhere."""


def describe_setting(figures: Figures) -> Iterator[str]:
    """Lines of Markdown, in paragraphs."""
    config = figures.config
    yield (
        f"Backbone `{config.backbone}`; {', '.join(map(str, config.sizes))} training images, each "
        f"set within the next; {config.splits} splits, {len(config.seeds)} seed"
        f"{'s' * (len(config.seeds) > 1)}; preset `{config.training.preset}`"
        + (f", {config.training.steps} steps" if config.training.steps else "")
        + f", scale `{config.training.scale}`."
    )
    yield ""
    ends = Counter("not run" if r is None else r["status"] for _, r in figures.found)
    yield "Cells: " + ", ".join(f"{count} {status}" for status, count in ends.items()) + "."
    yield ""
    yield from _weights(figures)
    for name, what in (("machine", "Machine"), ("packages", "Packages"), ("commit", "Code")):
        told = dict.fromkeys(_told(result, name) for _, result in figures.done())
        if told:
            yield f"{what}: {'; '.join(told)}."
            yield ""


def machines(figures: Figures) -> set[str]:
    """What finished cells ran on."""
    return {_told(result, "machine") for _, result in figures.done()}


def _weights(figures: Figures) -> Iterator[str]:
    """Identities of the backbone: a name may stand for other weights later."""
    told = (result.get("backbone") for _, result in figures.done())
    counts = Counter(str(identity)[:_IDENTITY_DIGITS] for identity in told if identity)
    if not counts:
        return
    if len(counts) == 1:
        yield f"Weights: `{next(iter(counts))}`."
    else:
        named = ", ".join(f"`{i}` ({n} cell{'s' * (n > 1)})" for i, n in counts.items())
        yield (
            f"**Not to be compared:** the cells ran on {len(counts)} different backbones, with the "
            f"weights {named}. The next run of the study does those again that are not of its own."
        )
    yield ""


def _told(result: Result, name: str) -> str:
    around = result["circumstances"]
    if name == "machine":
        machine = around["machine"]
        gpu = f", {machine['gpu']}" if machine["gpu"] else ""
        return f"{machine['processor']}, {machine['cores']} cores{gpu}, {machine['system']}"
    if name == "packages":
        known = {k: v for k, v in around["packages"].items() if v}
        return f"Python {around['python']}, " + ", ".join(f"{k} {v}" for k, v in known.items())
    changed = " with uncommitted changes" if around["uncommitted_changes"] else ""
    return f"commit {around['commit'] or 'unknown'}{changed}, {around['date']}"
