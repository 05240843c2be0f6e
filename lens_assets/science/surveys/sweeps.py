"""One sweep file to one table: schema proven, rows cleaned with every rejection counted, magnitudes and depths derived.

``prove`` proves the file, ``scan`` reads it once; ``derive`` makes the table's columns; here they become the ``sweeps`` table, or
any part of it (:class:`SweepRows`) for a step that wants few columns of all rows and all columns of few. What does not
belong here: any cut of science. A row leaves only because it is not a usable primary object.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from lens_assets.science.columns.surveys import SWEEPS
from lens_assets.science.errors import Rejections
from lens_assets.science.surveys import derive
from lens_assets.science.surveys.derive import depths, galaxy_ids, magnitudes
from lens_assets.science.surveys.judging import Cuts, Judged
from lens_assets.science.surveys.prove import prove
from lens_assets.science.surveys.scan import I64, Sweep
from lens_assets.science.surveys.settings import Settings

__all__ = ["SweepRows", "depths", "galaxy_ids", "magnitudes", "open_sweep", "read_sweep"]


def read_sweep(path: str | Path, tile: str, settings: Settings | None = None) -> tuple[pl.DataFrame, Rejections]:
    """Read one sweep.

    Parameters
    ----------
    path : local file (remote ones go through :class:`~lens_assets.science.surveys.release.DataRelease`).
    tile : key of the tile the file should hold, for instance ``000m005``; objects outside it are rejected.

    Returns
    -------
    the ``sweeps`` table (sorted by galaxy_id; ``row`` is the row in the file) and the counted rejections, which
    balance: rows in the file = rows out + rejected.

    Raises
    ------
    BadInput : file, column and row of a truncated or corrupt file, a missing or mistyped column (an older release is
        recognised), wrong units, RA in hours, one identity on two different objects, or a file of another tile.
    """
    rows = open_sweep(path, tile, settings, columns=SWEEPS.names)
    return rows.frame(), rows.rejections


def open_sweep(
    path: str | Path,
    tile: str,
    settings: Settings | None = None,
    *,
    columns: Sequence[str] = (),
    cuts: Cuts | None = None,
) -> SweepRows:
    """Prove a sweep as :func:`read_sweep` does, with the same errors, but make its table only where asked for.

    ``columns`` (names of the table) are those that will be wanted for all rows: they are picked up in the one reading, which only
    saves time. ``cuts`` are made in it too (:attr:`SweepRows.judged`).
    """
    wanted = [raw for name in columns for raw in derive.NEEDS[name]]
    return SweepRows(prove(Path(path), tile, settings, wanted, cuts))


class SweepRows:
    """The rows of a proven sweep in file order: the ``sweeps`` table, made piece by piece.

    ``type`` and ``ref_cat`` may come as ``pl.Enum`` from :meth:`columns`; everything else has the table's dtype.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._made: dict[str, pl.Series] = {}
        self.height = sweep.n_rows - len(sweep.dropped)
        self.rejections = sweep.rejections
        self.rejections.check(sweep.n_rows, self.height)

    @property
    def names(self) -> list[str]:
        """Columns of the table."""
        return SWEEPS.names

    @property
    def judged(self) -> Judged | None:
        """What was answered about the cuts, of all rows but the odd ones; ``None`` where none were given, or rows that are there
        twice may have been counted."""
        return self._sweep.judged if self._sweep.ordered else None

    @property
    def held(self) -> I64:
        """Rows *of the file* that pass the cuts, rising."""
        return self._sweep.held

    @property
    def odd(self) -> I64:
        """Rows *of the file* that were looked at singly and stay, rising: no cut was made of them."""
        return self._sweep.odd

    def columns(self, names: Sequence[str]) -> pl.DataFrame:
        """Some columns of all rows; a column is made once."""
        sweep, fresh = self._sweep, [name for name in dict.fromkeys(names) if name not in self._made]
        if fresh:
            made = derive.table(sweep, fresh, sweep.kept, everything=self.height == sweep.n_rows)
            self._made |= dict(zip(fresh, made.get_columns(), strict=True))
        return pl.DataFrame([self._made[name] for name in names])

    def rows(self, index: I64, names: Sequence[str] | None = None) -> pl.DataFrame:
        """Some rows (positions from 0), sorted by galaxy_id, with all columns or the named ones."""
        return self.rows_of_file(self._sweep.kept[np.asarray(index, np.int64)], names)

    def rows_of_file(self, chosen: I64, names: Sequence[str] | None = None) -> pl.DataFrame:
        """The same of rows by their place in the file; none of them may be one that was dropped."""
        identity = self._sweep.gather(("RELEASE", "BRICKID", "OBJID"), chosen)
        chosen = chosen[derive.id_order(identity["RELEASE"], identity["BRICKID"], identity["OBJID"])]
        return self._text(derive.table(self._sweep, list(names or SWEEPS.names), chosen, everything=False))

    def frame(self) -> pl.DataFrame:
        """The whole table."""
        frame = self.rows(np.arange(self.height))
        return SWEEPS.conform(frame, file=str(self._sweep.path))

    def _text(self, frame: pl.DataFrame) -> pl.DataFrame:
        frame = frame.with_columns(pl.col(pl.Enum).cast(pl.String))
        frame = frame.with_columns(pl.col("ellipticity").cast(pl.Float32)) if "ellipticity" in frame.columns else frame
        return frame.with_columns(pl.col("galaxy_id").set_sorted()) if "galaxy_id" in frame.columns else frame
