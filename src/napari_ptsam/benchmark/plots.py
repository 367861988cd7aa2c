"""Plots of a study, after the figures of the PTSAM paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from napari_ptsam.benchmark.config import MethodConfig
from napari_ptsam.benchmark.findings import drop_of
from napari_ptsam.benchmark.tables import Figures

INSTALL = "matplotlib is not installed: pip install 'napari-ptsam[benchmark]'"

FROZEN, TUNED, SCRATCH = "#2f6db3", "#c0392b", "#777777"
"""Colours of a frozen encoder, of a tuned one, and of methods without SAM."""

_COLOURS = (
    "#1b6ca8", "#d1495b", "#3a9d5d", "#e09f3e", "#7b5ea7", "#2a9d8f", "#b56576", "#6c757d",
    "#a3b18a", "#8d6346",
)  # fmt: skip


def can_plot() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def draw_plots(figures: Figures, folder: Path) -> dict[str, Path]:
    """Draw all plots that the results allow.

    Parameters
    ----------
    folder
        For the PNG files.

    Returns
    -------
    dict
        File by the plot's name: ``parameters``, ``images``, ``drop``, ``gain``, ``prompts``,
        ``curves``. One that would be empty is left out.
    """
    drawers: dict[str, Callable[[Figures], Any]] = {
        "parameters": draw_parameters,
        "images": draw_images,
        "drop": draw_drop,
        "gain": draw_gain,
        "prompts": draw_prompts,
        "curves": draw_curves,
    }
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for name, draw in drawers.items():
        path = folder / f"{name}.png"
        path.unlink(missing_ok=True)
        figure = draw(figures)
        if figure is not None:
            figure.savefig(path, dpi=110)
            drawn[name] = path
    return drawn


def draw_parameters(figures: Figures) -> Any:
    """Figure 1: Dice against trained parameters; size of the marks: training images."""
    marks = []
    for method in figures.main_methods():
        count = figures.fact(method.name, "parameters")
        for size in figures.config.sizes:
            dice = figures.over_data(method.name, size)
            if count is not None and dice is not None:
                marks.append((method, count, size, dice))
    if not marks:
        return None
    figure, axes = _figure(1, width=8.0, height=4.6)
    colours = _colours(figures)
    titled: set[str] = set()
    for method, count, size, dice in marks:
        axes[0].scatter(
            count, dice, s=30 * (1 + np.log2(size / figures.config.sizes[0])),
            marker=_mark(figures, method), color=colours[method.name], alpha=0.85,
            label=None if method.name in titled else method.shown,
        )  # fmt: skip
        titled.add(method.name)
    axes[0].set_xscale("log")
    axes[0].set_xlabel("trained parameters")
    axes[0].set_ylabel("test Dice, %, mean over data sets")
    sizes = ", ".join(map(str, figures.config.sizes))
    axes[0].set_title(
        f"o frozen encoder   x tuned encoder   ◆ no SAM;  larger: more images ({sizes})",
        fontsize=9,
    )
    _legend_beside(axes)
    return figure


def draw_images(figures: Figures) -> Any:
    """Dice against training images, one panel for each data set, SD over splits as bars."""
    if len(figures.config.sizes) < 2:
        return None
    lines = _lines_over_sizes(figures)
    if not lines:
        return None
    figure, axes = _figure(len(figures.config.data), width=3.4, height=4.4, legend=2.2)
    colours = _colours(figures)
    for axis, data in zip(axes, figures.config.data, strict=True):
        known = lines.get(data.name, [])
        for i, (method, points) in enumerate(known):
            sizes, means, sds = (np.array(values) for values in zip(*points, strict=True))
            # A little apart, so that bars can be told from each other.
            apart = 1.02 ** (i - (len(known) - 1) / 2)
            axis.errorbar(
                sizes * apart, means, yerr=sds, color=colours[method.name], capsize=2,
                lw=1.4, ms=5, marker=_mark(figures, method), ls=_dash(figures, method),
                label=method.shown,
            )  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_xticks(figures.config.sizes, [str(s) for s in figures.config.sizes])
        axis.minorticks_off()
        axis.set_title(data.shown, fontsize=10)
        axis.set_xlabel("training images")
    axes[0].set_ylabel("test Dice, %")
    _legend_beside(axes)
    return figure


def draw_drop(figures: Figures) -> Any:
    """Figure 4: what the smallest training sets cost, mean over data sets."""
    drops = drop_of(figures)
    if not drops:
        return None
    small, large = figures.config.sizes[0], figures.config.sizes[-1]
    figure, axes = _figure(1, width=7.0, height=3.8)
    methods = [m for m in figures.config.methods if m.name in drops]
    tuned = [figures.tunes_encoder(m) for m in methods]
    axes[0].bar(
        [m.shown for m in methods],
        [-drops[m.name] for m in methods],
        color=[SCRATCH if t is None else TUNED if t else FROZEN for t in tuned],
    )
    axes[0].axhline(0, color="black", lw=0.8)
    axes[0].set_ylabel(f"Dice at {small} less Dice at {large}, points")
    axes[0].set_title("blue: frozen encoder   red: tuned encoder   grey: no SAM", fontsize=9)
    _slant(axes[0])
    return figure


def draw_gain(figures: Figures) -> Any:
    """Figure 3: what tuning the encoder brings, by method, data set and size."""
    families, sizes = figures.families(), figures.config.sizes
    if not families:
        return None
    figure, axes = _figure(len(sizes), width=4.2, height=3.8, legend=1.4, alike=True)
    width = 0.8 / len(figures.config.data)
    for axis, size in zip(axes, sizes, strict=True):
        for i, data in enumerate(figures.config.data):
            gains = [figures.gain(data.name, a.name, b.name, size) for _, a, b in families]
            places = [n + (i + 0.5) * width - 0.4 for n, g in enumerate(gains) if g is not None]
            known = [gain for gain in gains if gain is not None]
            axis.bar(
                places, [g.mean for g in known], width, yerr=[g.sd or 0 for g in known],
                capsize=2, color=_COLOURS[i % len(_COLOURS)], label=data.shown,
            )  # fmt: skip
        axis.axhline(0, color="black", lw=0.8)
        axis.set_xticks(range(len(families)), [name for name, _, _ in families])
        axis.set_title(f"{size} training images", fontsize=10)
        _slant(axis)
    axes[0].set_ylabel("Dice gained by tuning the encoder, points")
    _legend_beside(axes)
    return figure


def draw_prompts(figures: Figures) -> Any:
    """Figure 5: Dice against the number of prompts, smallest size."""
    found = figures.by_prompts()
    if not found:
        return None
    figure, axes = _figure(len(found), width=3.8, height=3.4)
    titles = {
        "decoder": ("decoder prompts, frozen encoder", FROZEN),
        "encoder": ("prompts in each encoder block, 8 in the decoder", TUNED),
    }
    for axis, (where, (dice, data)) in zip(axes, found.items(), strict=True):
        counts = list(dice)
        axis.plot(counts, list(dice.values()), marker="o", color=titles[where][1])
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.minorticks_off()
        axis.set_xlabel(titles[where][0], fontsize=8)
        # Five points at least: stretched to the panel, tenths of a point would look like much.
        low, high = axis.get_ylim()
        spare = max(0.0, 5.0 - (high - low)) / 2
        axis.set_ylim(low - spare, high + spare)
        axis.set_title(", ".join(data), fontsize=8)
    axes[0].set_ylabel(f"test Dice, %, {figures.config.sizes[0]} images", fontsize=8)
    return figure


def draw_curves(figures: Figures) -> Any:
    """Training loss by step, mean over splits, with the smallest training sets."""
    size, rows = figures.config.sizes[0], []
    for data in figures.config.data:
        for method in [m for m in figures.config.methods if m.longer_than or not m.is_variant]:
            curves = [
                result["curve"]
                for _, result in figures.done(data=data.name, method=method.name, size=size)
                # Of one that was stopped and went on, the curve has only the steps since then.
                if result.get("curve") and not result.get("resumed")
            ]
            # Trainings that stopped early have other steps, and no mean with the others.
            same = [c for c in curves if [p[0] for p in c] == [p[0] for p in curves[0]]]
            if same:
                rows.append((data, method, np.mean(np.array(same), 0)))
    if not rows:
        return None
    figure, axes = _figure(len(figures.config.data), width=3.4, height=4.2, legend=2.2)
    colours = _colours(figures)
    for axis, data in zip(axes, figures.config.data, strict=True):
        for where, method, points in rows:
            if where is data:
                axis.plot(
                    points[:, 0], points[:, 1], color=colours[method.name], lw=1.2,
                    ls=_dash(figures, method), label=method.shown,
                )  # fmt: skip
        axis.set_title(data.shown, fontsize=10)
        axis.set_xlabel("training step")
    axes[0].set_ylabel(f"training loss, {size} images")
    _legend_beside(axes)
    return figure


def _lines_over_sizes(figures: Figures) -> dict[str, list[tuple[MethodConfig, list[Any]]]]:
    """Of each data set: methods with size, mean and SD, where there are two sizes at least."""
    found: dict[str, list[tuple[MethodConfig, list[Any]]]] = {}
    for data in figures.config.data:
        for method in figures.main_methods():
            points = []
            for size in figures.config.sizes:
                spread = figures.spread(data.name, method.name, size)
                if spread is not None:
                    points.append((size, spread.mean, spread.sd or 0.0))
            if len(points) > 1:
                found.setdefault(data.name, []).append((method, points))
    return found


def _figure(
    panels: int, width: float, height: float, legend: float = 0.0, *, alike: bool = False
) -> tuple[Any, Any]:
    """A figure without any global state, and its panels side by side, on one scale if `alike`."""
    kind: Any = import_module("matplotlib.figure").Figure
    figure = kind(figsize=(width * panels + legend, height), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharey=alike)[0]
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes


def _legend_beside(axes: Sequence[Any]) -> None:
    """A legend at the right of the last of the panels, of what any of them shows."""
    shown = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if shown:
        axes[-1].legend(
            shown.values(), shown, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7,
            frameon=False,
        )  # fmt: skip


def _slant(axis: Any) -> None:
    for label in axis.get_xticklabels():
        label.set(rotation=30, ha="right", fontsize=8)


def _colours(figures: Figures) -> dict[str, str]:
    """A colour for each family, or method that has none."""
    names = list(dict.fromkeys(m.family or m.name for m in figures.config.methods))
    chosen = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    return {m.name: chosen[m.family or m.name] for m in figures.config.methods}


def _mark(figures: Figures, method: MethodConfig) -> str:
    tuned = figures.tunes_encoder(method)
    return "D" if tuned is None else "X" if tuned else "o"


def _dash(figures: Figures, method: MethodConfig) -> str:
    tuned = figures.tunes_encoder(method)
    return ":" if tuned is None else "-" if tuned else "--"
