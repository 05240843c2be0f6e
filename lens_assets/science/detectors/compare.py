"""Two detectors on the same objects: which is better, by how much, and on which stratum.

Both are scored on the same rows of the same sets and strata (``strata``), so their scores go up and down together, and
only the paired difference tells. Rows are not independent: a system may be matched twice, and what lies in one brick shares
its seeing, depth and sky. So every test and interval is made with systems (galaxies for non-lenses) as units, and with bricks,
and the more careful of the two stands; ``p_rows`` is what rows taken as independent would say. Per set and stratum:

``auc``                difference with the variance of DeLong, DeLong & Clarke-Pearson 1988 (doi:10.2307/2531595), with clusters
                       that of Obuchowski 1997 (doi:10.2307/2533958), and its two-sided p (Student's t over bricks); beside
                       it the p of the paired bootstrap
``average_precision``  paired bootstrap
``recall``             at each detector's own threshold of the same name; the exact clustered McNemar test (``clusters``) on
                       the lenses that one finds and the other misses

All bounds are percentiles of the paired bootstrap: the hull of those over systems and over bricks. ``p_holm`` is Holm's (1979)
adjustment over the strata of one set, metric and threshold; the whole set is one test and stays as it is. A difference is a
minus b.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import norm, rankdata, t

from lens_assets.science.clusters import compare_found
from lens_assets.science.columns.detectors import DIFFERENCES
from lens_assets.science.detectors import measures
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.strata import ALL, HELD_OUT, INDEPENDENT, sets_of, strata, with_strata
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, sites_of

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
BOUNDS = ("lo68", "hi68", "lo95", "hi95")
_INTERVAL = "paired-group-bootstrap"


def delong(scores: npt.ArrayLike, label: npt.ArrayLike, cluster: npt.ArrayLike | None = None) -> tuple[F64, F64]:
    """AUCs (k,) of ``scores`` (k, n) on the same rows, and their covariance (k, k).

    By midranks (Sun & Xu 2014, doi:10.1109/LSP.2014.2337313), in n log n. The covariance is that of the placements: cov over
    positives / m + cov over negatives / n. With the rows' ``cluster`` it is that of their sums over clusters, and of the sums of
    positives and negatives of one cluster (Obuchowski 1997); a cluster a row is DeLong's. Needs two rows of each class, and
    two clusters.
    """
    s, y = np.atleast_2d(np.asarray(scores, float)), np.asarray(label).astype(bool)
    m, n = int(y.sum()), int((~y).sum())
    if m < 2 or n < 2:
        raise BadInput(f"{m} positives and {n} negatives; two of each are needed", column="label")
    every, own, other = (rankdata(part, axis=1) for part in (s, s[:, y], s[:, ~y]))
    of_positives = (every[:, y] - own) / n
    of_negatives = 1 - (every[:, ~y] - other) / m
    if cluster is None:
        return of_positives.mean(1), np.atleast_2d(np.cov(of_positives) / m + np.cov(of_negatives) / n)
    _, at = np.unique(np.asarray(cluster), return_inverse=True)
    auc, number = of_positives.mean(1, keepdims=True), int(at.max()) + 1
    if number < 2:
        raise BadInput("one cluster says nothing of others", column="cluster")
    sums = []
    for side, placed, rows in ((y, of_positives, m), (~y, of_negatives, n)):
        total = np.stack([np.bincount(at[side], v, number) for v in placed - auc]) / rows
        sums.append((total, np.unique(at[side]).size))
    (p, with_p), (q, with_q) = sums
    cov = _unbiased(with_p) * p @ p.T + _unbiased(with_q) * q @ q.T + _unbiased(number) * (p @ q.T + q @ p.T)
    return auc[:, 0], np.asarray(cov)


def _unbiased(number: int) -> float:
    """K / (K - 1); a class that lies in one cluster alone adds what it shows."""
    return number / (number - 1) if number > 1 else 1.0


def delong_p(
    scores: npt.ArrayLike, label: npt.ArrayLike, cluster: npt.ArrayLike | None = None
) -> tuple[float, float, float]:
    """Difference of the two AUCs, its standard error, and the two-sided p: normal, or Student's t with as many degrees of
    freedom as ``cluster`` has values less one. One cluster alone proves nothing: error ``inf``, p 1."""
    degrees = np.inf if cluster is None else np.unique(np.asarray(cluster)).size - 1
    if degrees < 1:
        difference = float(np.subtract(*delong(scores, label)[0]))
        return difference, np.inf, 1.0
    auc, cov = delong(scores, label, cluster)
    difference = float(auc[0] - auc[1])
    se = float(np.sqrt(max(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1], 0.0)))
    if se == 0:
        return difference, se, 1.0 if difference == 0 else 0.0
    away = abs(difference) / se
    return difference, se, float(2 * (norm.sf(away) if np.isinf(degrees) else t.sf(away, degrees)))


def holm(p: npt.ArrayLike) -> F64:
    """Holm's step-down adjusted p-values, in the order given; nan stays nan and counts as no test."""
    values = np.asarray(p, float)
    out = np.full(len(values), np.nan)
    tested = np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    running = 0.0
    for k, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - k) * float(values[i])))
        out[i] = running
    return out


