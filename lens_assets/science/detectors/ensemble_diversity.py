"""What the members of an ensemble have in common, where they differ, and what their differing is worth.

Per set and regime (lenses, non-lenses, each category of confusers, rows near a threshold), for each pair of members:
correlation of the logits (Pearson) and of their ranks (Spearman), and at thresholds of the same false-positive rate, each
member's set on the negatives of the role ``threshold``, the share of rows that only one of the two finds
(``disagreement``) and that both get wrong (``double_fault``; Giacinto & Roli 2001,
doi:10.1016/S0262-8856(01)00045-2).

``spread``, the standard deviation of the members' logits as the rule combines them (after their maps, where it has them),
is the ensemble's uncertainty. Whether it tells errors from hits is shown by its risk-coverage curve (El-Yaniv & Wiener
2010): rows are accepted in order of growing spread, and the risk is the share of errors among the accepted, lenses and
non-lenses counted as equally many. Its area is set beside those of the distance to the threshold (which needs no
ensemble), of a perfect order, and of none (the risk at full coverage).

Rows are those of ``evaluate``'s sets. Thresholds for members that the negatives cannot carry are refused as anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import rankdata

from lens_assets.science.columns.detectors import DIVERSITY, RISK_COVERAGE
from lens_assets.science.detectors import measures
from lens_assets.science.detectors.compare import compare
from lens_assets.science.detectors.ensemble_combine import F64, Rule
from lens_assets.science.detectors.evaluate import thresholds_of
from lens_assets.science.detectors.score import probability
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.strata import HELD_OUT, sets_of
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.intervals import wilson

Bools = npt.NDArray[np.bool_]
BOUNDS = ("lo68", "hi68", "lo95", "hi95")
ALL = "all"
NEAR = 1.0
"""A row is near a threshold when its combined logit is within this of it."""
CURVE_POINTS = 200


class Point(NamedTuple):
    """One operating point: its name, the combined logit's threshold, and the members' by key."""

    name: str
    cut: float
    members: dict[str, float]


class Diversity(NamedTuple):
    """The tables ``ensemble_diversity``, ``risk_coverage`` and ``detector_differences`` (ensemble minus best member)."""

    table: pl.DataFrame
    curves: pl.DataFrame
    gain: pl.DataFrame
    best_member: str


def diversity(
    scores: pl.DataFrame,
    members: Sequence[str],
    rule: Rule,
    thresholds: pl.DataFrame,
    settings: Settings,
    key: str,
) -> Diversity:
    """Compare the members of an ensemble.

    Parameters
    ----------
    scores : what ``evaluate`` takes, with one column of logits a member, named by its key.
    thresholds : of the ensemble's evaluation.
    """
    if absent := [m for m in members if m not in scores.columns]:
        raise BadInput("the scores need the logits of this member", column=absent[0])
    scores = scores.sort("galaxy_id").with_columns(_spread=pl.Series(spread(scores.sort("galaxy_id"), members, rule)))
    on = scores.filter((pl.col("role") == "threshold") & (pl.col("label") == 0))
    points = points_of(on, members, thresholds, settings)
    rows: list[dict[str, Any]] = []
    for name, regime, part, point in regimes(scores, points):
        rows += [{"set": name, "regime": regime, **row} for row in _regime(part, members, points, point, settings, key)]
    curves: list[dict[str, Any]] = []
    held_out = sets_of(scores).get(HELD_OUT)
    if held_out is not None:
        for point in points:
            found, areas = risk_coverage(held_out, point, settings, key)
            curves += found
            rows += areas
    best = best_member(scores, members)
    return Diversity(
        DIVERSITY.conform(pl.DataFrame(rows, schema={c.name: c.dtype for c in DIVERSITY.columns})),
        RISK_COVERAGE.conform(pl.DataFrame(curves, schema={c.name: c.dtype for c in RISK_COVERAGE.columns})),
        gain_over(scores, best, thresholds, settings, key),
        best,
    )


def spread(scores: pl.DataFrame, members: Sequence[str], rule: Rule) -> F64:
    """Standard deviation over the members of the logits that the rule puts together, for each row."""
    columns = [scores[m].to_numpy().astype(np.float64) for m in members]
    if rule.maps:
        columns = [m(x) for m, x in zip(rule.maps, columns, strict=True)]
    out: F64 = np.std(np.stack(columns, 1), axis=1)
    return out


def best_member(scores: pl.DataFrame, members: Sequence[str]) -> str:
    """The member with the highest AUC on the role ``calibrate``, which no member has seen: choosing it on the rows that
    then judge the gain would make the gain too small."""
    part = scores.filter(pl.col("role") == "calibrate")
    label = part["label"].to_numpy() == 1
    if label.all() or not label.any():
        return members[0]
    aucs = {
        m: float(measures.auc_and_ap(measures.ranked(part[m].to_numpy(), label), np.ones((1, len(label))))[0][0])
        for m in members
    }
    return max(members, key=lambda m: (aucs[m], -members.index(m)))


def points_of(on: pl.DataFrame, members: Sequence[str], thresholds: pl.DataFrame, settings: Settings) -> list[Point]:
    """The operating points set by a false-positive rate, each with the members' own thresholds (logits) for that rate."""
    found = []
    for row in thresholds.drop_nulls(["threshold", "fpr_target"]).sort("name").iter_rows(named=True):
        cuts = {m: measures.rate_threshold_value(on[m].to_numpy(), row["fpr_target"]) for m in members}
        cut = measures.rate_threshold_value(on["logit"].to_numpy(), row["fpr_target"])
        found.append(Point(row["name"], cut, cuts))
    return found


