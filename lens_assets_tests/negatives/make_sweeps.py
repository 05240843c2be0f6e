"""Invented rows of the ``sweeps``, ``positives`` and ``lens_registry`` tables: plausible marginals, no physics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from astropy.io import fits

from lens_assets.science.columns.surveys import SWEEPS
from lens_assets.science.mock.sweepfile import SWEEP_DTYPE, write_sweep
from lens_assets.science.sphere import cell_of
from lens_assets.science.surveys.layout import brick_of_id, tile_at
from lens_assets.science.surveys.schema import NEEDED

BANDS = ("g", "r", "z")


def sweeps(
    n: int,
    seed: int = 1,
    *,
    ra: tuple[float, float] | list[float] = (150.0, 155.0),
    dec: tuple[float, float] | list[float] = (0.0, 5.0),
    first: int = 0,
    **fixed: Any,
) -> pl.DataFrame:
    """``n`` objects in a range (tuple) or at given places (list).

    ``fixed`` overwrites columns (scalars or sequences) before the derived ones are computed.
    """
    rng = np.random.default_rng(seed)
    c: dict[str, Any] = {
        "release": np.full(n, 10002), "brickid": np.full(n, 330000 + seed % 1000), "brickname": ["1500p000"] * n,
        "objid": np.arange(first, first + n),
        "type": rng.choice(["PSF", "REX", "EXP", "DEV", "SER"], n, p=[0.2, 0.25, 0.1, 0.15, 0.3]),
        "ra": _places(ra, n, rng) % 360, "dec": _places(dec, n, rng), "ebv": rng.uniform(0.01, 0.08, n),
    }  # fmt: skip
    mag_r = rng.uniform(18, 22, n)
    gr, rz = rng.normal(1.0, 0.5, n), rng.normal(0.7, 0.3, n)
    mags = {"g": mag_r + gr, "r": mag_r, "z": mag_r - rz}
    for b in BANDS:
        c[f"flux_{b}"] = 10 ** (0.4 * (22.5 - mags[b]))
        c[f"flux_ivar_{b}"] = np.full(n, 100.0)
        c[f"mw_transmission_{b}"] = 10 ** (-0.4 * 2 * c["ebv"])
        c[f"nobs_{b}"] = rng.integers(1, 15, n)
        c[f"fracflux_{b}"] = rng.exponential(0.05, n)
        c[f"fracmasked_{b}"] = rng.uniform(0, 0.05, n)
        c[f"psfsize_{b}"] = rng.normal(1.3, 0.1, n)
        c[f"psfdepth_{b}"] = rng.uniform(200, 900, n)
        c[f"galdepth_{b}"] = rng.uniform(100, 500, n)
    c["flux_w1"] = c["flux_z"] * 2
    c["shape_r"] = np.where(c["type"] == "PSF", 0.0, rng.lognormal(-0.2, 0.5, n))
    e, pa = rng.uniform(0, 0.6, n), rng.uniform(0, 2 * np.pi, n)
    c["shape_e1"], c["shape_e2"] = e * np.cos(pa), e * np.sin(pa)
    c["sersic"] = np.where(c["type"] == "SER", rng.uniform(0.5, 6, n), 0.0)
    c["maskbits"], c["fitbits"], c["ref_cat"] = np.zeros(n, int), np.zeros(n, int), [""] * n
    for name, value in fixed.items():
        c[name] = [value] * n if np.isscalar(value) or value is None else value
    frame = pl.DataFrame(c, strict=False)
    ra_, dec_ = frame["ra"].to_numpy(), frame["dec"].to_numpy()
    finite = np.isfinite(ra_) & np.isfinite(dec_)
    cell = np.zeros(n, np.int64)
    cell[finite] = cell_of(ra_[finite], dec_[finite])
    magnitude = {
        f"mag_{b}": pl.when(pl.col(f"flux_{b}") > 0).then(22.5 - 2.5 * pl.col(f"flux_{b}").log10()) for b in BANDS
    }
    depth = {
        f"depth_{b}": pl.when(pl.col(f"psfdepth_{b}") > 0).then(
            22.5 - 2.5 * (5 / pl.col(f"psfdepth_{b}").sqrt()).log10()
        )
        for b in BANDS
    }
    frame = frame.with_columns(
        galaxy_id=pl.concat_str("release", "brickid", "objid", separator="-"),
        tile=pl.Series([tile_at(a, d).key if ok else "" for a, d, ok in zip(ra_, dec_, finite, strict=True)]),
        ellipticity=(pl.col("shape_e1") ** 2 + pl.col("shape_e2") ** 2).sqrt(),
        cell=pl.Series(cell),
        row=pl.int_range(pl.len()),
        **magnitude,
        **depth,
    ).with_columns(gr=pl.col("mag_g") - pl.col("mag_r"), rz=pl.col("mag_r") - pl.col("mag_z"))
    return SWEEPS.conform(frame)


def _places(given: tuple[float, float] | list[float], n: int, rng: np.random.Generator) -> Any:
    return rng.uniform(*given, n) if isinstance(given, tuple) else np.asarray(given, float)


def registry(positions: list[tuple[float, float]]) -> pl.DataFrame:
    """Systems at (ra, dec)."""
    return pl.DataFrame(
        {
            "system_id": [f"S{i:04d}" for i in range(len(positions))],
            "ra": [p[0] for p in positions],
            "dec": [p[1] for p in positions],
        },
        schema={"system_id": pl.String, "ra": pl.Float64, "dec": pl.Float64},
    )


def positives(frame: pl.DataFrame, use: str | list[str] = "train", weight: float = 1.0) -> pl.DataFrame:
    """``positives`` rows out of sweeps rows."""
    n = frame.height
    return frame.with_columns(
        system_id=pl.Series([f"S{i:04d}" for i in range(n)], dtype=pl.String),
        weight=pl.lit(weight),
        tier=pl.lit("A"),
        channels=pl.Series([["imaging"]] * n, dtype=pl.List(pl.String)),
        use=pl.Series([use] * n if isinstance(use, str) else use, dtype=pl.String),
        theta_e=pl.lit(None, dtype=pl.Float64),
    )


def eligible(n: int, seed: int, **more: Any) -> pl.DataFrame:
    """Sweeps rows that pass every profile and, unless told otherwise, carry no confuser flag."""
    given: dict[str, Any] = {
        "type": "REX", "flux_g": 6.0, "flux_r": 15.0, "flux_z": 30.0, "flux_w1": 40.0, "shape_r": 0.7, "shape_e1": 0.1,
        "shape_e2": 0.0, "sersic": 1.0, "maskbits": 0, "ref_cat": "", "ebv": 0.03,
        **{f"nobs_{b}": 4 for b in BANDS}, **{f"fracflux_{b}": 0.01 for b in BANDS},
    }  # fmt: skip
    return sweeps(n, seed, **{**given, **more})


def write(path: Path, frame: pl.DataFrame) -> Path:
    """A ``sweeps`` table as the FITS file it could have come from, rows in the order of the table, with its DATASUM."""
    rows = np.zeros(frame.height, SWEEP_DTYPE)
    for name in NEEDED:
        if name != "BRICKNAME":
            values = frame[name.lower()].to_numpy()
            rows[name] = values.astype("S8") if values.dtype == object else values
    rows["BRICKNAME"] = np.array([brick_of_id(int(i)).name for i in frame["brickid"]], "S8")
    write_sweep(path, rows, {})
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus:
            hdu.add_datasum()
    return path
