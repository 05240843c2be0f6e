"""Injections of a fitted prior set by the engine's own plan, before a toy detector, and draws of the fit: what tests of the
error of fitted priors share."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import expit

from lens_assets.science.calibration.fit import ALL
from lens_assets.science.calibration.model import BROAD, prior_of
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.prior_error import PriorDraws
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.completeness.surface import build_surface
from lens_assets.science.injections.batch import plan_batch
from lens_assets.science.injections.priors import PriorSet, prior_set
from lens_assets.science.injections.settings import Settings as Injections
from lens_assets.science.injections.variants import Variant

BASE = prior_set("population")
FIT = {
    **BROAD, "r_mean": 22.6, "r_sigma": 0.9, "gr_mean": 0.1, "gr_sigma": 0.3, "rz_mean": 0.2, "rz_sigma": 0.35, "rho": 0.45,
    "re_log": -0.45, "re_dex": 0.28, "beta_hi": 0.55, "clumpy": 0.6, "clump_mean": 0.35,
}  # fmt: skip
OTHER = FIT | {
    "r_mean": 22.9, "r_sigma": 0.8, "gr_mean": 0.2, "rz_mean": 0.1, "rho": 0.6, "re_log": -0.5, "beta_hi": 0.5, "clumpy": 0.45,
    "clump_mean": 0.4,
}  # fmt: skip
SPREAD = {"r_mean": 0.3, "re_log": 0.05, "gr_mean": 0.08, "clumpy": 0.08, "beta_hi": 0.03}
MIXTURE = Variant(name="mixture", summary="x", source="mixture", prior_set="calibrated")
GRID = Settings(theta_e=(1.0, 1.5), psf=(1.2, 1.35), depth=(23.0, 23.5), min_per_cell=100, min_per_stratum=10)
ENGINE = Injections(theta_e=(1.0, 1.5), psf_centres=GRID.psf, depth_centres=GRID.depth, max_host_reuse=100)
THRESHOLDS = pl.DataFrame({"name": ["half", "strict"], "threshold": [0.5, 0.8]})


def fitted(values: dict[str, float]) -> PriorSet:
    return prior_of(values, BASE, "calibrated", "a fit")


def table(rows: list[dict[str, float]]) -> pl.DataFrame:
    """Draws as a calibration keeps them, nuisances and all."""
    flat = [(d, n, float(v.get(n, 0.0))) for d, v in enumerate(rows) for n in ALL]
    return pl.DataFrame(flat, schema=["draw", "parameter", "drawn_value"], orient="row")


def draws(rows: list[dict[str, float]], values: dict[str, float] = FIT) -> PriorDraws:
    return PriorDraws.of(fitted(values), table(rows), mixture=True, colours="normal")


def about(n: int, rng: np.random.Generator, centre: dict[str, float] = FIT) -> list[dict[str, float]]:
    """Draws about a fit with the error ``SPREAD``."""
    out = [centre | {k: centre[k] + s * rng.normal() for k, s in SPREAD.items()} for _ in range(n)]
    return [v | {"clumpy": float(np.clip(v["clumpy"], 0.02, 0.98))} for v in out]


def injections(
    values: dict[str, float], per_cell: int, seed: int, hosts: int = 0, variant: Variant = MIXTURE
) -> pl.DataFrame:
    """The engine's own plan, and a toy detector that finds bright, large, clumpy sources near the caustic."""
    cells = [(i, j) for i in range(2) for j in range(2)]
    each = hosts or per_cell
    rows = pl.DataFrame(
        {
            "galaxy_id": [f"9010-{10 * i + j}-{h}" for i, j in cells for h in range(each)],
            "psf_bin": np.repeat([i for i, _ in cells], each), "depth_bin": np.repeat([j for _, j in cells], each),
        }
    ).with_columns(
        tile=pl.lit("000m005"), type=pl.Series(["DEV", "SER"] * (2 * each)), host_set=pl.lit("random"), q_host=pl.lit(0.8),
        pa_host=pl.lit(30.0), gr=pl.lit(1.2), **{f"mag_{b}": pl.lit(19.0) for b in "grz"},
        **{f"psfsize_{b}": pl.Series(np.repeat([GRID.psf[i] for i, _ in cells], each)) for b in "grz"},
        **{f"depth_{b}": pl.Series(np.repeat([GRID.depth[j] for _, j in cells], each)) for b in "grz"},
    )  # fmt: skip
    engine = ENGINE.model_copy(update={"per_cell": per_cell})
    plan = pl.concat([plan_batch(rows, variant, t, engine, seed, fitted(values)) for t in GRID.theta_e])
    rng = np.random.default_rng(seed)
    noise = rng.logistic(size=plan.height)
    return plan.with_columns(score=pl.Series(expit(logit(plan) + noise)))


def logit(rows: pl.DataFrame) -> np.ndarray:
    r, beta, re = (rows[c].to_numpy() for c in ("source_mag_r", "beta", "source_re"))
    clumpy = (rows["family"] == "clumpy").to_numpy()
    depth = rows["depth_r"].to_numpy() - 23.0
    return 1.6 * (22.9 - r) + 2.0 * (0.35 - beta) + np.log10(re / 0.35) + 0.5 * clumpy + 0.8 * depth


def surface(rows: pl.DataFrame, prior: PriorDraws | None) -> Surface:
    return build_surface(rows, THRESHOLDS, Grid.of(GRID), GRID, {"realism": None}, prior)


def true_lenses(values: dict[str, float], n: int, seed: int) -> pl.DataFrame:
    return injections(values, n, seed).select("theta_e", "psfsize_r", "depth_r", "score")
