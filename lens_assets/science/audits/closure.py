"""Closure: the published surface against true lenses of a survey whose truth is known.

Each true lens is looked up in the cell of its own theta_E, PSF and depth; the found count is then compared with what
the surface predicts for these very lenses. Both are uncertain, the prediction by its published interval and the count
by the number of true lenses, so the test is predictive: the prediction as a Beta distribution with the published mean
and width, the count as the beta-binomial that follows from it. ``inside68`` and ``inside95`` say whether the count
lies in the central predictive interval; for a surface that is right they are true at least at their nominal rate
(more often where counts are few, because counts are whole numbers).

True lenses of one brick share what its cell does not say, so where their ids are known the number of lenses that is tested is
the effective one, with bricks as clusters: with some ten bricks a count is not as sure as its binomial.

A surface of fitted priors is asked twice: with the interval that is published for its priors (``total_*``), and with that which
knows the fit's own error (``full_*``). True lenses have true priors, so only the second claims to hold them.

What does not belong here: opening the truth. The caller does that, and only closure tests and the truth audit may.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import beta, betabinom

from lens_assets.science.columns.audits import CLOSURE
from lens_assets.science.completeness.hostaware import beta_binomial
from lens_assets.science.completeness.model import Surface, bounds, nulls
from lens_assets.science.completeness.physics import holm
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import sites_of
from lens_assets.science.intervals import Interval, jeffreys, wilson

F64 = npt.NDArray[np.float64]
_LEVELS = (0.68, 0.95)
_NONE = {level: Interval(np.full(1, np.nan), np.full(1, np.nan), level, "none") for level in _LEVELS}
_FULL = {f"predicted_full_{c.removeprefix('predicted_')}": c for c in bounds("predicted", _NONE)} | {
    "full_inside68": "inside68", "full_inside95": "inside95", "p_closure_full": "p_closure",
}  # fmt: skip
MIN_PER_CELL = 10
"""True lenses a single cell needs for a row of its own."""


def closure(
    surface: Surface, truth_lenses: pl.DataFrame, threshold: str = "default", *, min_per_cell: int = MIN_PER_CELL
) -> pl.DataFrame:
    """Compare true and predicted completeness, per theta_E and per cell.

    Parameters
    ----------
    truth_lenses : one row a true lens: ``theta_e`` (arcsec), ``psfsize_r`` (arcsec), ``depth_r`` (AB mag), ``score``.
        A lens that was never scored (not in the catalogue, a rejected stamp) has a null score and counts as not found.
        With ``galaxy_id`` (RELEASE-BRICKID-OBJID), lenses of one brick are not taken as independent of each other.
    threshold : operating point; ``default`` is the surface's own.

    Returns
    -------
    Rows of level ``all``, ``theta_e`` (all cells of one theta_E) and ``cell`` (at least ``min_per_cell`` lenses).
    Lenses outside the grid in PSF or depth, or in unsupported cells, are counted in ``n_true_unsupported``, not
    compared; lenses outside it in theta_E belong to no row.
    """
    frame = _compared(surface, truth_lenses, threshold, min_per_cell)
    if surface.prior is None:
        return frame
    again = _compared(with_prior_error(surface), truth_lenses, threshold, min_per_cell)
    key = ["closure_level", "at_theta_e", "at_psf", "at_depth", "n_true_lenses"]
    # a row whose cells have no such bound everywhere is about other lenses: it has none
    return CLOSURE.conform(
        frame.drop(_FULL).join(
            again.select(*key, *(pl.col(c).alias(full) for full, c in _FULL.items())),
            on=key,
            how="left",
            nulls_equal=True,
        )
    )


def with_prior_error(surface: Surface) -> Surface:
    """The surface with the error of its fitted priors in the interval; a cell without such a bound claims nothing."""
    known = pl.all_horizontal(pl.col(f"full_{b}").is_not_null() for b in ("lo68", "hi68"))
    support = pl.when(known | (pl.col("support") == "empty")).then(pl.col("support")).otherwise(pl.lit("insufficient"))
    bound = [pl.col(f"full_{b}").alias(f"total_{b}") for b in ("lo68", "hi68", "lo95", "hi95")]
    return replace(surface, cells=surface.cells.with_columns(*bound, support))


def _compared(surface: Surface, truth_lenses: pl.DataFrame, threshold: str, min_per_cell: int) -> pl.DataFrame:
    for column in ("theta_e", "psfsize_r", "depth_r", "score"):
        if column not in truth_lenses.columns:
            raise BadInput("the truth audit needs this column", column=column)
    point = surface.point(threshold)
    grid = surface.grid
    value = {
        c: truth_lenses[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in ("theta_e", "psfsize_r", "depth_r")
    }
    found = (truth_lenses["score"].cast(pl.Float64) >= point.cut).fill_null(False).to_numpy()
    i_theta = grid.theta_e.index(value["theta_e"])
    cell = grid.flat(i_theta, grid.psf.index(value["psfsize_r"]), grid.depth.index(value["depth_r"]))
    rows = surface.cells.filter(pl.col("operating_point") == point.name)
    supported = (rows["support"] == "supported").to_numpy()
    used = (cell >= 0) & supported[cell]
    n = np.bincount(cell[used], minlength=grid.size)
    k = np.bincount(cell[used], found[used], grid.size)
    left_out = np.bincount(i_theta[(i_theta >= 0) & ~used], minlength=len(grid.theta_e))
    index = grid.unflat(np.arange(grid.size))
    groups: list[tuple[str, tuple[Any, Any, Any], npt.NDArray[np.bool_], int]] = [
        ("all", (None, None, None), np.ones(grid.size, bool), int((~used).sum()))
    ]
    for t, centre in enumerate(grid.theta_e.centres):
        groups.append(("theta_e", (centre, None, None), index[0] == t, int(left_out[t])))
    for number in np.flatnonzero(n >= min_per_cell).tolist():
        at = tuple(a.centres[i[number]] for a, i in zip(grid.axes, index, strict=True))
        groups.append(("cell", (at[0], at[1], at[2]), np.arange(grid.size) == number, 0))
    shared = index[1] * len(grid.depth) + index[2]
    brick = (
        sites_of(truth_lenses["galaxy_id"].to_list()) if "galaxy_id" in truth_lenses.columns else np.arange(cell.size)
    )
    out = []
    for level, at, mine, lost in groups:
        here = used & mine[cell]
        worth = _worth(brick[here], found[here])
        out.append(_row(rows, level, at, n * mine, k * mine, shared, lost, worth))
    frame = pl.DataFrame([{"operating_point": point.name, **row} for row in out], infer_schema_length=None)
    return CLOSURE.conform(nulls(frame.with_columns(pl.lit(None).alias(c) for c in _FULL)))


def expected_inside(surface: Surface, rows: pl.DataFrame) -> dict[int, F64]:
    """Probability that the count of each single-cell row of :func:`closure` lies inside, were the surface right, by level.

    Counts are whole numbers, so it is not the nominal level but somewhat more.
    """
    grid = surface.grid
    out: dict[int, list[float]] = {68: [], 95: []}
    cells = {name: surface.cells.filter(pl.col("operating_point") == name) for name in rows["operating_point"].unique()}
    for row in rows.iter_rows(named=True):
        index = [a.index([row[c]])[0] for a, c in zip(grid.axes, ("at_theta_e", "at_psf", "at_depth"), strict=True)]
        w = np.zeros(grid.size)
        w[grid.flat(*index)] = 1.0
        _, a, b = _prediction(cells[row["operating_point"]], w, np.zeros(grid.size, int))
        mass, below, above = _tails(max(round(row["n_true_effective"]), 1), a, b)
        for level, values in out.items():
            tail = (1 - level / 100) / 2
            values.append(float(mass[(below >= tail) & (above >= tail)].sum()))
    return {level: np.array(values) for level, values in out.items()}


def summary(frame: pl.DataFrame, family_error: float = 0.05) -> dict[str, Any]:
    """Whether the surface closes: the share of compared theta_E rows inside, and the smallest probability after Holm.

    ``closes`` is ``None`` when nothing could be compared, else whether no row at all contradicts the surface at
    ``family_error``.
    """
    compared = frame.filter(pl.col("p_closure").is_not_null())
    if not compared.height:
        return {"closes": None, "compared": 0}
    worst = float(holm(compared["p_closure"].to_numpy()).min())
    rows = compared.filter(pl.col("closure_level") == "theta_e")
    out: dict[str, Any] = {"closes": worst >= family_error, "compared": compared.height, "smallest_p_holm": worst}
    for level in ("inside68", "inside95"):
        k, m = int(rows[level].sum()), rows.height
        interval = wilson(k, m, 0.95)
        span = [float(interval.lo), float(interval.hi)]
        out[level] = {"rows": m, "inside": k, "share95": span, "interval": interval.name}
    whole = compared.filter(pl.col("closure_level") == "all")
    out["difference"] = float(whole["difference"][0]) if whole.height else None
    if frame["p_closure_full"].null_count() < frame.height:
        known = rows.filter(pl.col("full_inside68").is_not_null())
        out["with_the_error_of_the_priors"] = {
            "rows": known.height, "inside68": int(known["full_inside68"].sum()), "inside95": int(known["full_inside95"].sum()),
        }  # fmt: skip
    return out


def _worth(brick: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    """Independent lenses that the lenses of these bricks are worth (at most their number)."""
    at = np.unique(brick, return_inverse=True)[1]
    if at.size == 0 or at.max() + 1 == at.size:
        return float(at.size)
    own = beta_binomial(np.zeros(int(at.max()) + 1, int), np.bincount(at), np.bincount(at, found).astype(int), 1)
    return float(max(own.n_eff[0], 1.0))


def _row(
    cells: pl.DataFrame, level: str, at: tuple[Any, Any, Any], n: Any, k: Any, column: Any, lost: int, worth: float
) -> dict[str, Any]:
    total, found = int(n.sum()), int(k.sum())
    share = worth / total if total else 0.0
    counted = {lv: jeffreys([found * share], [worth], lv) for lv in _LEVELS}
    row: dict[str, Any] = {
        "closure_level": level, "at_theta_e": at[0], "at_psf": at[1], "at_depth": at[2],
        "n_true_lenses": total, "n_true_found": found, "n_true_unsupported": lost, "n_true_effective": worth,
        "true_completeness": found / total if total else None,
        **{name: float(v[0]) for name, v in bounds("true", counted).items()},
    }  # fmt: skip
    if not total:
        empty = (
            "predicted_completeness",
            "difference",
            "inside68",
            "inside95",
            "p_closure",
            *bounds("predicted", _NONE),
        )
        return {**row, **dict.fromkeys(empty)}
    m, a, b = _prediction(cells, n / total, column)
    trials = max(round(worth), 1)
    hits = min(max(round(found * share), 0), trials)
    mass, at_most, at_least = (values[hits] for values in _tails(trials, a, b))
    below, above, mid = float(at_most), float(at_least), 0.5 * float(mass)
    row |= {"predicted_completeness": m, "difference": found / total - m}
    row["p_closure"] = float(np.clip(2 * min(below - mid, above - mid), 0, 1))
    for lv in _LEVELS:
        tail, tag = (1 - lv) / 2, round(100 * lv)
        row[f"predicted_lo{tag}"], row[f"predicted_hi{tag}"] = (float(x) for x in beta.ppf([tail, 1 - tail], a, b))
        row[f"inside{tag}"] = bool(below >= tail and above >= tail)
    return row


def _tails(trials: int, a: float, b: float) -> tuple[F64, F64, F64]:
    """Of the beta-binomial: probability of k = 0 .. ``trials``, of at most k, and of at least k."""
    mass = betabinom.pmf(np.arange(trials + 1), trials, a, b)
    return mass, np.cumsum(mass), np.cumsum(mass[::-1])[::-1]


def _prediction(cells: pl.DataFrame, w: F64, column: Any) -> tuple[float, float, float]:
    """Raw weighted completeness, and the Beta distribution (a, b) that carries its published uncertainty.

    Cells of one PSF and depth share hosts: their errors add linearly, others in quadrature. The threshold's error, what
    the published interval has beyond the host-aware one, is common to all cells.
    """
    used = w > 0
    c, n_eff, host_lo, host_hi, lo, hi = (
        cells[name].to_numpy()[used]
        for name in ("completeness", "n_effective", "host_lo68", "host_hi68", "total_lo68", "total_hi68")
    )
    w, column = w[used], column[used]
    a, b = c * n_eff + 0.5, (1 - c) * n_eff + 0.5
    host = w * np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    both, own = (np.maximum((hi - lo) / 2, 1e-12), (host_hi - host_lo) / 2)
    cut = w * np.sqrt(np.maximum(both**2 - own**2, 0))
    variance = float(np.sum(np.bincount(column, host) ** 2) + np.sum(cut) ** 2)
    m = float(np.clip(np.sum(w * c), 0, 1))
    least = 0.5 / (float(n_eff.sum()) + 1)
    centre = min(max(m, least), 1 - least)
    size = max(centre * (1 - centre) / variance - 1, 1.0)
    return m, centre * size, (1 - centre) * size
