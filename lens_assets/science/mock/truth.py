"""Reading the truth of a mock release. For closure tests, the truth audit and this package; no pipeline step opens
it."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from lens_assets.science.errors import BadInput


def read_truth(truth: str | Path, table: str = "lenses") -> pl.DataFrame:
    """The truth table ``lenses`` or ``objects`` of a complete release, columns named without ``true_``."""
    path = Path(truth) / f"{table}.parquet"
    if not path.is_file():
        raise BadInput("no truth here: is the mock release complete?", file=str(path))
    return plain(pl.read_parquet(path))


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with ``true_`` taken off its column names."""
    return frame.rename({c: c.removeprefix("true_") for c in frame.columns})
