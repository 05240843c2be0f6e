"""Keeping known lenses out of the negatives: nothing within 11" of any system of any channel, whatever its label.

Survey-sized: a coarse HEALPix cell decides which few objects could be near a lens at all, the exact separation decides
among those.
"""

from __future__ import annotations

import healpy as hp
import numpy as np
import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.attrition import Bool
from lens_assets.science.negatives.strata import need
from lens_assets.science.sphere import SPLIT_NSIDE, cell_of, nearest, unit_vectors


def near_known(frame: pl.DataFrame, registry: pl.DataFrame, arcsec: float) -> Bool:
    """Whether each row lies within ``arcsec`` of a system of the registry (inclusive).

    ``frame`` needs ra and dec (degrees) and may carry its nside-128 ``cell``; rows without a finite position are not
    near anything. Raises :class:`BadInput` for a registry row without a finite position: it could hide a lens.
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
    usable = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90))
    if not usable.size or not lra.size:
        return index, sep
    if "cell" in frame.columns and frame["cell"].null_count() == 0:
        cells = frame["cell"].to_numpy()[usable]
    else:
        cells = cell_of(ra[usable], dec[usable])
    present = np.unique(cells)
    radius = np.radians(arcsec / 3600)
    own = cell_of(lra, ldec)
    around = np.concatenate([own[:, None], hp.get_all_neighbours(SPLIT_NSIDE, own, nest=True).T], axis=1)
    # a disc far smaller than a cell reaches the lens's own cell and its neighbours at most; a larger one is asked in
    # full
    here = np.flatnonzero(np.isin(around, present).any(axis=1)) if arcsec < 600 else np.arange(lra.size)
    if not here.size:
        return index, sep
    touched = [
        hp.query_disc(SPLIT_NSIDE, v, radius, inclusive=True, fact=16, nest=True)
        for v in unit_vectors(lra[here], ldec[here])
    ]
    maybe = usable[np.isin(cells, np.unique(np.concatenate(touched)))]
    if not maybe.size:
        return index, sep
    i, s = nearest(ra[maybe], dec[maybe], lra[here], ldec[here])
    hit = s <= arcsec
    index[maybe[hit]], sep[maybe[hit]] = here[i[hit]], s[hit]
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
