"""The table of a result's objects, in napari's own features table and as a CSV file."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ptsam._widgets.geometry import Placement, placement_of, positions_of, volumes_of
from napari_ptsam.measure import ObjectTable, join_tables, measure_objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ptsam._widgets.layerresult import LayerResult


def measured(target: LayerResult) -> Generator[tuple[int, int], None, ObjectTable]:
    """Measure the numbered objects of a result.

    Yields
    ------
    How many planes (or volumes) of how many are done.

    Returns
    -------
    ObjectTable
        One row for each object of a plane; one for each object through planes if these are
        linked, with the time point it belongs to.
    """
    place, positions = placement_of(target.source), positions_of(target.source)
    linked = target.result.look.through_planes
    groups = volumes_of(target.source) if linked else [(i,) for i in target.result.done()]
    tables = []
    for number, group in enumerate(groups, start=1):
        where = positions[group[0]]
        if linked:
            where = {letter: position for letter, position in where.items() if letter != "z"}
        elif len(positions) > 1:
            where = {"plane": group[0], **(where if len(where) > 1 else {})}
        tables.append(_table(target, group, place, where, linked=linked))
        yield number, len(groups)
    return join_tables(tables)


def _table(
    target: LayerResult,
    group: tuple[int, ...],
    place: Placement,
    where: dict[str, int],
    *,
    linked: bool,
) -> ObjectTable:
    labels = np.stack([_labels(target, index) for index in group])
    image = np.stack([target.planes.read(index) for index in group])
    if linked:
        return measure_objects(
            labels, image, spacing=place.spacing, origin=place.origin, unit=place.unit, where=where
        )
    return measure_objects(
        labels[0],
        image[0],
        spacing=place.spacing[1:],
        origin=place.origin[1:],
        unit=place.unit,
        where=where,
    )


def _labels(target: LayerResult, index: int) -> NDArray[Any]:
    return np.asarray(target.result.data[target.result.geometry.slots[index]])


def features_of(table: ObjectTable) -> dict[str, NDArray[Any]]:
    """The table as napari's Labels layer takes it: ``index`` says which label a row is of."""
    columns = dict(zip(table.headings(), table.columns.values(), strict=True))
    return {"index": columns.pop("label"), **columns}
