"""The figures of a study, put together from its results."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from napari_ptsam.benchmark.config import BenchmarkConfig, Cell, DataConfig, MethodConfig
from napari_ptsam.benchmark.results import Result, Results, Status
from napari_ptsam.benchmark.splits import Splits

SCORES = {
    "dice_mean": "Dice",
    "dice_pooled": "pooled Dice",
    "iou_mean": "IoU",
    "boundary_f_mean": "boundary F",
}
"""Scores of a result, and what tables call them."""


class Spread(NamedTuple):
    """Mean and SD over splits.

    Attributes
    ----------
    mean
        Of what the splits gave.
    sd
        With n - 1 in the denominator; None for a single split.
    n
        How many splits there are.
    """

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Of values, None if there are none."""
        if not values:
            return None
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, len(values))

    def text(self, digits: int = 1) -> str:
        """Such as ``87.7 ± 1.4``."""
        sd = "" if self.sd is None else f" ± {self.sd:.{digits}f}"
        return f"{self.mean:.{digits}f}{sd}"


class PromptSeries(NamedTuple):
    """Dice by the number of prompts.

    Attributes
    ----------
    dice
        Percent, by the number.
    data
        Titles of the data sets behind it.
    """

    dice: dict[int, float]
    data: tuple[str, ...]


