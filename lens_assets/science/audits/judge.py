"""What the scores of the closure experiment say: coverage, bias, and the steps from the published surface to the sky."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.audits.closure import MIN_PER_CELL, closure, expected_inside, with_prior_error
from lens_assets.science.audits.instrument import CELL, supported
from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.audits.steps import PUBLISHED, STEPS, Arm, steps_table
from lens_assets.science.columns.audits import CLOSURE_ARMS, CLOSURE_CELLS, CLOSURE_STEPS
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.recount import remaining
from lens_assets.science.completeness.surface import build_surface
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.hashing import seed_of, sites_of, uniform
from lens_assets.science.injections.hosts import host_key
from lens_assets.science.intervals import wilson

LENSES = "true lenses of the closure sky"
FRESH = "its own arcs on fresh galaxies"
REPLICATES = "its own arcs on fresh galaxies, disjoint hosts"
AS_PUBLISHED = "as published, with its threshold's error"
WITH_PRIORS = "as published, with the errors of threshold and priors"
_FEWEST = 20
"""Injections a cell needs in a surface of the experiment."""


@dataclass(frozen=True)
class Scored:
    """Everything that was scored: injections by ``arms``, true ``lenses``, lenses of ``known`` completeness (each with
    ``galaxy_id, theta_e, psfsize_r, depth_r, score``), and facts."""

    arms: Mapping[str, Arm]
    lenses: pl.DataFrame
    known: pl.DataFrame
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Tables ``closure_arms``, ``closure_steps``, ``closure_cells``, and facts that have no table."""

    arms: pl.DataFrame
    steps: pl.DataFrame
    cells: pl.DataFrame
    facts: dict[str, Any]


def judge(surface: Surface, scored: Scored, settings: ClosureSettings) -> Outcome:
    """Compare every arm with the true lenses, and the published surface with the lenses whose completeness is its own."""
    point = surface.point("default")
    tables, compared = [], []
    surfaces = {name: _surface(arm, surface, point) for name, arm in scored.arms.items()}
    whole = {AS_PUBLISHED: surface} | ({WITH_PRIORS: with_prior_error(surface)} if surface.prior else {})
    for name, against in {**whole, **surfaces}.items():
        tables.append(_compared(name, LENSES, against, scored.lenses, point))
        compared.append(_summary(tables[-1], against))
    tables.append(_compared(PUBLISHED, FRESH, surfaces[PUBLISHED], scored.known, point))
    compared.append(_summary(tables[-1], surfaces[PUBLISHED]))
    parts = [_surface(a, surface, point) for a in _disjoint(scored.arms[PUBLISHED], settings)]
    pieces = [_compared(f"{r + 1} of {len(parts)}", REPLICATES, s, scored.known, point) for r, s in enumerate(parts)]
    compared.append(_pooled(pieces, parts))
    bricks = {
        "surface": scored.arms[PUBLISHED].rows["galaxy_id"], "true lenses": scored.lenses["galaxy_id"],
        "fresh galaxies": scored.known["galaxy_id"],
    }  # fmt: skip
    steps = CLOSURE_STEPS.conform(steps_table(scored.arms, scored.lenses, surface.grid, point.cut, settings))
    return Outcome(
        CLOSURE_ARMS.conform(pl.DataFrame(compared, infer_schema_length=None)),
        steps,
        CLOSURE_CELLS.conform(pl.concat([*tables, *pieces], how="vertical_relaxed")),
        {
            **scored.facts,
            "seed": settings.seed,
            "supported_cells": supported(surface).height,
            "priors": fit_error(surface, scored.lenses, point, steps),
            "bricks": {name: int(np.unique(sites_of(ids.to_list())).size) for name, ids in bricks.items()},
        },
    )


