"""One sweep file to negatives: the platform against astropy's Table, masks and ``search_around_sky``.

A synthetic sweep of one tile (every column of DR10, a DATASUM, number counts rising to faint magnitudes so that few rows pass the
cuts) and a registry of lenses, part of them in the tile. Theirs is ``Table.read(path)``, masks on its columns, HEALPix (astropy's
companion healpy), ``search_around_sky`` and counts per stratum, as programs that use sweeps are written (``docs/benchmarks.md``
says how that was looked up), in the order that costs least: cuts first, the two spatial steps for the rows left. Both must find the
same objects by the same steps (read, filter, HEALPix, exclusion, strata). Ours does more inside its time, always: it proves the
file (DATASUM, schema, finite values, identities, bricks, footprint) and accounts for every filter alone. ``ratio`` is against that
by the clock, with the ``threads`` of the line; ``ratio_cpu`` and ``spread_cpu`` are the same **per core**, in processor time of all
threads, which other users of the machine disturb less. The others are

- ``ratio_pool``: ours to the whole pool, with neighbours and N2 categories, which theirs has not;
- ``ratio_every_row``: theirs with cells and distances for every row, as many write it;
- ``ratio_memmap``: theirs as an expert writes it, columns left in the file until they are looked at (``memmap=True``);
- ``ratio_guarded``: that, and theirs proves DATASUM, finite values and identities too, as ours cannot help doing;
- ``ratio_two_steps``: the pool by way of the whole ``sweeps`` table; ``ratio_without_datasum``: the pool with that check off;
- ``ratio_bound``: theirs against nothing but copying the file out of memory (the page cache), in processor time: what a program
  that looked at every byte in no time would reach (mapping the pages instead of copying them costs the same here);
- ``..._cpu``: the same per core.

``seconds_proof`` (read and prove) and ``seconds_rest`` tell where the pool's time goes, ``seconds_read`` what copying the file
takes, ``rows_per_core`` is rows of the whole pool a second of processor time. With ``processes``, tiles are run in one process
of one thread and in two at once. ``dr10_core_hours`` is the whole survey on one core, under ``dr10_assumes``.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import healpy
import numpy as np
import numpy.typing as npt
import polars as pl
from astropy import units
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from lens_assets.bench import tiles
from lens_assets.bench.timing import Side, line, seconds_of
from lens_assets.science.hashing import generator
from lens_assets.science.mock.footprint import bricks_inside
from lens_assets.science.mock.sweepfile import SWEEP_DTYPE, write_sweep
from lens_assets.science.negatives.pool import build_pool
from lens_assets.science.negatives.sample import pool_counts
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.sphere import SPLIT_NSIDE
from lens_assets.science.surveys import schema
from lens_assets.science.surveys.layout import Tile
from lens_assets.science.surveys.settings import Settings as SurveySettings
from lens_assets.science.surveys.sweeps import open_sweep, read_sweep

TILE = Tile(150, 0)
SELECTION = "paper-iv"
TYPES = ((b"PSF", 0.476), (b"REX", 0.397), (b"EXP", 0.080), (b"DEV", 0.030), (b"SER", 0.017))
"""Shares of DR10's primary objects (`description` page)."""
GAIA_SHARE, TYCHO_SHARE = 0.10, 0.0005
"""Of the PSF, those with a REF_CAT of Gaia and Tycho-2 (assumed: some 7,000 and 35 a square degree of DR10's 67,000 PSF)."""
DR10_MEAN_ROWS = 1_970_000
"""Rows of a sweep: 2,827 million in 1,436 files."""
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
    known = np.where(extended, 1.0, g.random(n))
    rows["REF_CAT"] = np.select([known < TYCHO_SHARE, known < TYCHO_SHARE + GAIA_SHARE], [b"T2", b"GE"], b"")
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
    memmap: bool = False,
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


