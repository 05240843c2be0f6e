"""Two detectors on the same objects: which is better, by how much, and on which stratum.

Both are scored on the same rows of the same sets and strata (``strata``), so their scores go up and down together, and
only the paired difference tells. Reported per set and stratum:

``auc``                difference with the variance of DeLong, DeLong & Clarke-Pearson 1988 (doi:10.2307/2531595) and its
                       two-sided p; beside it the p of the paired bootstrap, which resamples lens systems and galaxies and
                       so also counts a system that was matched twice as one
``average_precision``  paired bootstrap
``recall``             at each detector's own threshold of the same name; McNemar's exact test on the lenses that one
                       finds and the other misses

All bounds are percentiles of the paired bootstrap. ``p_holm`` is Holm's (1979) adjustment over the strata of one set,
metric and threshold; the whole set is one test and stays as it is. A difference is a minus b.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import binomtest, norm, rankdata

from lens_assets.science.columns.detectors import DIFFERENCES
from lens_assets.science.detectors import measures
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.strata import ALL, HELD_OUT, INDEPENDENT, sets_of, strata, with_strata
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
BOUNDS = ("lo68", "hi68", "lo95", "hi95")


def delong(scores: npt.ArrayLike, label: npt.ArrayLike) -> tuple[F64, F64]:
    """AUCs (k,) of ``scores`` (k, n) on the same rows, and their covariance (k, k).

    By midranks (Sun & Xu 2014, doi:10.1109/LSP.2014.2337313), in n log n. The covariance is that of the placements:
    cov over positives / m + cov over negatives / n. Needs two rows of each class.
    """
    s, y = np.atleast_2d(np.asarray(scores, float)), np.asarray(label).astype(bool)
    m, n = int(y.sum()), int((~y).sum())
    if m < 2 or n < 2:
        raise BadInput(f"{m} positives and {n} negatives; two of each are needed", column="label")
    every, own, other = (rankdata(part, axis=1) for part in (s, s[:, y], s[:, ~y]))
    of_positives = (every[:, y] - own) / n
    of_negatives = 1 - (every[:, ~y] - other) / m
    return of_positives.mean(1), np.atleast_2d(np.cov(of_positives) / m + np.cov(of_negatives) / n)


def delong_p(scores: npt.ArrayLike, label: npt.ArrayLike) -> tuple[float, float, float]:
    """Difference of the two AUCs, its standard error, and the two-sided p."""
    auc, cov = delong(scores, label)
    difference = float(auc[0] - auc[1])
    se = float(np.sqrt(max(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1], 0.0)))
    if se == 0:
        return difference, se, 1.0 if difference == 0 else 0.0
    return difference, se, float(2 * norm.sf(abs(difference) / se))


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
    weights = measures.group_bootstrap(label, _groups(part), s.draws, generator("compare", s.seed, *identity))
    out = []
    drawn, once = _ranking(logits, label, weights)
    _, _, p = delong_p(logits, label)
    for metric in ("auc", "average_precision"):
        change = drawn[metric][0] - drawn[metric][1]
        values = once[metric]
        boot = _two_sided(change)
        out.append({
            **base, "metric": metric, "value_a": values[0], "value_b": values[1], "metric_difference": values[0] - values[1],
            **dict(zip(BOUNDS, measures.percentiles(change), strict=True)),
            "paired_test": "delong" if metric == "auc" else "paired-bootstrap", "p_paired": p if metric == "auc" else boot,
            "p_bootstrap": boot, "interval": "paired-group-bootstrap",
        })  # fmt: skip
    scores = [part[c].to_numpy()[label] for c in ("_score_a", "_score_b")]
    for name, cut_a, cut_b in cuts:
        found = scores[0] >= cut_a, scores[1] >= cut_b
        change = np.concatenate([w[:, label] @ (found[0].astype(float) - found[1]) / n_pos for w in weights])
        only_a, only_b = int((found[0] & ~found[1]).sum()), int((found[1] & ~found[0]).sum())
        p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
        out.append({
            **base, "metric": "recall", "threshold_name": name, "n": n_pos, "value_a": float(found[0].mean()),
            "value_b": float(found[1].mean()), "metric_difference": float(found[0].mean() - found[1].mean()),
            **dict(zip(BOUNDS, measures.percentiles(change), strict=True)), "paired_test": "mcnemar-exact", "p_paired": p,
            "p_bootstrap": _two_sided(change), "interval": "paired-group-bootstrap",
        })  # fmt: skip
    return out


def _ranking(logits: F64, label: Mask, weights: list[F64]) -> tuple[dict[str, list[F64]], dict[str, list[float]]]:
    """AUC and average precision of both detectors, in each draw and on the rows as they are."""
    drawn: dict[str, list[F64]] = {"auc": [], "average_precision": []}
    once: dict[str, list[float]] = {"auc": [], "average_precision": []}
    for logit in logits:
        order = np.argsort(-logit, kind="stable")
        r = measures.ranked(logit, label)
        parts = [measures.auc_and_ap(r, w[:, order]) for w in weights]
        plain = measures.auc_and_ap(r, np.ones((1, len(label))))
        for i, metric in enumerate(drawn):
            drawn[metric].append(np.concatenate([p[i] for p in parts]))
            once[metric].append(float(plain[i][0]))
    return drawn, once


def _groups(part: pl.DataFrame) -> npt.NDArray[np.str_]:
    own = pl.col("galaxy_id")
    group = pl.coalesce(pl.col("system_id").cast(pl.String), own) if "system_id" in part.columns else own
    return np.asarray(part.select(group.alias("g"))["g"].to_list(), dtype=str)


def _two_sided(change: F64) -> float:
    """Two-sided bootstrap p of no difference; never below 2 / (draws + 1), and 1 where nothing ever changes."""
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
    p = f"DeLong p = {r['p_paired']:.2g}, {r['n_pos']} lenses, {r['n'] - r['n_pos']} non-lenses, {name}"
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
