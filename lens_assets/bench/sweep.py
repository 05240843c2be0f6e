"""What the benchmark of catalogues is about: a sweep of one tile, lenses in it, and how a user of astropy finds negatives."""

from __future__ import annotations

import warnings
from pathlib import Path

import healpy
import numpy as np
import numpy.typing as npt
import polars as pl
from astropy import units
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from lens_assets.science.hashing import generator
from lens_assets.science.mock.footprint import bricks_inside
from lens_assets.science.mock.sweepfile import SWEEP_DTYPE, write_sweep
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.sphere import SPLIT_NSIDE
from lens_assets.science.surveys import schema
from lens_assets.science.surveys.layout import Tile

TILE = Tile(150, 0)
SELECTION = "paper-iv"
TYPES = ((b"PSF", 0.476), (b"REX", 0.397), (b"EXP", 0.080), (b"DEV", 0.030), (b"SER", 0.017))
"""Shares of DR10's primary objects (`description` page)."""
COUNTS_SLOPE = 0.37
"""d log10 N / dm of the r magnitudes: that of galaxies at 20 to 24, and about 1.5 % of the rows pass the cuts, as published
(43.5 of 2,827 million)."""


def make_rows(n: int) -> npt.NDArray[np.void]:
    """``n`` rows (``SWEEP_DTYPE``) spread over the bricks of the tile."""
    g, bricks = generator("bench-sweep", n), bricks_inside(TILE)
    rows = np.zeros(n, SWEEP_DTYPE)
    which = np.sort(g.integers(0, len(bricks), n))
    ra1, ra2, dec1, dec2 = (np.array([getattr(b, k) for b in bricks])[which] for k in ("ra1", "ra2", "dec1", "dec2"))
    rows["RELEASE"] = 10000
    rows["BRICKID"] = np.array([b.brickid for b in bricks])[which]
    rows["BRICKNAME"] = np.array([b.name for b in bricks], "S8")[which]
    rows["OBJID"] = np.arange(n)
    rows["RA"], rows["DEC"] = g.uniform(ra1, ra2), g.uniform(dec1, dec2)
    rows["TYPE"] = g.choice(np.array([t for t, _ in TYPES]), n, p=[p for _, p in TYPES])
    mag_r = np.maximum(24.0 + np.log10(np.maximum(g.random(n), 1e-9)) / COUNTS_SLOPE, 14.0)
    for band, mag in (("G", mag_r + g.normal(0.9, 0.4, n)), ("R", mag_r), ("Z", mag_r - g.normal(0.6, 0.3, n))):
        rows[f"FLUX_{band}"] = 10 ** (0.4 * (22.5 - mag))
        rows[f"FLUX_IVAR_{band}"], rows[f"MW_TRANSMISSION_{band}"] = 100.0, 0.9
        rows[f"NOBS_{band}"] = g.integers(1, 15, n)
        rows[f"FRACFLUX_{band}"] = g.exponential(0.05, n)
        rows[f"PSFSIZE_{band}"] = g.normal(1.3, 0.1, n)
        rows[f"PSFDEPTH_{band}"], rows[f"GALDEPTH_{band}"] = g.uniform(200, 900, n), g.uniform(100, 500, n)
    rows["FLUX_W1"], rows["EBV"] = rows["FLUX_Z"], g.uniform(0.01, 0.08, n)
    extended = rows["TYPE"] != b"PSF"
    rows["SHAPE_R"] = np.where(extended, g.lognormal(-0.5, 0.5, n), 0)
    rows["SHAPE_E1"], rows["SHAPE_E2"] = (np.where(extended, g.normal(0, 0.15, n), 0) for _ in range(2))
    rows["SERSIC"] = np.where(rows["TYPE"] == b"SER", g.uniform(0.5, 6, n), 0)
    return rows


