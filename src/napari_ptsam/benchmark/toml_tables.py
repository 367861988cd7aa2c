"""Tables of a TOML file to dataclasses, each value checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from napari_ptsam.errors import InputError

_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "int | None": (int,),
    "float | None": (int, float),
    "float | str": (int, float, str),
    "Mapping[str, Any]": (dict,),
    "Path": (Path,),
}

_LISTS = {"tuple[int, ...]": int, "tuple[str, ...]": str}


def tables(table: Mapping[str, Any], name: str, path: Path) -> list[Any]:
    """The tables that a file gives as ``[[name]]``; none if it gives none."""
    found = table.get(name, [])
    if not isinstance(found, list):
        raise InputError(f"{path.name}: '{name}' is given as [[{name}]], once for each.")
    return found


def made(kind: type[Any], table: Any, path: Path) -> Any:
    """An object of a table's values, of which each is checked."""
    if not isinstance(table, dict):
        raise InputError(f"{path.name}: expected a table with keys, not {table!r}.")
    known = {f.name: f for f in fields(kind)}
    strange = sorted(set(table) - set(known))
    if strange:
        raise InputError(
            f"{path.name}: there is no {', '.join(map(repr, strange))} here. Known are: "
            f"{', '.join(n for n in known if n != 'path')}."
        )
    values = {}
    for name, f in known.items():
        if name in table:
            values[name] = _checked(table[name], str(f.type), name, path)
        elif f.default is MISSING and f.default_factory is MISSING:
            raise InputError(f"{path.name}: '{name}' is missing in {table or 'it'}.")
    return kind(**values)


def _checked(value: Any, wanted: str, name: str, path: Path) -> Any:
    if wanted in _LISTS:
        if isinstance(value, list) and all(type(v) is _LISTS[wanted] for v in value):
            return tuple(value)
    elif wanted not in _KINDS or (
        isinstance(value, _KINDS[wanted]) and (type(value) is not bool or wanted == "bool")
    ):
        return value
    raise InputError(f"{path.name}: '{name}' is {value!r}, but must be {wanted}.")
