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

from collections.abc import Callable
from typing import Any

import polars as pl

from lens_assets.science.audits.instrument import CELL, Instrument, supported
from lens_assets.science.audits.judge import Outcome, Scored, judge
from lens_assets.science.audits.machinery import false_positives, fresh_hosts, fresh_like_own, own_arcs
from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.audits.sky import Sky
from lens_assets.science.audits.steps import ALIKE, EXACT, ORDINARY, PUBLISHED, Arm
from lens_assets.science.audits.twins import (
    ExactArcs,
    alike_hosts,
    draw_twins,
    engine_plan,
    ordinary_hosts,
    score_engine,
    score_exact,
    variant_of_arm,
)
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.injections.batch import StampSource

_HOST = ["galaxy_id", "tile", "psfsize_g", "psfsize_r", "psfsize_z", "depth_r", "ebv"]


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
) -> tuple[Scored, Outcome]:
    """Run the experiment at the surface's default threshold: everything that was scored, and what follows from it.

    Parameters
    ----------
    lenses : ``sky.lenses`` with ``score`` (null where the stamp was rejected: left out and counted, as no injection is made
        into such a stamp either).
    stamps, galaxies : pixels of non-lenses of the closure sky, and their rows as :func:`placed` gives them.
    """
    surface, point = instrument.surface, instrument.surface.point("default")
    cells = supported(surface)
    usable = lenses.filter(pl.col("score").is_not_null())
    arms = {PUBLISHED: _arm(surface.members, point)}
    arms |= {f"variant {name}": _arm(s.members, point) for name, s in sorted(instrument.others.items())}
    progress("twins of true lenses on hosts like their deflectors")
    twins = draw_twins(sky.size, cells, surface.grid, settings)
    alike, apart = alike_hosts(twins, galaxies, settings)
    rows = engine_plan(twins, alike, galaxies.select(*_HOST, "brickname"), "closure-alike", settings.seed)
    variant = variant_of_arm("closure-alike", instrument.elsewhere)
    arms[ALIKE] = _of_rows(score_engine(rows, stamps, instrument.scorer, instrument.injections, variant), point)
    progress("the sky's own arcs on the same hosts")
    side = int(stamps.images([rows["galaxy_id"][0]]).shape[-1])
    made = ExactArcs(sky.size, sky.seed, side, threads)
    arms[EXACT] = _of_rows(score_exact(rows, twins, stamps, instrument.scorer, made), point)
    progress("twins on ordinary hosts")
    ordinary = ordinary_hosts(twins, instrument.hosts, settings)
    rows = engine_plan(twins, ordinary, instrument.hosts.select(_HOST), "closure-ordinary", settings.seed)
    variant = variant_of_arm("closure-ordinary", instrument.variant)
    arms[ORDINARY] = _of_rows(
        score_engine(rows, instrument.stamps, instrument.scorer, instrument.injections, variant), point
    )
    progress("the machinery: its own arcs on fresh galaxies")
    any_host, _ = fresh_hosts(galaxies, instrument.ordinary, instrument.injections, settings.seed)
    fresh, likeness = fresh_like_own(galaxies, instrument, stamps, settings.seed)
    known = own_arcs(instrument, fresh, stamps, cells, settings.known_per_cell)
    facts: dict[str, Any] = {
        "threshold": {"name": point.name, "cut": point.cut, **false_positives(instrument, any_host, stamps, point)},
        "lenses": {"in": sky.rejected.total + lenses.height, "scored": usable.height,
                   "no usable stamp": lenses.height - usable.height, **sky.rejected.counts},
        "fresh_galaxies": likeness, "host_minus_deflector": apart,
    }  # fmt: skip
    scored = Scored(arms, usable.select("galaxy_id", "theta_e", "psfsize_r", "depth_r", "score"), known, facts)
    return scored, judge(surface, scored, settings)


def _arm(members: pl.DataFrame, point: OperatingPoint) -> Arm:
    return Arm(members.select(
        pl.col("injection").alias("injection_id"), pl.col("host").alias("galaxy_id"), *CELL,
        pl.col("host_psf").alias("psfsize_r"), pl.col("host_depth").alias("depth_r"), pl.col("injection_score").alias("score"),
    ).with_columns(found=pl.col("score") >= point.cut))  # fmt: skip


def _of_rows(rows: pl.DataFrame, point: OperatingPoint) -> Arm:
    columns = ["injection_id", "galaxy_id", *CELL, "psfsize_r", "depth_r", "score"]
    return Arm(rows.select(columns).with_columns(found=pl.col("score") >= point.cut))