def make_registry(rows: npt.NDArray[np.void], n: int) -> pl.DataFrame:
    """``n`` systems: 20 within 15 arcsec of objects that could be negatives (about what a list of 5,000 has in a tile), the
    rest all over the sky."""
    g = generator("bench-registry", n)
    bright = np.flatnonzero((rows["FLUX_Z"] > 10) & (rows["TYPE"] != b"PSF"))
    near = g.choice(bright, min(20, n, len(bright)), replace=False)
    off = g.uniform(0, 15, len(near)) / 3600, g.uniform(0, 2 * np.pi, len(near))
    dec = np.concatenate([rows["DEC"][near] + off[0] * np.sin(off[1]), g.uniform(-60, 32, n - len(near))])
    ra = np.concatenate([rows["RA"][near] + off[0] * np.cos(off[1]), g.uniform(0, 360, n - len(near))])
    return pl.DataFrame({"system_id": [f"S{i:05d}" for i in range(n)], "ra": ra % 360, "dec": dec})


def astropy_way(
    path: Path,
    registry: pl.DataFrame,
    settings: Settings,
    *,
    memmap: bool = True,
    guards: bool = False,
    every_row: bool = False,
) -> tuple[set[int], dict[tuple[str, str], int]]:
    """OBJIDs of the negatives and their number per (TYPE, nobs_z bin), as a user of astropy would find them.

    ``memmap``: leave columns in the file until they are used. ``guards``: prove DATASUM, finite values and that no identity is
    there twice. ``every_row``: cells and distances from known lenses for every row, not only for those that pass the cuts.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # units of DR10 that astropy does not know
        table = Table.read(path, memmap=memmap)
        if guards:
            with fits.open(path) as hdus:
                sound = all(hdu.verify_datasum() == 1 for hdu in hdus)
            sound &= all(bool(np.isfinite(table[name]).all()) for name in schema.FINITE)
            brick = np.asarray(table["RELEASE"], np.int64) << 48 | np.asarray(table["BRICKID"], np.int64) << 28
            if not sound or len(np.unique(brick | np.asarray(table["OBJID"], np.int64))) != len(table):
                raise RuntimeError("the sweep of the benchmark is not sound")
    profile = load_selection(SELECTION)
    keep = np.isfinite(table["RA"]) & np.isfinite(table["DEC"]) & (np.asarray(table["DEC"]) < profile.dec_max)
    for band, least in profile.nobs_min.items():
        keep &= np.asarray(table[f"NOBS_{band.upper()}"]) >= least
    with np.errstate(divide="ignore", invalid="ignore"):
        keep &= 22.5 - 2.5 * np.log10(np.asarray(table["FLUX_Z"], float)) < profile.mag_z_max
    if not every_row:
        table, keep = table[keep], np.ones(int(keep.sum()), bool)
    kind = np.char.strip(np.asarray(table["TYPE"]).astype(str))
    keep &= np.isin(kind, profile.types.negative)
    table["CELL"] = healpy.ang2pix(SPLIT_NSIDE, table["RA"], table["DEC"], nest=True, lonlat=True)
    objects = SkyCoord(np.asarray(table["RA"]) * units.deg, np.asarray(table["DEC"]) * units.deg)
    lenses = SkyCoord(registry["ra"].to_numpy() * units.deg, registry["dec"].to_numpy() * units.deg)
    _, near, _, _ = search_around_sky(lenses, objects, settings.exclusion_arcsec * units.arcsec)
    keep[near] = False
    table, kind = table[keep], kind[keep]
    edges, names = [1, 3, 6, 11], np.array(["0", "1-2", "3-5", "6-10", "11+"])
    table["KIND"], table["BIN"] = kind, names[np.digitize(table["NOBS_Z"], edges)]
    groups = table.group_by(["KIND", "BIN"]).groups
    sizes = np.diff(groups.indices)
    counts = {(str(row["KIND"]), str(row["BIN"])): int(m) for row, m in zip(groups.keys, sizes, strict=True)}
    return set(np.asarray(table["OBJID"]).tolist()), counts


def make_file(path: Path, rows: npt.NDArray[np.void]) -> None:
    """The rows as a sweep file with a DATASUM in every HDU, as released files have it."""
    write_sweep(path, rows, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        with fits.open(path, mode="update") as hdus:
            for hdu in hdus:
                hdu.add_datasum()