def regimes(scores: pl.DataFrame, points: Sequence[Point]) -> Iterator[tuple[str, str, pl.DataFrame, Point | None]]:
    """Set, regime and rows, and the one operating point that defines a regime."""
    for name, frame in sets_of(scores).items():
        yield name, "lenses", frame.filter(pl.col("label") == 1), None
        others = frame.filter(pl.col("label") == 0)
        for point in points:
            near = frame.filter((pl.col("logit") - point.cut).abs() <= NEAR)
            yield name, f"near {point.name}", near, point
        if name != HELD_OUT:
            continue  # the non-lenses of all sets are the same
        yield name, "non-lenses", others, None
        if "n2_category" in frame.columns:
            for value in sorted(others["n2_category"].drop_nulls().unique().to_list()):
                yield name, str(value), others.filter(pl.col("n2_category") == value), None


def _regime(
    part: pl.DataFrame, members: Sequence[str], points: Sequence[Point], only: Point | None, s: Settings, key: str
) -> list[dict[str, Any]]:
    n, label = part.height, part["label"].to_numpy() == 1
    base = {"n": n, "n_pos": int(label.sum()), "threshold_name": "", "interval": "", "why_not": None}
    why = None if n >= s.min_class else f"{n} rows, {s.min_class} are needed"
    rng = generator("diversity", s.seed, key, n, part["galaxy_id"].to_list()[:1])
    weights = _draws(n, s.draws, rng) if n else np.empty((0, 0))
    rows = [{**base, "measure": "spread", "member_a": ALL, "member_b": ALL, **_median(part["_spread"], weights, why)}]
    logits = {m: part[m].to_numpy().astype(np.float64) for m in members}
    for a, b in itertools.combinations(members, 2):
        pair = {**base, "member_a": a, "member_b": b}
        for measure, x, y in (
            ("pearson", logits[a], logits[b]),
            ("spearman", rankdata(logits[a]), rankdata(logits[b])),
        ):
            rows.append({**pair, "measure": measure, **_correlation(x, y, weights, why)})
        for point in points if only is None else [only]:
            found = [logits[m] >= point.members[m] for m in (a, b)]
            shares = {
                "disagreement": found[0] != found[1],
                "double_fault": (found[0] != label) & (found[1] != label),
            }
            for measure, hit in shares.items():
                rows.append({**pair, "measure": measure, "threshold_name": point.name, **_share(hit)})
    return rows