def compare(
    sample: pl.DataFrame,
    a: pl.DataFrame,
    b: pl.DataFrame,
    thresholds_a: pl.DataFrame,
    thresholds_b: pl.DataFrame,
    settings: Settings,
    names: tuple[str, str],
) -> pl.DataFrame:
    """The table ``detector_differences`` of two detectors.

    Parameters
    ----------
    sample : what ``evaluate`` takes, without scores: galaxy_id, label, role and the columns of strata (and system_id).
    a, b : galaxy_id, logit, score of each detector; rows that only one has are left out (and counted nowhere: ``n`` is
        what was compared).
    thresholds_a, thresholds_b : of their evaluations.
    """
    both = a.select("galaxy_id", pl.col("logit").alias("_a"), pl.col("score").alias("_score_a")).join(
        b.select("galaxy_id", pl.col("logit").alias("_b"), pl.col("score").alias("_score_b")), on="galaxy_id"
    )
    frame = with_strata(sample.join(both, on="galaxy_id").sort("galaxy_id"), settings)
    cuts = _cuts(thresholds_a, thresholds_b)
    rows: list[dict[str, Any]] = []
    for name, part in sets_of(frame).items():
        for axis, stratum, piece in strata(part):
            head = {"set": name, "stratum_axis": axis, "stratum": stratum}
            rows += [{**head, **row} for row in _stratum(piece, cuts, settings, (*names, name, axis, stratum))]
    schema = {c.name: c.dtype for c in DIFFERENCES.columns}
    table = pl.DataFrame(
        rows, schema={k: v for k, v in schema.items() if k not in ("detector_a", "detector_b", "p_holm")}
    )
    table = table.with_columns(detector_a=pl.lit(names[0]), detector_b=pl.lit(names[1]))
    return DIFFERENCES.conform(_with_holm(table))


def _cuts(a: pl.DataFrame, b: pl.DataFrame) -> list[tuple[str, float, float]]:
    """Operating points that both detectors have, by name."""
    both = a.select("name", "threshold").join(b.select("name", pl.col("threshold").alias("_b")), on="name")
    return [(str(n), float(x), float(y)) for n, x, y in both.drop_nulls().sort("name").iter_rows()]


