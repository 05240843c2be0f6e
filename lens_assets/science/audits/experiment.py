"""The closure experiment: does the published interval hold the truth, and where it does not, which of its makings is to blame.

Two questions with an answer each.

*The machinery.* A population whose completeness is known to be the surface's: arcs of the surface's own variant, one on each
of many galaxies of the closure sky. Nothing differs but chance, so counting, host-aware intervals, noise and scoring must
cover at the nominal rate: the surface as a whole, and surfaces made of disjoint sets of its hosts.

*The sky.* True lenses through the whole pipeline against surfaces that differ from the published one in one thing after the
other: its priors made true, its hosts made like deflectors, its lens and source models made the sky's own. What is left
then is the machinery's again. All at the published threshold taken as it is; the rate of false positives on fresh galaxies
says how well that one was set.

What does not belong here: writing or reading the sky (``sky``), drawing lenses (``twins``), figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.audits.closure import MIN_PER_CELL, closure, expected_inside
from lens_assets.science.audits.instrument import CELL, Instrument, supported
from lens_assets.science.audits.machinery import false_positives, fresh_hosts, own_arcs
from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.audits.sky import Sky
from lens_assets.science.audits.steps import Arm, steps_table
from lens_assets.science.audits.twins import (
    ExactArcs,
    alike_hosts,
    draw_twins,
    engine_plan,
    ordinary_hosts,
    score_engine,
    score_exact,
    variant_of_arm,
)  # fmt: skip
from lens_assets.science.columns.audits import CLOSURE_ARMS, CLOSURE_CELLS, CLOSURE_STEPS
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.surface import build_surface
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.hashing import seed_of, uniform
from lens_assets.science.injections.batch import StampSource
from lens_assets.science.injections.hosts import host_key
from lens_assets.science.intervals import wilson

LENSES = "true lenses of the closure sky"
FRESH = "its own arcs on fresh galaxies"
REPLICATES = "its own arcs on fresh galaxies, disjoint hosts"
_FEWEST = 20
"""Injections a cell needs in a surface of the experiment."""


@dataclass(frozen=True)
class Outcome:
    """Tables ``closure_arms``, ``closure_steps``, ``closure_cells``, and facts that have no table."""

    arms: pl.DataFrame
    steps: pl.DataFrame
    cells: pl.DataFrame
    facts: dict[str, Any]


def experiment(
    instrument: Instrument,
    sky: Sky,
    lenses: pl.DataFrame,
    stamps: StampSource,
    galaxies: pl.DataFrame,
    settings: ClosureSettings,
    *,
    threads: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run the experiment at the surface's default threshold.

    Parameters
    ----------
    lenses : ``sky.lenses`` with ``score`` (null where the stamp was rejected: left out and counted, as no injection is made
        into such a stamp either).
    stamps, galaxies : pixels of non-lenses of the closure sky, and their rows as :func:`placed` gives them.
    """
    surface, point = instrument.surface, instrument.surface.point("default")
    cells = supported(surface)
    usable = lenses.filter(pl.col("score").is_not_null())
    progress("twins of true lenses on hosts like their deflectors")
    twins = draw_twins(sky.size, cells, surface.grid, settings)
    alike, apart = alike_hosts(twins, galaxies, settings)
    columns = ["galaxy_id", "tile", "psfsize_g", "psfsize_r", "psfsize_z", "depth_r", "ebv"]
    rows = engine_plan(twins, alike, galaxies.select(*columns, "brickname"), "closure-alike", settings.seed)
    variant = variant_of_arm("closure-alike", instrument.variant)
    arms = {"published": _arm(surface.members, point)}
    arms |= {f"variant {name}": _arm(s.members, point) for name, s in sorted(instrument.others.items())}
    arms["true lenses on hosts like deflectors"] = _of_rows(
        score_engine(rows, stamps, instrument.scorer, instrument.injections, variant), point
    )
    progress("the sky's own arcs on the same hosts")
    side = int(stamps.images([rows["galaxy_id"][0]]).shape[-1])
    made = ExactArcs(sky.size, sky.seed, side, threads)
    arms["the sky's own arcs on hosts like deflectors"] = _of_rows(
        score_exact(rows, twins, stamps, instrument.scorer, made), point
    )
    progress("twins on ordinary hosts")
    ordinary = ordinary_hosts(twins, instrument.hosts, settings)
    rows = engine_plan(twins, ordinary, instrument.hosts.select(columns), "closure-ordinary", settings.seed)
    variant = variant_of_arm("closure-ordinary", instrument.variant)
    arms["true lenses on ordinary hosts"] = _of_rows(
        score_engine(rows, instrument.stamps, instrument.scorer, instrument.injections, variant), point
    )
    tables, compared = [], []
    surfaces = {name: _surface(arm, surface, point) for name, arm in arms.items()}
    for name, against in {"as published, with its threshold's error": surface, **surfaces}.items():
        tables.append(_compared(name, LENSES, against, usable, point))
        compared.append(_summary(tables[-1], against))
    progress("the machinery: its own arcs on fresh galaxies")
    fresh, missing = fresh_hosts(galaxies, instrument.hosts, instrument.injections, settings.seed)
    known = own_arcs(instrument, fresh, stamps, cells)
    tables.append(_compared("published", FRESH, surfaces["published"], known, point))
    compared.append(_summary(tables[-1], surfaces["published"]))
    parts = [_surface(a, surface, point) for a in _disjoint(arms["published"], settings)]
    pieces = [_compared(f"{r + 1} of {len(parts)}", REPLICATES, s, known, point) for r, s in enumerate(parts)]
    tables += pieces
    compared.append(_pooled(pieces, parts))
    steps = steps_table(arms, usable, surface.grid, point.cut, settings)
    facts = {
        "threshold": {"name": point.name, "cut": point.cut, **false_positives(instrument, fresh, stamps, point)},
        "seed": settings.seed,
        "lenses": {"in": usable.height + sky.rejected.total + (lenses.height - usable.height), "scored": usable.height,
                   "no usable stamp": lenses.height - usable.height, **sky.rejected.counts},
        "fresh_galaxies": fresh.height, "strata_short": missing, "host_minus_deflector": apart,
        "supported_cells": cells.height,
    }  # fmt: skip
    return Outcome(
        CLOSURE_ARMS.conform(pl.DataFrame(compared, infer_schema_length=None)),
        CLOSURE_STEPS.conform(steps),
        CLOSURE_CELLS.conform(pl.concat(tables, how="vertical_relaxed")),
        facts,
    )