def bench_catalogue(
    repeats: int = 5, *, n: int = DR10_MEAN_ROWS, n_lenses: int = 5000, processes: bool = True
) -> dict[str, Any]:
    """Sweep rows per second from file to negatives by stratum."""
    settings, profile = Settings(selection=SELECTION), load_selection(SELECTION)
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        path, rows = Path(scratch) / TILE.file, make_rows(n)
        make_file(path, rows)
        registry = make_registry(rows, n_lenses)
        del rows

        def pool(surveys: SurveySettings | None = None) -> pl.DataFrame:
            return tiles.negatives_of(path, registry, settings, surveys)

        def two_steps() -> None:
            pool_counts(build_pool(read_sweep(path, TILE.key)[0], registry, profile, settings)[0])

        def theirs(**how: bool) -> Callable[[], object]:
            return lambda: astropy_way(path, registry, settings, **how)

        _agree(
            pool(),
            tiles.passing_of(path, registry, settings),
            [
                astropy_way(path, registry, settings, **how)
                for how in ({}, {"memmap": True, "guards": True}, {"every_row": True})
            ],
        )
        two_steps()
        wall, cpu = _rounds(
            {
                "ours": lambda: tiles.passing_of(path, registry, settings), "pool": pool, "theirs": theirs(),
                "every_row": theirs(every_row=True), "memmap": theirs(memmap=True),
                "guarded": theirs(memmap=True, guards=True), "two_steps": two_steps, "read": lambda: copied(path),
                "without_datasum": lambda: pool(SurveySettings(verify_datasum=False)),
                "proof": lambda: open_sweep(path, TILE.key),
            },
            repeats,
        )  # fmt: skip
        core, proof = float(np.median(cpu["pool"])), float(np.median(wall["proof"]))
        extras: dict[str, Any] = {
            **{f"ratio_{name}": _ratio(wall, name) for name in ("every_row", "memmap", "guarded")},
            "ratio_cpu": _ratio(cpu, "theirs"), "spread_cpu": _spread(cpu, "theirs"),
            "ratio_pool": _ratio(wall, "theirs", "pool"), "spread_pool": _spread(wall, "theirs", "pool"),
            "ratio_pool_cpu": _ratio(cpu, "theirs", "pool"), "spread_pool_cpu": _spread(cpu, "theirs", "pool"),
            **{f"ratio_{name}_cpu": _ratio(cpu, name) for name in ("every_row", "memmap", "guarded")},
            "ratio_two_steps": _ratio(wall, "theirs", "two_steps"),
            "ratio_without_datasum": _ratio(wall, "theirs", "without_datasum"),
            "ratio_bound": _ratio(cpu, "theirs", "read"),
            "seconds_read": float(np.median(wall["read"])), "seconds_proof": proof,
            "seconds_rest": float(np.median(wall["pool"])) - proof,
            "seconds_two_steps": float(np.median(wall["two_steps"])), "rows_per_core": n / core, "n": n, "n_lenses": n_lenses,
            "megabytes": path.stat().st_size / 1e6, "negatives": pool().height,
        }  # fmt: skip
        if processes:
            extras |= tiles.processes(path, registry, settings, n, repeats)
        few = Path(scratch) / "few" / TILE.file
        few.parent.mkdir()
        make_file(few, make_rows(100))
        fixed = tiles.seconds_of_file(few, registry, settings)
        return line(
            "catalogue", "astropy Table.read, masks, search_around_sky, no checks", (wall["ours"], wall["theirs"]), (n, n),
            "rows/s", pl.thread_pool_size(), **extras, **tiles.projection(core / n, fixed, path.stat().st_size / n),
        )  # fmt: skip


def copied(path: Path) -> int:
    """Copy a file through one buffer and do nothing with it; returns its bytes."""
    buffer, total = memoryview(bytearray(1 << 21)), 0
    with open(path, "rb", buffering=0) as stream:
        while n := stream.readinto(buffer):
            total += n
    return total


def _agree(
    pool: pl.DataFrame, passing: pl.DataFrame, theirs: list[tuple[set[int], dict[tuple[str, str], int]]]
) -> None:
    """Raise unless all sides found the same objects, and some."""
    merged = pool_counts(pool).group_by("type", "stratum_nobs").agg(pl.col("n").sum())
    mine = (set(pool["objid"].to_list()), {(t, b): k for t, b, k in merged.iter_rows()})
    if set(passing["objid"].to_list()) != mine[0]:
        raise RuntimeError(f"the pool holds {pool.height} objects, and {passing.height} pass its cuts")
    for found in theirs:
        if found != mine or not pool.height:
            raise RuntimeError(f"the sides do not find the same negatives: {pool.height} and {len(found[0])}")


Times = dict[str, list[float]]


def _rounds(sides: dict[str, Side], repeats: int) -> tuple[Times, Times]:
    """Seconds of each side by the clock, and in processor time of all threads: rounds of all sides, each begun by another."""
    wall: Times = {name: [] for name in sides}
    cpu: Times = {name: [] for name in sides}
    names = list(sides)
    for k in range(repeats):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = time.process_time()
            wall[name].append(seconds_of(sides[name]))
            cpu[name].append(time.process_time() - start)
    return wall, cpu


def _ratio(seconds: Times, theirs: str, mine: str = "ours") -> float:
    """Median over the rounds."""
    return float(np.median(np.array(seconds[theirs]) / np.array(seconds[mine])))


def _spread(seconds: Times, theirs: str, mine: str = "ours") -> float:
    """Half the range over the rounds."""
    return float(np.ptp(np.array(seconds[theirs]) / np.array(seconds[mine]))) / 2
