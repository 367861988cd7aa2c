"""Whether figures of an earlier run may stand in one table with those of a new one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from napari_ptsam.errors import InputError


def refuse_mixture(
    settings: Mapping[str, Any],
    wanted: Mapping[str, Any],
    output: Path,
    renewed: Collection[str] = (),
) -> None:
    """Raise if figures that stay in a file were measured in another way.

    Parameters
    ----------
    settings
        By cell; None for one that does not tell.
    wanted
        Of the run to come.
    output
        The file.
    renewed
        Cells that the run measures anew.

    Raises
    ------
    InputError
        If one differs.
    """
    for cell, setting in settings.items():
        known = {} if setting is None else setting
        changed = [
            f"{name}: {known.get(name, 'not told')} there, {wanted.get(name)} here"
            for name in wanted
            if known.get(name, "not told") != wanted[name]
        ]
        if changed and cell not in renewed:
            raise InputError(
                f"{output} has figures of other settings, of {cell} for one ({'; '.join(changed)}),"
                " and one table would show both. Name another --output, or measure all that it "
                "has again with --fresh."
            )
