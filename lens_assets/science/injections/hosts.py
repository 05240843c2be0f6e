"""Which galaxies host injections: non-lenses of the host role, in the grid cell of their own PSF and depth.

A host outside the grid is left out and counted, never snapped to the edge. ``matched`` keeps the massive early types
that real deflectors come from, so that the effect of the host and of the arc can be told apart.

What does not belong here: lens and source parameters, pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.injections import INJECTION_HOSTS
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.hashing import galaxy_key, mix64, seed_of
from lens_assets.science.injections.settings import Settings

HostSet = Literal["random", "matched", "calibrated"]

MATCHED_SERSIC = 2.5
MATCHED_GR = (1.17, 1.87)
MATCHED_R = (17.53, 21.32)
"""Early type (DEV, or SER above this index) with the colours (16-84 %) and magnitudes (5-95 %) of 1,312 published
candidates (Huang et al. 2020, 2021), total light."""


@dataclass(frozen=True)
class HostChoice:
    """Chosen hosts (table ``injection_hosts``), what was left out and why, and hosts per (psf, depth) cell."""

    hosts: pl.DataFrame
    rejections: Rejections
    cells: pl.DataFrame


def bin_of(values: npt.ArrayLike, centres: tuple[float, ...], step: float) -> npt.NDArray[np.int16]:
    """Index of the half-open cell [centre - step/2, centre + step/2) that holds each value; -1 outside all of them."""
    v = np.asarray(values, dtype=np.float64)
    lower = np.round(np.asarray(centres) - step / 2, 9)
    upper = np.round(np.asarray(centres) + step / 2, 9)
    index = np.searchsorted(lower, v, side="right") - 1
    inside = (index >= 0) & np.isfinite(v)
    inside &= np.where(inside, v < upper[np.clip(index, 0, None)], False)
    return np.where(inside, index, -1).astype(np.int16)


def host_key(ids: pl.Series) -> npt.NDArray[np.int64]:
    """The int64 of canonical galaxy ids (RELEASE-BRICKID-OBJID), vectorised; :class:`BadInput` for another form."""
    parts = ids.str.split_exact("-", 2).struct.unnest().select(pl.all().cast(pl.Int64, strict=False))
    bad = parts.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if bad.any():
        row = int(bad.arg_true()[0])
        raise BadInput(f"not a canonical id RELEASE-BRICKID-OBJID: {ids[row]!r}", column="galaxy_id", row=row)
    return galaxy_key(*(parts[c].to_numpy() for c in parts.columns))


def choose_hosts(sample: pl.DataFrame, settings: Settings, host_set: HostSet = "random") -> HostChoice:
    """Hosts among the rows of the split sample (positives and negatives with ``split``, ``role`` and ``label``).

    Rows of other roles and lenses are counted out. Raises :class:`BadInput` if a row of the training split, or a galaxy
    that also has one, carries the host role, and for ``calibrated``, which :func:`like_lenses` makes of the random ones.
    """
    if host_set == "calibrated":
        raise BadInput("calibrated hosts are chosen by a calibration, from the random ones", column="host_set")
    rejections = Rejections()
    n_in = sample.height
    training = sample.filter((pl.col("split") == "train") | (pl.col("role") == "train"))
    leaked = sample.filter(
        (pl.col("role") == settings.host_role)
        & ((pl.col("split") == "train") | pl.col("galaxy_id").is_in(training["galaxy_id"].to_list()))
    )
    if leaked.height:
        raise BadInput(f"{leaked.height} galaxies of the training split have the host role", column="role", row=0)
    psf = bin_of(sample["psfsize_r"].to_numpy(), settings.psf_centres, settings.psf_step)
    depth = bin_of(sample["depth_r"].cast(pl.Float64).to_numpy(), settings.depth_centres, settings.depth_step)
    frame = sample.with_columns(pl.Series("psf_bin", psf), pl.Series("depth_bin", depth))
    early = (pl.col("type") == "DEV") | ((pl.col("type") == "SER") & (pl.col("sersic") > MATCHED_SERSIC))
    psfs = [pl.col(f"psfsize_{b}") for b in "grz"]
    measured = pl.all_horizontal(*(c.is_finite() & (c > 0) for c in psfs))
    steps: list[tuple[str, pl.Expr]] = [
        (f"role is not {settings.host_role}", pl.col("role") == settings.host_role),
        ("a lens or candidate", pl.col("label") == 0),
        ("no PSF in some band", measured),
        ("outside the grid", (pl.col("psf_bin") >= 0) & (pl.col("depth_bin") >= 0)),
    ]  # fmt: skip
    if host_set == "matched":
        steps += [
            ("not an early type", early),
            ("not the colour of deflectors", pl.col("gr").is_between(*MATCHED_GR)),
            ("not the magnitude of deflectors", pl.col("mag_r").is_between(*MATCHED_R)),
        ]
    for reason, keep in steps:
        kept = frame.filter(keep.fill_null(False))
        rejections.add(reason, frame.height - kept.height)
        frame = kept
    frame = frame.sort("galaxy_id")
    if frame["galaxy_id"].is_duplicated().any():
        row = int(frame["galaxy_id"].is_duplicated().arg_true()[0])
        raise BadInput(f"galaxy {frame['galaxy_id'][row]} appears twice among the hosts", column="galaxy_id", row=row)
    rank = mix64(host_key(frame["galaxy_id"]), seed_of("host", settings.seed))
    frame = frame.with_columns(pl.Series("rank_hash", rank)).with_columns(
        pl.col("rank_hash").rank("ordinal").over("psf_bin", "depth_bin").alias("place")
    )
    kept = frame.filter(pl.col("place") <= settings.max_hosts_per_cell)
    rejections.add("more hosts than the cell needs", frame.height - kept.height)
    e1, e2 = (kept[c].cast(pl.Float64).fill_null(0.0) for c in ("shape_e1", "shape_e2"))
    e = np.clip(np.hypot(e1.to_numpy(), e2.to_numpy()), 0.0, 0.95)
    hosts = kept.with_columns(
        pl.Series("q_host", (1 - e) / (1 + e)),
        pl.Series("pa_host", np.degrees(0.5 * np.arctan2(e2.to_numpy(), e1.to_numpy())) % 180.0),
        pl.Series("psf_centre", np.asarray(settings.psf_centres)[kept["psf_bin"].to_numpy()]),
        pl.Series("depth_centre", np.asarray(settings.depth_centres)[kept["depth_bin"].to_numpy()]),
        pl.lit(host_set).alias("host_set"),
    )
    rejections.check(n_in, hosts.height)
    return HostChoice(INJECTION_HOSTS.conform(hosts), rejections, coverage(hosts, settings))


def like_lenses(hosts: pl.DataFrame, chosen: frozenset[str]) -> pl.DataFrame:
    """The random hosts that a calibration found to resemble lens galaxies (``chosen`` ids), as host set ``calibrated``."""
    kept = hosts.filter(pl.col("galaxy_id").is_in(sorted(chosen)))
    return INJECTION_HOSTS.conform(kept.with_columns(pl.lit("calibrated").alias("host_set")))


def coverage(hosts: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Hosts per (psf, depth) cell, empty cells with zero: nothing is missing in silence."""
    grid = pl.DataFrame(
        [(i, j, p, d) for i, p in enumerate(settings.psf_centres) for j, d in enumerate(settings.depth_centres)],
        schema={"psf_bin": pl.Int16, "depth_bin": pl.Int16, "psf_centre": pl.Float64, "depth_centre": pl.Float64},
        orient="row",
    )
    counts = hosts.group_by("psf_bin", "depth_bin").agg(pl.len().alias("n_hosts"))
    return (
        grid.join(counts, on=["psf_bin", "depth_bin"], how="left")
        .with_columns(pl.col("n_hosts").fill_null(0).cast(pl.Int64))
        .sort("psf_bin", "depth_bin")
    )
