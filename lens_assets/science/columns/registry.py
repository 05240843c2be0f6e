"""What a column is, and how tables are checked against it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from lens_assets.science.errors import BadInput


@dataclass(frozen=True)
class Column:
    """One column of the platform, defined once for all tables that carry it.

    ``lo`` and ``hi`` bound the finite values (inclusive); ``nullable`` says whether null is allowed; ``source`` names
    the paper, page or rule the column comes from; ``ucd`` is its IVOA UCD1+ where one fits.

    ``variant`` tells apart two registered columns of one name: a name that has another meaning in other tables (the
    label of a lens is a word, that of a training sample 0 or 1), or may be null there. It is empty for nearly all.
    """

    name: str
    dtype: pl.DataType | type[pl.DataType]
    unit: str
    meaning: str
    source: str
    lo: float | None = None
    hi: float | None = None
    nullable: bool = False
    ucd: str = ""
    variant: str = ""

    @property
    def registered(self) -> str:
        """The name under which the column is registered: its own, with the variant if it has one."""
        return f"{self.name} ({self.variant})" if self.variant else self.name


@dataclass(frozen=True)
class Table:
    """A table: its name, what one row is, its columns in order, and the columns that identify (and sort) a row."""

    name: str
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [c.name for c in self.columns]

    def conform(self, frame: pl.DataFrame, *, file: str | None = None) -> pl.DataFrame:
        """Select the columns in order, cast to their dtypes and sort by the key.

        Raises :class:`BadInput` naming the column that is missing, cannot be cast, or holds a null it may not hold.
        """
        for column in self.columns:
            if column.name not in frame.columns:
                raise BadInput(f"table {self.name!r} needs this column", file=file, column=column.name)
        out = []
        for column in self.columns:
            try:
                series = frame[column.name].cast(column.dtype)  # type: ignore[arg-type]
            except pl.exceptions.PolarsError as fault:
                raise BadInput(f"cannot become {column.dtype}: {fault}", file=file, column=column.name) from fault
            if not column.nullable and series.null_count():
                row = int(series.is_null().arg_true()[0])
                raise BadInput(f"table {self.name!r} allows no null here", file=file, column=column.name, row=row)
            out.append(series)
        return pl.DataFrame(out).sort(list(self.key), maintain_order=True)

    def violations(self, frame: pl.DataFrame) -> list[str]:
        """What the table gets wrong against the registry: duplicate keys and values out of range, one line each."""
        problems = []
        doubled = frame.height - frame.select(self.key).unique().height
        if doubled:
            problems.append(f"{doubled} rows repeat their key {self.key}")
        for column in self.columns:
            if column.lo is None and column.hi is None:
                continue
            values = frame[column.name].drop_nulls()
            values = values.filter(values.is_finite()) if values.dtype.is_float() else values
            low = int((values < column.lo).sum()) if column.lo is not None else 0
            high = int((values > column.hi).sum()) if column.hi is not None else 0
            if low or high:
                problems.append(
                    f"{column.name} [{column.unit}]: {low} below {column.lo}, "
                    f"{high} above {column.hi} of {values.len()}"
                )
        return problems


def united(*rooms: Iterable[Column]) -> dict[str, Column]:
    """One dictionary of all columns by registered name; one that two rooms define differently is a mistake."""
    found: dict[str, Column] = {}
    for room in rooms:
        for column in room:
            if found.get(column.registered, column) != column:
                raise ValueError(f"column {column.registered!r} is defined twice")
            found[column.registered] = column
    return found
