"""The report of a study: Markdown, plots and one table of all cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from napari_ptsam.benchmark.config import MethodConfig
from napari_ptsam.benchmark.datasets import DataSet, terms
from napari_ptsam.benchmark.findings import NOT_TESTED, find_all
from napari_ptsam.benchmark.panels import draw_panels
from napari_ptsam.benchmark.plots import INSTALL, can_plot, draw_plots
from napari_ptsam.benchmark.results import Results, Status, on_processors
from napari_ptsam.benchmark.setting import describe_setting, machines
from napari_ptsam.benchmark.splits import Splits
from napari_ptsam.benchmark.tables import SCORES, Figures, write_csv

CAPTIONS = {
    "parameters": "Dice against trained parameters",
    "images": "Dice against training images (bars: SD over splits)",
    "drop": "What fewer images cost, as mean over data sets",
    "gain": "What tuning the encoder brings (bars: SD over splits of the difference)",
    "prompts": "Dice against the number of prompts",
    "curves": "Training loss (means of equal stretches of steps, over splits)",
}


def write_report(
    results: Results, splits: dict[str, Splits | None], data: Mapping[str, DataSet]
) -> Path:
    """Write ``report.md``, ``results.csv`` and ``plots`` into the study's folder.

    Parameters
    ----------
    results
        Of the study, finished or not.
    splits
        By data set; None where they are not known.
    data
        Those data sets that are here, for pictures of them.

    Returns
    -------
    Path
        The report.
    """
    figures = Figures(results, splits)
    results.output.mkdir(parents=True, exist_ok=True)
    write_csv(figures, results.output / "results.csv")
    path = results.output / "report.md"
    text = "\n".join(_lines(figures, data)).rstrip() + "\n"
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
    return path


def _lines(figures: Figures, data: Mapping[str, DataSet]) -> Iterator[str]:
    yield f"# {figures.config.title}"
    yield ""
    yield from describe_setting(figures)
    yield from _dice_table(figures)
    yield from _findings(figures)
    yield from _plots(figures, data)
    yield from _other_scores(figures)
    yield from _costs(figures)
    yield from _longer(figures)
    yield from _not_done(figures)
    yield from _sources(figures)


def _dice_table(figures: Figures) -> Iterator[str]:
    config, main = figures.config, figures.main_methods()
    others = [m for m in config.methods if m not in main]
    yield "## Test Dice"
    yield ""
    yield (
        "Percent; mean over test images at their own resolution, then mean ± SD (n - 1) over "
        "splits; the best of a column in bold, a number of splits in brackets where some lack."
    )
    yield ""
    yield from _dice_of(figures, main, config.sizes)
    for data in config.data:
        splits = figures.splits[data.name]
        if splits is not None:
            yield from _about_splits(data.shown, splits, config.sizes)
    yield ""
    if others:
        yield "Variants, run with some of the sizes only:"
        yield ""
        wanted = {size for m in others for size in m.sizes or config.sizes}
        yield from _dice_of(figures, others, [size for size in config.sizes if size in wanted])


def _dice_of(
    figures: Figures, methods: Sequence[MethodConfig], sizes: Sequence[int]
) -> Iterator[str]:
    """A row for each method, a column for each data set and size."""
    columns = [(data, size) for data in figures.config.data for size in sizes]
    table = [[figures.spread(data.name, m.name, size) for data, size in columns] for m in methods]
    best = [max((s.mean for s in column if s), default=None) for column in zip(*table, strict=True)]
    rows = []
    for method, spreads in zip(methods, table, strict=True):
        texts = []
        for spread, top in zip(spreads, best, strict=True):
            text = "-" if spread is None else spread.text()
            if spread is not None and spread.n < figures.config.splits:
                text += f" ({spread.n})"
            texts.append(f"**{text}**" if spread is not None and spread.mean == top else text)
        rows.append([method.shown, *texts])
    yield from _table(["", *(f"{data.shown}, {size}" for data, size in columns)], rows)


def _about_splits(title: str, splits: Splits, sizes: Sequence[int]) -> Iterator[str]:
    there = max(len(names) for names in splits.train)
    origin = "came with the data" if splits.given else "a fifth of the images, drawn once"
    line = f"- {title}: {len(splits.test)} test images ({origin}), the same in all splits"
    alike = [
        size
        for size in sizes
        if len({frozenset(s[:size]) for s in splits.train}) < len(splits.train)
    ]
    if alike and there >= alike[0]:
        line += (
            f"; with {', '.join(map(str, alike))} images all splits have the same training "
            "images, so that their SD is that of the seed alone"
        )
    yield line + "."


def _findings(figures: Figures) -> Iterator[str]:
    found = find_all(figures)
    if all(finding.verdict == NOT_TESTED for finding in found):
        return
    yield "## Findings of the PTSAM paper"
    yield ""
    missing = sum(result is None for _, result in figures.found)
    if missing:
        yield (
            f"Provisional: {missing} of {len(figures.found)} trainings were not run yet, and what "
            "follows is from the others."
        )
        yield ""
    for letter, finding in zip("abcd", found, strict=True):
        yield f"**({letter}) {finding.statement}** Here: **{finding.verdict}**."
        yield f"Rule: {finding.rule}"
        yield ""
        yield from (f"- {line}" for line in finding.evidence)
        yield ""


def _plots(figures: Figures, data: Mapping[str, DataSet]) -> Iterator[str]:
    yield "## Plots"
    yield ""
    if not can_plot():
        yield f"None: {INSTALL}."
        yield ""
        return
    folder = figures.output / "plots"
    for name, path in draw_plots(figures, folder).items():
        yield f"![{CAPTIONS[name]}](plots/{path.name})"
        yield ""
    for opened in data.values():
        picture = draw_panels(figures, opened, folder / "pictures")
        if picture is not None:
            size = figures.config.sizes[0]
            yield (
                f"{opened.config.shown}, test images drawn at random, {size} training images; "
                "missed pixels (false negatives) orange, false positives red:"
            )
            yield ""
            yield f"![Results on {opened.config.shown}](plots/pictures/{picture.name})"
            yield ""


def _other_scores(figures: Figures) -> Iterator[str]:
    config = figures.config
    names = [name for name in SCORES if name != "dice_mean"]
    columns = [(name, size) for name in names for size in config.sizes]
    rows = []
    for method in config.methods:
        found = [figures.over_data(method.name, size, name) for name, size in columns]
        rows.append([method.shown, *("-" if v is None else f"{v:.1f}" for v in found)])
    yield "## Other scores"
    yield ""
    yield "Percent, means over splits and data sets. Each image's scores are in `cells`."
    yield ""
    yield from _table(["", *(f"{SCORES[name]}, {size}" for name, size in columns)], rows)


def _costs(figures: Figures) -> Iterator[str]:
    config = figures.config
    rows = []
    for method in config.methods:
        seconds = [figures.fact(method.name, "train_seconds", size) for size in config.sizes]
        rows.append(
            [
                method.shown,
                _number(figures.fact(method.name, "parameters"), "{:,.0f}"),
                _number(figures.fact(method.name, "file_bytes"), "{:,.1f}", 1e-3),
                *(_number(value, "{:,.1f}") for value in seconds),
                _number(figures.fact(method.name, "seconds_per_image"), "{:.3f}"),
                _number(figures.fact(method.name, "peak_memory_bytes"), "{:,.0f}", 1e-6),
            ]
        )
    yield "## Costs"
    yield ""
    yield "Means over cells. Peak memory: of the process, or of tensors on a GPU."
    kinds = {on_processors(result) for _, result in figures.done()}
    if len(kinds) > 1:
        yield "Seconds are those that processors worked on a CPU, and those that passed on a GPU."
    different = len(machines(figures))
    if different > 1:
        yield (
            f"Seconds and memory are of {different} machines, each with some of the cells: "
            "differences between rows may be those between machines."
        )
    yield ""
    unit = "processor seconds" if kinds == {True} else "s"
    titles = ["", "trained parameters", "file, kB"]
    titles += [f"training, {unit}, {size} images" for size in config.sizes]
    yield from _table([*titles, f"{unit} per image", "peak memory, MB"], rows)


def _longer(figures: Figures) -> Iterator[str]:
    """Rows that repeat others with more steps."""
    config, titles = figures.config, {m.name: m.shown for m in figures.config.methods}
    rows = []
    for method in config.methods:
        for data in config.data if method.longer_than else ():
            for size in method.sizes or config.sizes:
                gain = figures.gain(data.name, method.longer_than, method.name, size)
                if gain is not None:
                    what = [method.shown, titles[method.longer_than], data.shown, str(size)]
                    rows.append([*what, gain.text()])
    if not rows:
        return
    yield "## Are the steps enough?"
    yield ""
    yield "What more steps bring, in points of Dice, mean ± SD over splits of the difference:"
    yield ""
    yield from _table(["with more steps", "against", "data", "images", "Dice gained"], rows)


def _not_done(figures: Figures) -> Iterator[str]:
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for cell, result in figures.found:
        if result is not None and result["status"] != Status.DONE:
            reason = result["reason"].replace("\n", " ")
            key = (result["status"], cell.method, reason)
            grouped.setdefault(key, []).append(cell.name)
    missing = Counter(cell.method for cell, result in figures.found if result is None)
    if not grouped and not missing:
        return
    yield "## What was not done"
    yield ""
    rows = [
        [status, method, str(len(cells)), reason.replace("|", "/")]
        for (status, method, reason), cells in sorted(grouped.items())
    ]
    rows += [["not run", method, str(count), ""] for method, count in missing.items()]
    yield from _table(["", "method", "cells", "reason"], rows)


def _sources(figures: Figures) -> Iterator[str]:
    yield "## Data"
    yield ""
    for entry in figures.config.data:
        licence, citation = terms(entry)
        told = ". ".join(
            part for part in (f"Licence: {licence}" if licence else "", citation) if part
        )
        yield f"- **{entry.shown}** ({entry.target}). {told or 'Licence and source: not given.'}"
    yield ""


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(titles) + " |"
    yield "|---" * len(titles) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else form.format(value * factor)
