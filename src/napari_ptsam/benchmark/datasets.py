"""From what a study says of a data set to its images, splits, licence and citation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_ptsam.benchmark.config import BenchmarkConfig, DataConfig
from napari_ptsam.benchmark.pool import Pool
from napari_ptsam.benchmark.published import Report, fetch_published, find_published
from napari_ptsam.benchmark.splits import Splits, draw_splits, read_splits, write_splits
from napari_ptsam.errors import InputError
from napari_ptsam.fetching import cache_base

DATA_VARIABLE = "NAPARI_PTSAM_DATA"

DRAWN = 64
"""Training images that a split names at least, so that studies of fewer can share its file."""


@dataclass(frozen=True)
class DataSet:
    """A data set with its splits.

    Attributes
    ----------
    config
        What the study says of it.
    train
        What training images are drawn from.
    test
        Where test images are; the same unless the data set came with its own.
    splits
        Which train and which test.
    """

    config: DataConfig
    train: Pool
    test: Pool
    splits: Splits


def data_folder(config: BenchmarkConfig, given: Path | None = None) -> Path:
    """Where data sets are: as given, else ``NAPARI_PTSAM_DATA``, else as the study says."""
    named = os.environ.get(DATA_VARIABLE)
    if given is not None or named:
        return (given or Path(str(named))).expanduser().resolve()
    return config.beside(config.data_folder) if config.data_folder else cache_base() / "datasets"


def split_file(config: BenchmarkConfig, data: DataConfig) -> Path:
    """Where the splits of a data set are kept."""
    return config.beside(config.split_folder) / f"{data.name}.json"


def stored_splits(config: BenchmarkConfig, data: DataConfig) -> Splits | None:
    """The splits of a data set, None if they are not drawn yet."""
    path = split_file(config, data)
    if not path.is_file():
        return None
    return read_splits(path, config.splits, config.sizes[-1], config.split_seed)


def all_stored_splits(config: BenchmarkConfig) -> dict[str, Splits | None]:
    """What `stored_splits` finds, by the data set's name."""
    return {data.name: stored_splits(config, data) for data in config.data}


def keep_splits(config: BenchmarkConfig, data: DataSet) -> None:
    """Write the splits of a data set for good, unless they are written already."""
    path = split_file(config, data.config)
    if not path.exists():
        write_splits(path, data.splits)


def open_data(
    config: BenchmarkConfig, data: DataConfig, folder: Path, report: Report | None = None
) -> DataSet:
    """Open a data set, downloading it if need be; draw its splits if there are none.

    What is drawn is not written, so that looking at data which are not complete yet does not
    fix the draws: `keep_splits` does.

    Parameters
    ----------
    folder
        From `data_folder`.
    report
        Called during a download.

    Raises
    ------
    DownloadError
        If it cannot be downloaded.
    InputError
        If it is not there, or is not what its splits were drawn from.
    """
    train, test = _pools(data, folder, report)
    splits = stored_splits(config, data)
    if splits is None:
        given = None if test is None else test.keys
        splits = draw_splits(
            train.keys, config.splits, max(DRAWN, config.sizes[-1]), config.split_seed, given
        )
    for names in splits.train:
        train.numbers(names)
    (test or train).numbers(splits.test)
    _refuse_overlap(splits, separate=test is not None)
    return DataSet(data, train, test or train, splits)


def terms(data: DataConfig) -> tuple[str, str]:
    """Licence and citation of a data set, empty where nothing is known."""
    if not data.published:
        return data.licence, data.citation
    known = find_published(data.published)
    return known.licence, known.citation


def _pools(data: DataConfig, folder: Path, report: Report | None) -> tuple[Pool, Pool | None]:
    if data.published:
        home = fetch_published(find_published(data.published), folder / data.published, report)
        return Pool.open(home / "images", home / "masks", data.label), None
    if data.images:
        return Pool.open(folder / data.images, folder / data.masks, data.label), None
    home = folder / data.folder
    _need(home, ("images", "masks"), ("train", "test"))
    if (home / "images").is_dir():
        return Pool.open(home / "images", home / "masks", data.label), None
    parts = [home / part for part in ("train", "test")]
    for part in parts:
        _need(part, ("images", "masks"))
    train, test = (Pool.open(p / "images", p / "masks", data.label) for p in parts)
    return train, test


def _need(home: Path, *layouts: Sequence[str]) -> None:
    """Raise unless a folder holds all the folders of one layout."""
    if any(all((home / name).is_dir() for name in layout) for layout in layouts):
        return
    wanted = ", or ".join(" and ".join(f"'{n}'" for n in layout) for layout in layouts)
    raise InputError(
        f"{home} has no folders {wanted}. Put the data set there, or say where data sets are "
        f"with --data or {DATA_VARIABLE}."
    )


def _refuse_overlap(splits: Splits, separate: bool) -> None:
    """No image may both train and test."""
    both = set(splits.test) & {name for names in splits.train for name in names}
    if both and not separate:
        raise InputError(
            f"The splits let {len(both)} images both train and test, such as {min(both)}. Remove "
            "the split file to draw anew."
        )