def _draws(n: int, draws: int, rng: np.random.Generator) -> F64:
    """Bootstrap weights (draws, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)


def _bounded(value: float, drawn: F64, interval: str = "bootstrap") -> dict[str, Any]:
    if not np.isfinite(value):
        return {"value": None, "why_not": "the logits do not vary"}
    return {"value": float(value), **dict(zip(BOUNDS, measures.percentiles(drawn), strict=True)), "interval": interval}


def _correlation(x: F64, y: F64, weights: F64, why: str | None) -> dict[str, Any]:
    if why:
        return {"value": None, "why_not": why}
    x, y = x - x.mean(), y - y.mean()
    moments = np.stack([x, y, x * x, y * y, x * y], 1)

    def of(w: F64) -> F64:
        mx, my, xx, yy, xy = (w @ moments / w.sum(1, keepdims=True)).T
        with np.errstate(invalid="ignore", divide="ignore"):
            out: F64 = np.clip((xy - mx * my) / np.sqrt((xx - mx**2) * (yy - my**2)), -1.0, 1.0)
        return out

    return _bounded(float(of(np.ones((1, len(x))))[0]), of(weights))


def _median(values: pl.Series, weights: F64, why: str | None) -> dict[str, Any]:
    if why:
        return {"value": None, "why_not": why}
    order = np.argsort(values.to_numpy(), kind="stable")
    ordered, running = values.to_numpy()[order], np.cumsum(weights[:, order], 1)
    drawn = ordered[(running >= running[:, -1:] / 2).argmax(1)]
    return _bounded(float(np.median(ordered)), drawn)


def _share(hit: Bools) -> dict[str, Any]:
    n, k = len(hit), int(hit.sum())
    if not n:
        return {"value": None, "why_not": "no rows"}
    a, b = wilson(k, n, 0.68), wilson(k, n, 0.95)
    bounds = (float(a.lo), float(a.hi), float(b.lo), float(b.hi))
    return {"value": k / n, **dict(zip(BOUNDS, bounds, strict=True)), "interval": a.name}


def risk_coverage(
    part: pl.DataFrame, point: Point, settings: Settings, key: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Curves and areas at one operating point, for acceptance by spread and by distance to the threshold."""
    label, logit = part["label"].to_numpy() == 1, part["logit"].to_numpy().astype(np.float64)
    error = (logit >= point.cut) != label
    n, n_pos = len(label), int(label.sum())
    head = {"set": HELD_OUT, "threshold_name": point.name}
    base = {
        **head,
        "regime": ALL,
        "member_a": ALL,
        "member_b": ALL,
        "n": n,
        "n_pos": n_pos,
        "interval": "",
        "why_not": None,
    }
    fewest = min(n_pos, n - n_pos)
    if fewest < settings.min_class:
        why = f"{fewest} rows of one class, {settings.min_class} are needed"
        return [], [{**base, "measure": "aurc_spread", "value": None, "why_not": why}]
    balance = np.where(label, 0.5 / n_pos, 0.5 / (n - n_pos))
    drawn = measures.class_bootstrap(label, settings.draws, generator("risk-coverage", settings.seed, key, point.name))
    orders = {
        "spread": np.argsort(part["_spread"].to_numpy(), kind="stable"),
        "margin": np.argsort(-np.abs(logit - point.cut), kind="stable"),
        "perfect": np.argsort(error, kind="stable"),
    }
    curves, rows = [], []
    areas: dict[str, tuple[float, F64]] = {}
    for name, order in orders.items():
        coverage, risk = _curve(balance[None, order], error[order])
        areas[name] = (
            float(_area(balance[None, order], error[order])[0]),
            np.concatenate([_area(w[:, order] * balance[order], error[order]) for w in drawn]),
        )
        for number, i in enumerate(np.unique(np.linspace(0, n - 1, CURVE_POINTS).astype(int))):
            row = {"series": name, "point": number, "coverage": float(coverage[0, i]), "risk": float(risk[0, i])}
            curves.append({**head, **row, "n_point": int(i) + 1})
    whole = (float((balance * error).sum()), np.concatenate([(w * balance) @ error for w in drawn]))
    for name, (value, draws) in {**{f"aurc_{k}": v for k, v in areas.items()}, "risk": whole}.items():
        rows.append({**base, "measure": name, **_bounded(value, draws, "class-bootstrap")})
    change = (whole[0] - areas["spread"][0], whole[1] - areas["spread"][1])
    rows.append({**base, "measure": "aurc_gain_spread", **_bounded(*change, "class-bootstrap")})
    return curves, rows


def _curve(weights: F64, error: Bools) -> tuple[F64, F64]:
    """Coverage and risk after each accepted row, (draws, n) each; weights and errors in the order of acceptance."""
    accepted, wrong = np.cumsum(weights, 1), np.cumsum(weights * error, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return accepted / accepted[:, -1:], np.where(accepted > 0, wrong / accepted, 0.0)


def _area(weights: F64, error: Bools) -> F64:
    """Area under the risk-coverage curve of each row of weights: the mean risk over coverage."""
    _, risk = _curve(weights, error)
    out: F64 = (risk * weights).sum(1) / weights.sum(1)
    return out


def gain_over(
    scores: pl.DataFrame, member: str, thresholds: pl.DataFrame, settings: Settings, key: str
) -> pl.DataFrame:
    """The table ``detector_differences`` of the ensemble minus one of its members, on the same rows."""
    of_member = scores.select(
        "galaxy_id", pl.col(member).alias("logit"), pl.Series("score", probability(scores[member].to_numpy()))
    )
    on = scores.filter((pl.col("role") == "threshold") & (pl.col("label") == 0))
    cuts = thresholds_of(probability(on[member].to_numpy()), settings)
    sample = scores.drop("logit", "score")
    return compare(sample, scores, of_member, thresholds, cuts, settings, (key, member))