class Figures:
    """What is known of a study.

    Parameters
    ----------
    results
        Of the study.
    splits
        By data set; None where they are not known.

    Attributes
    ----------
    found
        Each cell with its result, or None.
    """

    def __init__(self, results: Results, splits: dict[str, Splits | None]) -> None:
        self.config: BenchmarkConfig = results.config
        self.output = results.output
        self.splits = splits
        self.found: list[tuple[Cell, Result | None]] = list(results.all(splits))

    def done(self, **wanted: Any) -> Iterable[tuple[Cell, Result]]:
        """Finished cells, of which some fields may be asked for."""
        for cell, result in self.found:
            fits = all(getattr(cell, name) == value for name, value in wanted.items())
            if fits and result is not None and result["status"] == Status.DONE:
                yield cell, result

    def score(self, data: str, method: str, size: int, name: str = "dice_mean") -> list[float]:
        """A score in percent, one for each split: the mean over its seeds."""
        values: dict[int, list[float]] = {}
        for cell, result in self.done(data=data, method=method, size=size):
            values.setdefault(cell.split, []).append(100 * result["scores"][name])
        return [statistics.fmean(values[split]) for split in sorted(values)]

    def spread(self, data: str, method: str, size: int, name: str = "dice_mean") -> Spread | None:
        """Mean and SD of a score in percent."""
        return Spread.of(self.score(data, method, size, name))

    def over_data(
        self,
        method: str,
        size: int,
        name: str = "dice_mean",
        data: Sequence[DataConfig] | None = None,
    ) -> float | None:
        """Mean over data sets, by default all, of a score in percent; None if one is missing."""
        sets = self.config.data if data is None else data
        found = [self.spread(d.name, method, size, name) for d in sets]
        means = [spread.mean for spread in found if spread is not None]
        return statistics.fmean(means) if len(means) == len(found) else None

    def fact(self, method: str, name: str, size: int | None = None) -> float | None:
        """The mean of a fact over a method's finished cells; None where none tells."""
        wanted = {"method": method} if size is None else {"method": method, "size": size}
        told = [r[name] for _, r in self.done(**wanted) if r.get(name) is not None]
        return statistics.fmean(told) if told else None

    def tunes_encoder(self, method: MethodConfig) -> bool | None:
        """Whether a method changes the encoder; None for a baseline, or if nothing was run."""
        for _, result in self.done(method=method.name):
            told: bool | None = result.get("tunes_encoder")
            return told
        return None

    def main_methods(self) -> list[MethodConfig]:
        """Those of the main comparison: at all sizes, and no repetition of another."""
        return [m for m in self.config.methods if not m.is_variant]

    def families(self) -> list[tuple[str, MethodConfig, MethodConfig]]:
        """Name, frozen member and tuned member of each family that has one of each."""
        names = dict.fromkeys(m.family for m in self.config.methods if m.family)
        found = []
        for name in names:
            members = [m for m in self.config.methods if m.family == name]
            frozen = [m for m in members if self.tunes_encoder(m) is False]
            tuned = [m for m in members if self.tunes_encoder(m) is True]
            if len(frozen) == len(tuned) == 1:
                found.append((name, frozen[0], tuned[0]))
        return found

    def gain(self, data: str, worse: str, better: str, size: int) -> Spread | None:
        """Difference of Dice in points, split by split."""
        first, second = self._by_split(data, worse, size), self._by_split(data, better, size)
        both = sorted(set(first) & set(second))
        return Spread.of([second[split] - first[split] for split in both])

    def loss_change(self, data: str, first: str, second: str, size: int) -> float | None:
        """By how much the second's training loss ends above the first's, mean over trainings."""
        ends = [
            {
                (cell.split, cell.seed): result["final_loss"]
                for cell, result in self.done(data=data, method=name, size=size)
                if result.get("final_loss") is not None
            }
            for name in (first, second)
        ]
        both = ends[0].keys() & ends[1].keys()
        return statistics.fmean(ends[1][k] - ends[0][k] for k in both) if both else None

    def _by_split(self, data: str, method: str, size: int) -> dict[int, float]:
        splits = sorted({c.split for c, _ in self.done(data=data, method=method, size=size)})
        return dict(zip(splits, self.score(data, method, size), strict=True))

    def prompt_counts(self) -> dict[str, dict[int, str]]:
        """PTSAM's methods by where their prompts are counted and by how many there are.

        ``decoder``: without encoder prompts. ``encoder``: with eight decoder prompts.
        """
        found: dict[str, dict[int, str]] = {"decoder": {}, "encoder": {}}
        for method in self.config.methods:
            if method.method != "ptsam" or method.longer_than:
                continue
            decoder = int(method.settings.get("decoder_prompts", 8))
            encoder = int(method.settings.get("encoder_prompts", 0))
            if encoder == 0:
                found["decoder"][decoder] = method.name
            elif decoder == 8:
                found["encoder"][encoder] = method.name
        return {where: dict(sorted(counts.items())) for where, counts in found.items()}

    def by_prompts(self) -> dict[str, PromptSeries]:
        """Dice with the smallest size by the number of prompts, see `prompt_counts`.

        Means over those data sets and splits where each of the numbers was tried, so that all
        are of the same trainings; a series of fewer than two numbers is left out.
        """
        size, found = self.config.sizes[0], {}
        for where, counts in self.prompt_counts().items():
            known = {
                n: {d.name: self._by_split(d.name, name, size) for d in self.config.data}
                for n, name in counts.items()
            }
            tried = {n: dices for n, dices in known.items() if any(dices.values())}
            if len(tried) < 2:
                continue
            common = [
                (data, split)
                for data in self.config.data
                for split in range(self.config.splits)
                if all(split in dices[data.name] for dices in tried.values())
            ]
            if common:
                means = {
                    n: statistics.fmean(dices[data.name][split] for data, split in common)
                    for n, dices in tried.items()
                }
                found[where] = PromptSeries(means, tuple(dict.fromkeys(d.shown for d, _ in common)))
        return found


COLUMNS = (
    "status", "train_seconds", "seconds_per_image", "peak_memory_bytes", "parameters",
    "file_bytes", "learning_rate", "steps", "held_out_dice", "final_loss", "reason",
)  # fmt: skip


def write_csv(figures: Figures, path: Path) -> None:
    """One row for each cell that has a result."""
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [*asdict(figures.found[0][0]), *SCORES, "dice_sd", "test_images", *COLUMNS]
        rows = csv.DictWriter(file, names, extrasaction="ignore")
        rows.writeheader()
        for cell, result in figures.found:
            if result is not None:
                scores = result.get("scores", {})
                told = {**result, **scores, "test_images": scores.get("n")}
                rows.writerow({**asdict(cell), **told})
