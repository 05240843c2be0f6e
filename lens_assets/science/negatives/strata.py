"""The strata (TYPE x nobs_z bin), and the stable rank of an object inside one.

The bins are those of the science contract, section 2; nothing else may define them.
"""

from __future__ import annotations

import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import U64, galaxy_key, mix64, seed_of

NOBS_BINS = ("1-2", "3-5", "6-10", "11+")
"""Bins of the number of z-band exposures."""
NOBS_OPEN = 11
"""From here on the last bin is open."""
NO_EXPOSURE = "0"
"""Objects without any z exposure: no stratum of the contract, kept apart so that they are counted."""


def nobs_bin(column: str = "nobs_z") -> pl.Expr:
    """The nobs bin of each row, as text; null where the count is null, ``"0"`` at or below zero."""
    n = pl.col(column)
    return (
        pl.when(n.is_null())
        .then(None)
        .when(n < 1)
        .then(pl.lit(NO_EXPOSURE))
        .when(n <= 2)
        .then(pl.lit("1-2"))
        .when(n <= 5)
        .then(pl.lit("3-5"))
        .when(n <= 10)
        .then(pl.lit("6-10"))
        .otherwise(pl.lit("11+"))
    )


def rank_hash(frame: pl.DataFrame, seed: int) -> U64:
    """Stable hash of (galaxy, seed), uint64: the smallest are drawn first, on any engine and in any order of rows.

    ``mix64`` under one seed is a bijection of the galaxy's key, so two galaxies never tie.
    """
    return mix64(galaxy_key(frame["release"], frame["brickid"], frame["objid"]), seed_of("negatives", "rank", seed))


def need(frame: pl.DataFrame, columns: list[str] | tuple[str, ...], table: str) -> None:
    """Raise :class:`BadInput` for the first of ``columns`` that ``frame`` lacks."""
    for column in columns:
        if column not in frame.columns:
            raise BadInput(f"the {table} needs this column", column=column)
