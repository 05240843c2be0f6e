"""Keeping known lenses out of the negatives: nothing within 11" of any system of any channel, whatever its label.

Survey-sized: a sieve decides which few objects could be near a lens at all, the exact separation decides among those.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.attrition import Bool
from lens_assets.science.negatives.strata import need
from lens_assets.science.sieve import near_pairs


def near_known(frame: pl.DataFrame, registry: pl.DataFrame, arcsec: float) -> Bool:
    """Whether each row lies within ``arcsec`` of a system of the registry (inclusive).

    ``frame`` needs ra and dec (degrees); rows without a finite position are not near anything. Raises :class:`BadInput` for
    a registry row without a finite position: it could hide a lens.
    """
    return matched_known(frame, registry, arcsec)[0] >= 0


def matched_known(frame: pl.DataFrame, registry: pl.DataFrame, arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """For each row the nearest registry row within ``arcsec`` and its separation; (-1, inf) without one."""
    need(frame, ["ra", "dec"], "frame to be cleaned of known lenses")
    need(registry, ["ra", "dec"], "lens registry")
    lra, ldec = (registry[c].cast(pl.Float64).to_numpy() for c in ("ra", "dec"))
    bad = ~(np.isfinite(lra) & np.isfinite(ldec))
    if bad.any():
        raise BadInput("a known lens without a finite position cannot be kept out", column="ra", row=int(bad.argmax()))
    index, sep = np.full(frame.height, -1, np.int64), np.full(frame.height, np.inf)
    ra, dec = (frame[c].cast(pl.Float64).to_numpy() for c in ("ra", "dec"))
    row, system, apart = near_pairs(ra, dec, lra, ldec, arcsec)
    inside = apart <= arcsec
    row, system, apart = row[inside], system[inside], apart[inside]
    order = np.lexsort((system, apart, row))[::-1]  # the nearest is written last
    index[row[order]], sep[row[order]] = system[order], apart[order]
    return index, sep


def exclude_known(frame: pl.DataFrame, registry: pl.DataFrame, arcsec: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(rows farther than ``arcsec`` from every known system, the others with ``known_system`` and
    ``known_sep_arcsec``).
    """
    index, sep = matched_known(frame, registry, arcsec)
    near = index >= 0
    names = (
        registry["system_id"] if "system_id" in registry.columns else pl.Series(range(registry.height), dtype=pl.String)
    )
    removed = frame.filter(near).with_columns(
        known_system=names.gather(index[near]).alias("known_system"),
        known_sep_arcsec=pl.Series(sep[near], dtype=pl.Float64),
    )
    return frame.filter(~near), removed