def _stratum(
    part: pl.DataFrame, cuts: list[tuple[str, float, float]], s: Settings, identity: tuple[str, ...]
) -> list[dict[str, Any]]:
    label = part["label"].to_numpy() == 1
    n, n_pos = len(label), int(label.sum())
    base = {"n": n, "n_pos": n_pos, "threshold_name": "", "interval": "", "why_not": None}
    fewest = min(n_pos, n - n_pos)
    if fewest < s.min_class:
        why = "one class only" if not fewest else f"{fewest} rows of one class, {s.min_class} are needed"
        return [{**base, "metric": m, "why_not": why} for m in ("auc", "average_precision")]
    logits = np.stack([part[c].to_numpy().astype(float) for c in ("_a", "_b")])
    units = [_groups(part)]
    weights = [measures.group_bootstrap(label, units[0], s.draws, generator("compare", s.seed, *identity))]
    bricks = sites_of(part["galaxy_id"].to_list())
    if 1 < np.unique(bricks).size < n:
        units.append(bricks.astype(str))
        rng = generator("compare", "bricks", s.seed, *identity)
        weights.append(measures.cluster_bootstrap(bricks, s.draws, rng))
    out = []
    drawn, once = _ranking(logits, label, weights)
    p_rows, *clustered = (delong_p(logits, label, unit)[2] for unit in (None, *units))
    p = max(p_rows, *clustered)
    for metric in ("auc", "average_precision"):
        changes = [a - b for a, b in zip(*drawn[metric], strict=True)]
        values = once[metric]
        boot = max(_two_sided(change) for change in changes)
        out.append({
            **base, "metric": metric, "value_a": values[0], "value_b": values[1], "metric_difference": values[0] - values[1],
            **_hull(changes), "paired_test": "delong-clustered" if metric == "auc" else "paired-bootstrap",
            "p_paired": p if metric == "auc" else boot, "p_rows": p_rows if metric == "auc" else None,
            "p_bootstrap": boot, "interval": _INTERVAL,
        })  # fmt: skip
    scores = [part[c].to_numpy()[label] for c in ("_score_a", "_score_b")]
    for name, cut_a, cut_b in cuts:
        found = scores[0] >= cut_a, scores[1] >= cut_b
        net = found[0].astype(float) - found[1]
        changes = [np.concatenate([_share(w[:, label], net) for w in kind]) for kind in weights]
        test = compare_found(*found, *(unit[label] for unit in units))
        out.append({
            **base, "metric": "recall", "threshold_name": name, "n": n_pos, "value_a": float(found[0].mean()),
            "value_b": float(found[1].mean()), "metric_difference": float(found[0].mean() - found[1].mean()),
            **_hull(changes), "paired_test": "mcnemar-clustered", "p_paired": test.p, "p_rows": test.rows,
            "p_bootstrap": max(_two_sided(change) for change in changes), "interval": _INTERVAL,
        })  # fmt: skip
    return out