def _arm(members: pl.DataFrame, point: OperatingPoint) -> Arm:
    return Arm(members.select(
        pl.col("injection").alias("injection_id"), pl.col("host").alias("galaxy_id"), *CELL,
        pl.col("host_psf").alias("psfsize_r"), pl.col("host_depth").alias("depth_r"), pl.col("injection_score").alias("score"),
    ).with_columns(found=pl.col("score") >= point.cut))  # fmt: skip


def _of_rows(rows: pl.DataFrame, point: OperatingPoint) -> Arm:
    columns = ["injection_id", "galaxy_id", *CELL, "psfsize_r", "depth_r", "score"]
    return Arm(rows.select(columns).with_columns(found=pl.col("score") >= point.cut))


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
    """All replicates as one row: their cells together, their predictions averaged."""
    rows = [_summary(p, s) for p, s in zip(pieces, parts, strict=True)]
    cells = [p.filter((pl.col("closure_level") == "cell") & (pl.col("n_true_lenses") >= MIN_PER_CELL)) for p in pieces]
    expected = [expected_inside(s, c) for s, c in zip(parts, cells, strict=True)]
    joined = {level: np.concatenate([e[level] for e in expected]) for level in (68, 95)}
    predicted = float(np.mean([r["predicted_completeness"] for r in rows]))
    nothing: dict[str, Any] = {"p_closure": None}
    nothing |= {f"predicted_{s}{v}": None for s in ("lo", "hi") for v in (68, 95)}
    return {
        **rows[0], **_shares(pl.concat(cells), joined), **nothing, "closure_arm": f"{len(parts)} sets of its hosts",
        "predicted_completeness": predicted, "difference": rows[0]["true_completeness"] - predicted,
        "n_injections_arm": sum(r["n_injections_arm"] for r in rows), "n_hosts_arm": sum(r["n_hosts_arm"] for r in rows),
    }  # fmt: skip
