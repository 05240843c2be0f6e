"""All tables of the platform by name, collected from the rooms' modules: derived, never kept by hand."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

import lens_assets.science.columns as package
from lens_assets.science.columns.registry import Column, Table, united

_OWN = {"registry", "tables", "page"}


@lru_cache
def _collected() -> tuple[dict[str, Table], dict[str, Column]]:
    rooms = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
        if module.name not in _OWN
    ]
    columns = united(*(room.COLUMNS for room in rooms))
    tables: dict[str, Table] = {}
    for room in rooms:
        for table in room.TABLES:
            if table.name in tables:
                raise ValueError(f"table {table.name!r} is defined twice")
            tables[table.name] = table
            for column in table.columns:
                if columns.get(column.registered) != column:
                    raise ValueError(f"table {table.name!r}: no room registers its column {column.registered!r}")
    return tables, columns


def all_tables() -> dict[str, Table]:
    """Every registered table by name."""
    return dict(_collected()[0])


def all_columns() -> dict[str, Column]:
    """Every registered column by name."""
    return dict(_collected()[1])


def table_of(name: str) -> Table:
    """The table called ``name``; ``KeyError`` that lists the known ones."""
    try:
        return _collected()[0][name]
    except KeyError:
        raise KeyError(f"no table {name!r}; there are {', '.join(sorted(_collected()[0]))}") from None