def _share(weight: F64, net: F64) -> F64:
    """(draws,) weighted means of ``net``; nan where a draw holds no lens."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weight @ net / weight.sum(axis=1))


def _hull(changes: list[F64]) -> dict[str, float | None]:
    """Bounds that hold those of every kind of draw; ``None`` where one kind has none."""
    ends = [measures.percentiles(change) for change in changes]
    out = {}
    for name, values in zip(BOUNDS, zip(*ends, strict=True), strict=True):
        known = [v for v in values if v is not None]
        out[name] = None if len(known) < len(values) else (min if name.startswith("lo") else max)(known)
    return out


def _ranking(
    logits: F64, label: Mask, weights: list[list[F64]]
) -> tuple[dict[str, list[list[F64]]], dict[str, list[float]]]:
    """AUC and average precision of both detectors: in each draw, by detector and kind of draw, and on the rows as they are."""
    drawn: dict[str, list[list[F64]]] = {"auc": [], "average_precision": []}
    once: dict[str, list[float]] = {"auc": [], "average_precision": []}
    for logit in logits:
        order = np.argsort(-logit, kind="stable")
        r = measures.ranked(logit, label)
        parts = [[measures.auc_and_ap(r, w[:, order]) for w in kind] for kind in weights]
        plain = measures.auc_and_ap(r, np.ones((1, len(label))))
        for i, metric in enumerate(drawn):
            drawn[metric].append([np.concatenate([p[i] for p in kind]) for kind in parts])
            once[metric].append(float(plain[i][0]))
    return drawn, once


def _groups(part: pl.DataFrame) -> npt.NDArray[np.str_]:
    own = pl.col("galaxy_id")
    group = pl.coalesce(pl.col("system_id").cast(pl.String), own) if "system_id" in part.columns else own
    return np.asarray(part.select(group.alias("g"))["g"].to_list(), dtype=str)


def _two_sided(change: F64) -> float:
    """Two-sided bootstrap p of no difference; never below 2 / (draws + 1), and 1 where nothing ever changes. Draws without a
    class are left out."""
    change = change[np.isfinite(change)]
    n = len(change)
    return min(1.0, 2 * (1 + min(int((change <= 0).sum()), int((change >= 0).sum()))) / (n + 1))


def _with_holm(table: pl.DataFrame) -> pl.DataFrame:
    table = table.with_row_index("_row")
    adjusted = np.full(table.height, np.nan)
    for _, part in table.group_by("set", "metric", "threshold_name"):
        rows = part["_row"].to_numpy()
        p = part["p_paired"].fill_null(float("nan")).to_numpy()
        whole = (part["stratum_axis"] == ALL).to_numpy()
        adjusted[rows[whole]] = p[whole]
        adjusted[rows[~whole]] = holm(p[~whole])
    p_holm = pl.Series("p_holm", adjusted).fill_nan(None)
    return table.drop("_row").with_columns(p_holm)


def answer(table: pl.DataFrame, level: float = 0.05) -> str:
    """In one or two sentences: which is better on the held-out lenses (else the independent), by how much, and where."""
    a, b = table["detector_a"][0], table["detector_b"][0]
    for name in (HELD_OUT, INDEPENDENT, *table["set"].unique().sort().to_list()):
        aucs = table.filter(
            (pl.col("set") == name) & (pl.col("metric") == "auc") & pl.col("metric_difference").is_not_null()
        )
        whole = aucs.filter(pl.col("stratum_axis") == ALL)
        if whole.height:
            break
    else:
        return f"{a} and {b} share no set with both classes: nothing can be said."
    r = whole.row(0, named=True)
    swap = r["p_paired"] < level and r["metric_difference"] < 0  # the better one is named, and counted, first
    first, second = (b, a) if swap else (a, b)
    values = (r["value_b"], r["value_a"]) if swap else (r["value_a"], r["value_b"])
    size = f"AUC {values[0]:.4f} against {values[1]:.4f}, difference {_span(r, swap)} (95 %)"
    p = f"clustered DeLong p = {r['p_paired']:.2g}, {r['n_pos']} lenses, {r['n'] - r['n_pos']} non-lenses, {name}"
    better = r["p_paired"] < level
    said = f"{first} ranks better than {second}" if better else f"{a} and {b} do not differ beyond chance"
    strata_tested = aucs.filter(pl.col("stratum_axis") != ALL)
    where = strata_tested.filter(pl.col("p_holm") < level).sort("p_holm", "stratum_axis", "stratum")
    if not where.height:
        return f"{said}: {size}; {p}. No stratum of {strata_tested.height} differs after Holm's allowance."
    parts = [
        f"{x['stratum_axis']} {x['stratum']}: {_span(x, swap)}, p(Holm) {x['p_holm']:.2g}"
        for x in where.head(6).iter_rows(named=True)
    ]
    return f"{said}: {size}; {p}. Strata that differ ({first} minus {second}): {'; '.join(parts)}."


def _span(row: dict[str, Any], swap: bool) -> str:
    """Difference and 95 % interval, of b minus a when swapped."""
    value, lo, hi = row["metric_difference"], row["lo95"], row["hi95"]
    value, lo, hi = (-value, -hi, -lo) if swap else (value, lo, hi)
    return f"{value:+.4f} [{lo:+.4f}, {hi:+.4f}]"
