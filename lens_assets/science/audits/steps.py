"""From the published surface to the true sky in steps that change one thing each, with the interval of each difference.

Every surface is averaged over the cells that the true lenses lie in, with their numbers as weights, so that all are about the
same population. Interval: percentile bootstrap over whole hosts; surfaces on the same hosts share the draws (their
difference is paired), lenses of the sky are drawn within their cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.hashing import digest, generator

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
    """The rows of ``closure_steps``, over the cells that all ``arms`` and the true ``lenses`` fill."""
    place = [lenses[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in ("theta_e", "psfsize_r", "depth_r")]
    cell = grid.flat(*(axis.index(v) for axis, v in zip(grid.axes, place, strict=True)))
    n = np.bincount(cell[cell >= 0], minlength=grid.size)
    k = np.bincount(cell[cell >= 0], (lenses["score"].to_numpy() >= cut)[cell >= 0], grid.size)
    cells = {
        name: grid.flat(*(arm.rows[c].to_numpy() for c in ("i_theta", "i_psf", "i_depth")))
        for name, arm in arms.items()
    }
    common = np.flatnonzero((n > 0) & np.all([np.bincount(c, minlength=grid.size) > 0 for c in cells.values()], axis=0))
    w = n[common] / n[common].sum()
    value, draws, number = {}, {}, {}
    for name, arm in arms.items():
        value[name], draws[name], number[name] = _weighted(arm.rows, cells[name], common, w, settings)
    rng = generator("closure sky draws", settings.seed)
    sky = rng.binomial(n[common], k[common] / n[common], (settings.draws, common.size)) / n[common]
    value[SKY], draws[SKY], number[SKY] = float(w @ (k[common] / n[common])), sky @ w, int(n[common].sum())
    further = [(f"as {name}", PUBLISHED, name) for name in arms if name.startswith("variant ")]
    rows: list[dict[str, Any]] = []
    for step, before, after in (*STEPS, *further):
        off = draws[after] - draws[before]
        row: dict[str, Any] = {
            "closure_step": step, "step_from_arm": before, "step_to_arm": after, "completeness_before": value[before],
            "completeness_after": value[after], "step_difference": value[after] - value[before],
            "n_before": number[before], "n_after": number[after],
        }  # fmt: skip
        for level in (68, 95):
            tail = (1 - level / 100) / 2
            row[f"step_lo{level}"], row[f"step_hi{level}"] = (float(x) for x in np.quantile(off, [tail, 1 - tail]))
        rows.append(row)
    return pl.DataFrame(rows)


def _weighted(
    rows: pl.DataFrame, cell: npt.NDArray[np.int64], common: npt.NDArray[np.int64], w: F64, settings: ClosureSettings
) -> tuple[float, F64, int]:
    """Weighted mean over the ``common`` cells, its bootstrap draws, and the injections behind it."""
    number = np.full(int(cell.max()) + 1, -1)
    number[common[common < number.size]] = np.arange(common.size)[common < number.size]
    at = number[cell]
    names, host = np.unique(rows["galaxy_id"].to_numpy().astype(str)[at >= 0], return_inverse=True)
    found, at = rows["found"].to_numpy()[at >= 0].astype(float), at[at >= 0]
    n, k = np.zeros((names.size, common.size)), np.zeros((names.size, common.size))
    np.add.at(n, (host, at), 1)
    np.add.at(k, (host, at), found)
    rng = generator("closure host draws", settings.seed, digest(names.tolist()))
    picked = rng.multinomial(names.size, np.full(names.size, 1 / names.size), settings.draws).astype(float)
    top, below = picked @ k, picked @ n
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.nansum(w * top / below, axis=1) / np.sum(w * (below > 0), axis=1)
        value = float(w @ (k.sum(0) / n.sum(0)))
    return value, draws, int(n.sum())
