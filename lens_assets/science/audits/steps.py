"""From the published surface to the true sky in steps that change one thing each, with the interval of each difference.

Every surface is averaged over the cells that the true lenses lie in, with their numbers as weights, so that all are about the
same population. Interval: hull of two bootstraps. Over hosts (percentile): surfaces on the same hosts share the draws, so that
their difference is paired; lenses of the sky are drawn within their cells. Over bricks (Bayesian bootstrap: Rubin 1981,
doi:10.1214/aos/1176345338): the weight of a brick is drawn by its identity, so that whatever lies in it is weighted alike in
every surface and in the sky; widened as Student's t for few bricks. Of fewer than three bricks hosts alone speak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import norm, t

from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.hashing import digest, generator, site_names

F64 = npt.NDArray[np.float64]
SKY = "the sky"
PUBLISHED, ORDINARY = "published", "true lenses on ordinary hosts"
ALIKE, EXACT = "true lenses on hosts like deflectors", "the sky's own arcs on hosts like deflectors"
STEPS = (
    ("1 priors made true", PUBLISHED, ORDINARY),
    ("2 hosts made like deflectors", ORDINARY, ALIKE),
    ("3 lens and source models made the sky's own", ALIKE, EXACT),
    ("4 what is left", EXACT, SKY),
    ("all together", PUBLISHED, SKY),
)
"""Name of the step, surface before, surface after."""


@dataclass(frozen=True)
class Arm:
    """Scored injections of one surface: ``injection_id, galaxy_id, i_theta, i_psf, i_depth, psfsize_r, depth_r, score, found``."""

    rows: pl.DataFrame


def steps_table(
    arms: Mapping[str, Arm], lenses: pl.DataFrame, grid: Grid, cut: float, settings: ClosureSettings
) -> pl.DataFrame:
    """The rows of ``closure_steps``, over the cells that all ``arms`` and the true ``lenses`` fill.

    Without ``galaxy_id`` the bricks of the ``lenses`` are unknown, and they are drawn within their cells alone.
    """
    place = [lenses[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in ("theta_e", "psfsize_r", "depth_r")]
    cell = grid.flat(*(axis.index(v) for axis, v in zip(grid.axes, place, strict=True)))
    found = lenses["score"].to_numpy() >= cut
    n = np.bincount(cell[cell >= 0], minlength=grid.size)
    k = np.bincount(cell[cell >= 0], found[cell >= 0], grid.size)
    cells = {
        name: grid.flat(*(arm.rows[c].to_numpy() for c in ("i_theta", "i_psf", "i_depth")))
        for name, arm in arms.items()
    }
    common = np.flatnonzero((n > 0) & np.all([np.bincount(c, minlength=grid.size) > 0 for c in cells.values()], axis=0))
    w = n[common] / n[common].sum()
    made = {name: _weighted(arm.rows, cells[name], common, w, settings) for name, arm in arms.items()}
    rng = generator("closure sky draws", settings.seed)
    sky = rng.binomial(n[common], k[common] / n[common], (settings.draws, common.size)) / n[common] @ w
    bricks, by_brick = 10**6, sky  # as if each lens lay in a brick of its own
    if "galaxy_id" in lenses.columns:
        number = _numbers(common, grid.size)[np.where(cell < 0, grid.size, cell)]
        kept = number >= 0
        names = lenses["galaxy_id"].filter(pl.Series(kept))
        bricks, by_brick = _by_brick(names, number[kept], found[kept].astype(float), w, settings)
    made[SKY] = _Made(float(w @ (k[common] / n[common])), int(n[common].sum()), sky, by_brick, bricks)
    further = [(f"as {name}", PUBLISHED, name) for name in arms if name.startswith("variant ")]
    rows: list[dict[str, Any]] = []
    for step, before, after in (*STEPS, *further):
        a, b = made[before], made[after]
        row: dict[str, Any] = {
            "closure_step": step, "step_from_arm": before, "step_to_arm": after, "completeness_before": a.value,
            "completeness_after": b.value, "step_difference": b.value - a.value, "n_before": a.n, "n_after": b.n,
        }  # fmt: skip
        for level in (68, 95):
            row[f"step_lo{level}"], row[f"step_hi{level}"] = _bounds(a, b, level / 100)
        rows.append(row)
    return pl.DataFrame(rows)


@dataclass(frozen=True)
class _Made:
    """Weighted mean of one surface, the injections behind it, and its draws over hosts and over ``bricks`` bricks."""

    value: float
    n: int
    by_host: F64
    by_brick: F64
    bricks: int


def _bounds(a: _Made, b: _Made, level: float) -> tuple[float, float]:
    """Bounds of b - a: the hull of those over hosts and those over bricks."""
    tail, here = (1 - level) / 2, b.value - a.value
    lo, hi = np.quantile(b.by_host - a.by_host, [tail, 1 - tail])
    few = min(a.bricks, b.bricks)
    if few >= 3:
        # the variance of a Bayesian bootstrap is (few - 1) / (few + 1) of that of a mean of as many
        wide = t.ppf(1 - tail, few - 1) / norm.ppf(1 - tail) * np.sqrt((few + 1) / (few - 1))
        low, high = here + wide * (np.quantile(b.by_brick - a.by_brick, [tail, 1 - tail]) - here)
        lo, hi = min(lo, low), max(hi, high)
    return float(np.clip(lo, -1, 1)), float(np.clip(hi, -1, 1))


def _numbers(common: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Place of each cell among the ``common`` ones, -1 for others (and for the one past the last)."""
    number = np.full(size + 1, -1)
    number[common] = np.arange(common.size)
    return number