def fit_error(
    surface: Surface, lenses: pl.DataFrame, point: OperatingPoint, steps: pl.DataFrame
) -> dict[str, Any] | None:
    """What the error of the fitted priors does to the published completeness at the true ``lenses``' own cells, and whether it
    holds what the step `priors made true` gave there; ``None`` for priors without a fit."""
    if surface.recounted is None:
        return None
    grid = surface.grid
    place = [lenses[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in ("theta_e", "psfsize_r", "depth_r")]
    cell = grid.flat(*(axis.index(v) for axis, v in zip(grid.axes, place, strict=True)))
    cells = surface.cells.filter(pl.col("operating_point") == point.name)
    weight = np.bincount(cell[cell >= 0], minlength=grid.size) * (cells["support"] == "supported").to_numpy()
    found = surface.recounted.grouped(
        cells, CELL, weight.astype(float), np.zeros(grid.size, np.int64), 1, surface.points.index(point)
    )
    bad = ~(found.effective >= surface.settings.prior_min_effective)
    first = steps.filter(pl.col("closure_step") == STEPS[0][0]).row(0, named=True)
    out: dict[str, Any] = {
        "published": first["completeness_before"], "priors_made_true": first["completeness_after"], "draws": found.c.shape[1],
        "refused": float(bad.mean()), "effective": float(np.median(found.effective)), "beyond": found.beyond,
    }  # fmt: skip
    for level in (68, 95):
        lo, hi = (float(v[0]) for v in remaining(found.c, bad, (1 - level / 100) / 2))
        known = np.isfinite(lo)
        out |= {f"lo{level}": lo if known else None, f"hi{level}": hi if known else None}
        out[f"inside{level}"] = bool(lo <= first["completeness_after"] <= hi) if known else None
    return out


def _surface(arm: Arm, like: Surface, point: OperatingPoint) -> Surface:
    """An arm counted into a surface by the ordinary code, at the threshold without its error."""
    centres = np.asarray(like.grid.theta_e.centres)
    rows = arm.rows.with_columns(theta_e=pl.Series(centres[arm.rows["i_theta"].to_numpy()])).drop(*CELL, "found")
    fixed = pl.DataFrame({"name": [point.name], "threshold": [point.cut]})
    settings = like.settings.model_copy(
        update={"min_per_cell": _FEWEST, "thresholds": (), "default_threshold": point.name}
    )
    return build_surface(rows, fixed, like.grid, settings, {"realism": None})


def _disjoint(arm: Arm, settings: ClosureSettings) -> list[Arm]:
    hosts = arm.rows.select(pl.col("galaxy_id").unique().sort())
    part = (
        uniform(host_key(hosts["galaxy_id"]).astype(np.uint64), seed_of("closure replicate", settings.seed))
        * settings.replicates
    ).astype(int)
    rows = arm.rows.join(hosts.with_columns(pl.Series("part", part)), on="galaxy_id", how="left")
    return [Arm(rows.filter(pl.col("part") == r).drop("part")) for r in range(settings.replicates)]


def _compared(name: str, against: str, surface: Surface, truth: pl.DataFrame, point: OperatingPoint) -> pl.DataFrame:
    frame = closure(surface, truth, point.name)
    return frame.with_columns(closure_arm=pl.lit(name), closure_against=pl.lit(against))


def _summary(rows: pl.DataFrame, surface: Surface) -> dict[str, Any]:
    whole = rows.filter(pl.col("closure_level") == "all").row(0, named=True)
    cells = rows.filter((pl.col("closure_level") == "cell") & (pl.col("n_true_lenses") >= MIN_PER_CELL))
    mine = surface.cells.filter(pl.col("operating_point") == whole["operating_point"]).join(
        cells.select(cell_theta_e="at_theta_e", cell_psf="at_psf", cell_depth="at_depth"),
        on=["cell_theta_e", "cell_psf", "cell_depth"], how="semi",
    )  # fmt: skip
    hosts = surface.members.join(mine.select(CELL), on=CELL, how="semi")["host"].n_unique()
    return {
        **{k: v for k, v in whole.items() if k not in ("inside68", "inside95")},
        **_shares(cells, expected_inside(surface, cells)),
        "n_injections_arm": int(mine["n_injections"].sum()), "n_hosts_arm": hosts,
    }  # fmt: skip


def _shares(cells: pl.DataFrame, expected: Mapping[int, npt.NDArray[np.float64]]) -> dict[str, Any]:
    out: dict[str, Any] = {"n_compared": cells.height}
    for level in (68, 95):
        k = int(cells[f"inside{level}"].sum())
        own = wilson(k, cells.height, 0.95)
        out |= {
            f"n_inside{level}": k, f"share_inside{level}": k / cells.height if cells.height else None,
            f"share_inside{level}_lo95": None if not cells.height else float(own.lo),
            f"share_inside{level}_hi95": None if not cells.height else float(own.hi),
            f"expected_inside{level}": float(expected[level].mean()) if cells.height else None,
        }  # fmt: skip
    return out


def _pooled(pieces: list[pl.DataFrame], parts: list[Surface]) -> dict[str, Any]:
    """All replicates as one row: their cells together, predictions and differences averaged over those that can be compared.

    A set of a few hosts may fill no cell that holds lenses. Lenses are those of the set that is compared with most of them.
    """
    rows = [_summary(p, s) for p, s in zip(pieces, parts, strict=True)]
    cells = [p.filter((pl.col("closure_level") == "cell") & (pl.col("n_true_lenses") >= MIN_PER_CELL)) for p in pieces]
    expected = [expected_inside(s, c) for s, c in zip(parts, cells, strict=True)]
    joined = {level: np.concatenate([e[level] for e in expected]) for level in (68, 95)}
    compared = [r for r in rows if r["predicted_completeness"] is not None]
    mean = {
        c: float(np.mean([r[c] for r in compared])) if compared else None
        for c in ("predicted_completeness", "difference")
    }
    nothing: dict[str, Any] = {"p_closure": None}
    nothing |= {f"predicted_{s}{v}": None for s in ("lo", "hi") for v in (68, 95)}
    return {
        **max(compared or rows, key=lambda r: r["n_true_lenses"]), **_shares(pl.concat(cells), joined), **nothing,
        "closure_arm": f"{len(parts)} sets of its hosts", **mean,
        "n_injections_arm": sum(r["n_injections_arm"] for r in rows), "n_hosts_arm": sum(r["n_hosts_arm"] for r in rows),
    }  # fmt: skip
