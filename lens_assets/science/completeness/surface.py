"""A surface: scored injections counted into the grid, with intervals, for every cell and operating point.

Every cell of the grid is a row, whatever it holds: ``supported``, ``insufficient`` (fewer injections than asked for;
shown with its raw value and wide interval, never smoothed over) or ``empty`` (nulls). An injection counts as found
when its score is at or above the threshold. Nothing here interpolates, fits or fills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.completeness import MARGINALS, MEMBERS, PHYSICS, SURFACE, TWO_FACTOR
from lens_assets.science.completeness import counting, marginals, physics
from lens_assets.science.completeness.combine import with_threshold_error
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.hostaware import NAME as HOST_NAME
from lens_assets.science.completeness.hostaware import clustered
from lens_assets.science.completeness.model import LEVELS, Surface, bounds, nulls, place
from lens_assets.science.completeness.prior_error import PriorDraws
from lens_assets.science.completeness.recount import FINEST, no_fit
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.completeness.thresholds import OperatingPoint, default_point, operating_points
from lens_assets.science.completeness.verdict import Verdict
from lens_assets.science.errors import BadInput
from lens_assets.science.intervals import Interval, jeffreys

__all__ = ["Surface", "build_surface"]
_TOTALS = ("total_lo68", "total_hi68", "total_lo95", "total_hi95")


def build_surface(
    injections: pl.DataFrame,
    thresholds: pl.DataFrame,
    grid: Grid,
    settings: Settings,
    meta: Mapping[str, Any],
    prior: PriorDraws | None = None,
) -> Surface:
    """Count scored injections into a surface.

    Parameters
    ----------
    injections : one row an injection: ``injection_id``, ``galaxy_id`` (host), ``theta_e`` (arcsec), ``score``, and its
        place on the grid: the host's own ``psfsize_r`` and ``depth_r``, or the bins ``psf_bin`` and ``depth_bin`` (-1
        is outside); optional ``arc_snr``, ``lensed_mag_r``, ``observable`` (nullable boolean), ``type`` (of the
        host).
    thresholds : ``name``, ``threshold``, and optionally ``fpr_target``, ``lo68``, ``hi68``, ``lo95``, ``hi95``,
        ``n_negatives``, ``refused``. A refused one is listed in the header and has no rows.
    meta : for the header; ``realism`` (the report, or ``None``) becomes the verdict. Say ``detector`` and ``variant``.
    prior : draws of the fit of the priors the injections were drawn from (needs what each was drawn with); ``None`` for
        priors without a fit.

    Raises :class:`BadInput` for a missing column, a repeated injection, or bins that contradict the host's own values.
    """
    if prior is not None:
        prior.check(injections)
    points, refused = operating_points(thresholds, settings.thresholds)
    members, rejections = counting.members(injections, grid)
    counts = counting.Counts.of(members, grid, [p.cuts for p in points])
    cells = _cells(counts, points, grid, settings)
    two_factor = _two_factor(counts, points, grid, cells)
    support = dict(
        cells.filter(pl.col("operating_point") == points[0].name)["support"]
        .value_counts(sort=True)
        .sort("support")
        .iter_rows()
    )
    realism = meta.get("realism")
    header = {
        **{k: v for k, v in meta.items() if k != "realism"},
        "verdict": (Verdict.of_report(realism)).to_json(),
        "default_point": default_point(points, settings.default_threshold).name,
        "refused": refused,
        "injections_in": injections.height,
        "injections_used": members.height,
        "rejected": dict(sorted(rejections.counts.items())),
        "support": {s: int(support.get(s, 0)) for s in ("supported", "insufficient", "empty")},
        "intervals": {
            "binomial": jeffreys(0, 1).name,
            "host": HOST_NAME,
            "levels": list(LEVELS),
            "prior": settings.prior,
        },
        "found": "score >= cut",
    }
    bare = Surface(
        grid,
        settings,
        points,
        cells,
        two_factor,
        pl.DataFrame(),
        pl.DataFrame(),
        MEMBERS.conform(members),
        header,
        prior,
    )
    bare = replace(bare, cells=SURFACE.conform(nulls(cells.with_columns(**_prior_error(bare)))))
    return replace(
        bare, marginals=MARGINALS.conform(marginals.standard(bare)), physics=PHYSICS.conform(physics.check(bare))
    )


def _cells(counts: counting.Counts, points: Sequence[OperatingPoint], grid: Grid, settings: Settings) -> pl.DataFrame:
    t = len(points)
    n_pairs = counts.n.size
    group = (np.arange(t)[:, None] * grid.size + counts.cell[None, :]).ravel()
    host = clustered(
        group, np.tile(counts.site, t), np.tile(counts.n, t), counts.k[:, 0].ravel(), t * grid.size, LEVELS
    )
    assert group.size == t * n_pairs
    n, k = host.n, host.k
    with np.errstate(invalid="ignore", divide="ignore"):
        c = k / n
        recount = counts.per_cell_k() / counts.per_cell_n()[None, None, :]  # (points, 5 cuts, cells)
    total, method = {}, np.repeat([p.total_name(HOST_NAME) for p in points], grid.size)
    for i, level in enumerate(LEVELS):
        total[level] = with_threshold_error(
            c, host.intervals[level], recount[:, 2 + 2 * i].ravel(), recount[:, 1 + 2 * i].ravel()
        )
    support = np.where(n == 0, "empty", np.where(n < settings.min_per_cell, "insufficient", "supported"))
    frame = pl.DataFrame(
        {
            **place(grid, [p.name for p in points]),
            "cut": np.repeat([p.cut for p in points], grid.size),
            "n_injections": n,
            "n_found": k,
            "n_unique_hosts": host.n_hosts,
            "n_effective": host.n_eff,
            "completeness": c,
            **bounds("binomial", {level: jeffreys(k, n, level) for level in LEVELS}),
            **bounds("host", host.intervals),
            **bounds("total", total),
            "total_method": method.tolist(),
            "mean_score": np.tile(counts.mean_score, t),
            "mean_arc_snr": np.tile(counts.mean_snr, t),
            "support": support.tolist(),
            **no_fit(t * grid.size),
        }
    )
    return SURFACE.conform(nulls(frame))


def _prior_error(surface: Surface) -> dict[str, pl.Series]:
    """The columns of the error of fitted priors, of every cell at every operating point."""
    parts = []
    size = surface.grid.size
    for point in surface.points:
        cells = surface.cells.filter(pl.col("operating_point") == point.name)
        value = {c: cells[c].fill_null(np.nan).to_numpy() for c in ("completeness", "n_effective", *_TOTALS)}
        total = {
            level: Interval(
                value[f"total_lo{round(100 * level)}"], value[f"total_hi{round(100 * level)}"], level, HOST_NAME
            )
            for level in LEVELS
        }
        parts.append(
            surface.prior_columns(
                cells,
                FINEST[:3],
                np.ones(size),
                np.arange(size),
                point,
                value["completeness"],
                value["n_effective"],
                total,
            )
        )
    return {name: pl.Series(name, np.concatenate([p[name] for p in parts])) for name in parts[0]}


def _two_factor(
    counts: counting.Counts, points: Sequence[OperatingPoint], grid: Grid, cells: pl.DataFrame
) -> pl.DataFrame:
    """Observable fraction and conditional completeness, over injections the gate was run on; null where it was not."""
    t, size = len(points), grid.size
    has = np.flatnonzero(counts.n_gated)
    seen = np.flatnonzero(counts.n_observable)
    gate = clustered(counts.cell[has], counts.site[has], counts.n_gated[has], counts.n_observable[has], size, LEVELS)
    group = (np.arange(t)[:, None] * size + counts.cell[None, seen]).ravel()
    found = clustered(
        group,
        np.tile(counts.site[seen], t),
        np.tile(counts.n_observable[seen], t),
        counts.k_observable[:, seen].ravel(),
        t * size,
        LEVELS,
    )
    gated = np.tile(gate.n > 0, t)
    with np.errstate(invalid="ignore", divide="ignore"):
        observable, conditional = np.tile(gate.k / gate.n, t), found.k / found.n
    k_hidden = np.concatenate([np.bincount(counts.cell, row, size) for row in counts.k_gated]) - found.k

    def counted(values: npt.NDArray[Any]) -> pl.Series:
        return pl.Series(np.asarray(values, np.int64)).set(pl.Series(~gated), None)

    frame = pl.DataFrame(
        {
            **place(grid, [p.name for p in points]),
            "n_injections": np.tile(counts.per_cell_n(), t),
            "n_found": counts.per_cell_k()[:, 0].ravel(),
            "n_observable": counted(np.tile(gate.k, t)),
            "n_found_observable": counted(found.k),
            "n_found_unobservable": counted(k_hidden),
            "observable_fraction": observable,
            **bounds("observable", {level: _tiled(own, t) for level, own in gate.intervals.items()}),
            "conditional_completeness": conditional,
            **bounds("conditional", found.intervals),
        }
    ).join(
        cells.select("operating_point", "i_theta", "i_psf", "i_depth", "support"),
        on=["operating_point", "i_theta", "i_psf", "i_depth"],
        how="left",
    )
    if frame.height != cells.height or frame["support"].null_count():
        raise BadInput("two-factor rows do not match the cells")
    return TWO_FACTOR.conform(nulls(frame))


def _tiled(own: Interval, t: int) -> Interval:
    return Interval(np.tile(own.lo, t), np.tile(own.hi, t), own.level, own.name)
