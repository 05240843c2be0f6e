"""What a pool is made from: rows of the ``sweeps`` table, whole in memory or still in the file.

A pool looks at ten columns of every object and at sixty of the few that pass, so it asks for both through :class:`Rows`. The
table of a tile (:class:`FrameRows`) and a proven sweep file (``surveys.sweeps.SweepRows``) answer alike, and one kernel
serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.strata import need


class Rows(Protocol):
    """Rows of a ``sweeps`` table; no object is there twice. Text columns may come as ``pl.Enum``."""

    height: int

    @property
    def names(self) -> list[str]:
        """Columns there are."""
        ...

    def columns(self, names: Sequence[str]) -> pl.DataFrame:
        """Some columns of all rows."""
        ...

    def rows(self, index: npt.NDArray[np.int64], names: Sequence[str] | None = None) -> pl.DataFrame:
        """Some rows (positions from 0), in any order, with all columns or the named ones."""
        ...


class FrameRows:
    """A table in memory. Raises :class:`BadInput` naming an object that is in it twice."""

    def __init__(self, frame: pl.DataFrame) -> None:
        need(frame, ["galaxy_id"], "tile's sweeps")
        ids = frame["galaxy_id"]
        if not frame.height or not (ids.head(-1) < ids.tail(-1)).all():  # in order, as written: nobody twice
            doubled = ids.is_duplicated()
            if doubled.any():
                row = int(doubled.arg_true()[0])
                raise BadInput(f"{ids[row]} is in the tile more than once", column="galaxy_id", row=row)
        self._frame, self.height = frame, frame.height

    @property
    def names(self) -> list[str]:
        """Columns there are."""
        return self._frame.columns

    def columns(self, names: Sequence[str]) -> pl.DataFrame:
        """Some columns of all rows."""
        return self._frame.select(names)

    def rows(self, index: npt.NDArray[np.int64], names: Sequence[str] | None = None) -> pl.DataFrame:
        """Some rows, with all columns or the named ones."""
        return self._frame.select(list(names or self.names))[index]


class Beside(FrameRows):
    """Objects that may be neighbours (``categories.NEIGHBOUR``): the same one may be there twice."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame, self.height = frame, frame.height

    def rows(self, index: npt.NDArray[np.int64], names: Sequence[str] | None = None) -> pl.DataFrame:
        """Some rows; texts come as texts."""
        return super().rows(index, names).with_columns(pl.col(pl.Enum).cast(pl.String))