def _weighted(
    rows: pl.DataFrame, cell: npt.NDArray[np.int64], common: npt.NDArray[np.int64], w: F64, settings: ClosureSettings
) -> _Made:
    """Weighted mean over the ``common`` cells, its bootstrap draws, and the injections behind it."""
    at = _numbers(common, int(max(cell.max(), common.max())) + 1)[cell]
    ids = rows["galaxy_id"].filter(pl.Series(at >= 0))
    found, at = rows["found"].to_numpy()[at >= 0].astype(float), at[at >= 0]
    names, host = np.unique(ids.to_numpy().astype(str), return_inverse=True)
    n, k = np.zeros((names.size, common.size)), np.zeros((names.size, common.size))
    np.add.at(n, (host, at), 1)
    np.add.at(k, (host, at), found)
    rng = generator("closure host draws", settings.seed, digest(names.tolist()))
    picked = rng.multinomial(names.size, np.full(names.size, 1 / names.size), settings.draws).astype(float)
    bricks, by_brick = _by_brick(ids, at, found, w, settings)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(w @ (k.sum(0) / n.sum(0)))
    return _Made(value, int(n.sum()), _mean(picked, n, k, w), by_brick, bricks)


def _by_brick(
    ids: pl.Series, at: npt.NDArray[np.int64], found: F64, w: F64, settings: ClosureSettings
) -> tuple[int, F64]:
    """Bricks of galaxies ``ids`` (RELEASE-BRICKID-OBJID), and draws of the weighted mean over cells ``at`` with every brick
    weighted by its own draws."""
    names, site = np.unique(site_names(ids), return_inverse=True)
    n, k = np.zeros((names.size, w.size)), np.zeros((names.size, w.size))
    np.add.at(n, (site, at), 1)
    np.add.at(k, (site, at), found)
    weight = [
        generator("closure brick draws", settings.seed, b).exponential(size=settings.draws) for b in names.tolist()
    ]
    return names.size, _mean(np.array(weight).T, n, k, w)


def _mean(weight: F64, n: F64, k: F64, w: F64) -> F64:
    """(draws,) means over cells, weights ``w``, of the found fractions, units weighted by the rows of ``weight``."""
    top, below = weight @ k, weight @ n
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nansum(w * top / below, axis=1) / np.sum(w * (below > 0), axis=1))
