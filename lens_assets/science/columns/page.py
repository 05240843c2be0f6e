"""The documentation page of all tables and columns, derived from the registry: nothing on it is written by hand.

``python -m lens_assets.science.columns.page`` prints it; ``make docs`` keeps it as ``docs/columns.md``.
"""

from __future__ import annotations

import sys

import polars as pl

from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.tables import all_columns, all_tables

_HEAD = """# Tables and columns

Made from the column registry (`lens_assets/science/columns`) by `make docs`; a test holds the two together. Every table is
sorted by its key. A range is inclusive and binds finite values; a blank one means that none is imposed. `1` as unit is a
pure number. Where a name has another meaning in other tables, the variant stands in brackets behind it.
"""
_FIELDS = ("name", "type", "unit", "range", "null", "meaning", "source")


def page() -> str:
    """The page as Markdown, ending with a newline: a list of tables, then one section a table, in alphabetical order."""
    tables = [table for _, table in sorted(all_tables().items())]
    summary = [f"{len(tables)} tables, {len(all_columns())} registered columns.", ""]
    summary += [f"- [`{t.name}`](#{t.name}): {t.row}; {len(t.columns)} columns" for t in tables]
    parts = [_HEAD, "\n".join(summary) + "\n", *(_section(table) for table in tables)]
    loose = sorted(set(all_columns()) - {column.registered for table in tables for column in table.columns})
    if loose:
        parts.append("## Registered, in no table\n\n" + _rows([all_columns()[name] for name in loose]))
    return "\n".join(parts)


def _section(table: Table) -> str:
    key = ", ".join(f"`{name}`" for name in table.key)
    return f"## {table.name}\n\nOne row: {table.row}. Key: {key}.\n\n{_rows(table.columns)}"


def _rows(columns: tuple[Column, ...] | list[Column]) -> str:
    lines = [f"| {' | '.join(_FIELDS)} |", f"|{'---|' * len(_FIELDS)}"]
    for c in columns:
        cells = (
            f"`{c.name}`" + (f" ({c.variant})" if c.variant else ""),
            _type(c.dtype),
            c.unit or "1",
            _range(c),
            "yes" if c.nullable else "no",
            c.meaning,
            c.source,
        )
        lines.append(f"| {' | '.join(_cell(text) for text in cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _type(dtype: pl.DataType | type[pl.DataType]) -> str:
    return str(dtype() if isinstance(dtype, type) else dtype)


def _range(column: Column) -> str:
    if column.lo is None and column.hi is None:
        return ""
    low = "" if column.lo is None else f"{column.lo:g}"
    high = "" if column.hi is None else f"{column.hi:g}"
    return f"{low} .. {high}".strip()


if __name__ == "__main__":
    sys.stdout.write(page())
