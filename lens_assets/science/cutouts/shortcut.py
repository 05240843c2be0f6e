"""Which stamp features separate the classes: a warning that a network may learn them instead of the arc.

Per feature the AUC of positives against negatives, with an interval that resamples whole groups (sky cells: neighbours
share depth and seeing). Oriented: an AUC below 0.5 separates as well as its mirror image, so both are reported as >=
0.5 with the direction. A red feature is no proof of a shortcut: arcs *are* bright in the annulus; a red core or
background is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.cutouts import SHORTCUTS
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator

YELLOW, RED = 0.60, 0.70
"""Bounds on the lower 68 % limit of the AUC."""
MIN_CLASS = 5
"""Stamps of each class below which a feature is not judged."""


def shortcut_report(
    features: pl.DataFrame,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    identity: Sequence[Any] = ("shortcut",),
    draws: int = 500,
) -> pl.DataFrame:
    """AUC, bootstrap intervals and colour of every numeric column.

    Parameters
    ----------
    features : one row a stamp; nulls and non-finite values are left out per feature, columns that are not numbers
        ignored.
    labels : 1 positive, 0 negative.
    groups : resampled as wholes (HEALPix cell); ``None``: every stamp its own.
    identity : keys the random numbers (asset, seed, ...). The same resamples serve every feature.
    draws : bootstrap resamples; percentile intervals. One-class resamples are left out.

    Returns
    -------
    Table ``shortcuts`` sorted by feature: ``feature, direction, auc, lo68, hi68, lo95, hi95, n, n_pos, colour``.
    """
    y = np.asarray(labels)
    if y.shape != (features.height,) or not np.isin(y, (0, 1)).all():
        raise BadInput(f"labels must be {features.height} zeros and ones", column="label")
    group = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if group.shape != y.shape:
        raise BadInput(f"{group.size} groups for {y.size} stamps", column="groups")
    n_groups = int(group.max()) + 1 if group.size else 0
    rng = generator("shortcut-report", *identity)
    counts = np.empty((draws, n_groups), np.uint16)
    for k in range(draws):
        counts[k] = np.bincount(rng.integers(0, max(n_groups, 1), n_groups), minlength=n_groups)
    rows = [
        _judge(name, features[name].cast(pl.Float64).to_numpy(), y.astype(bool), group, counts)
        for name in features.columns
        if features[name].dtype.is_numeric()
    ]
    schema = {column.name: column.dtype for column in SHORTCUTS.columns}
    return SHORTCUTS.conform(pl.DataFrame(rows, schema=schema))


def _judge(
    name: str,
    values: npt.NDArray[np.float64],
    y: npt.NDArray[np.bool_],
    group: npt.NDArray[Any],
    counts: npt.NDArray[Any],
) -> dict[str, Any]:
    use = np.isfinite(values)
    x, y, group = values[use], y[use], group[use]
    row: dict[str, Any] = {"feature": name, "n": len(x), "n_pos": int(y.sum()), "colour": "insufficient"}
    if min(row["n_pos"], row["n"] - row["n_pos"]) < MIN_CLASS:
        return row
    order = np.argsort(x, kind="stable")
    x, y, group = x[order], y[order], group[order]
    ties = np.flatnonzero(np.diff(x, prepend=np.nan) != 0)
    point = float(_weighted_auc(np.ones((1, len(x))), y, ties)[0])
    step = max(1, 2_000_000 // len(x))
    drawn = np.concatenate(
        [_weighted_auc(counts[k : k + step, group].astype(np.float64), y, ties) for k in range(0, len(counts), step)]
    )
    drawn = drawn[np.isfinite(drawn)]
    lower = point < 0.5
    if lower:
        point, drawn = 1 - point, 1 - drawn
    row |= {"auc": point, "direction": "lower" if lower else "higher"}
    if len(drawn) < len(counts) / 2:
        return row
    row |= dict(
        zip(("lo95", "lo68", "hi68", "hi95"), np.quantile(drawn, (0.025, 0.16, 0.84, 0.975)).tolist(), strict=True)
    )
    row["colour"] = "red" if row["lo68"] > RED else "yellow" if row["lo68"] > YELLOW else "green"
    return row


def _weighted_auc(
    weights: npt.NDArray[np.float64], y: npt.NDArray[np.bool_], ties: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """AUC of rows sorted by value under each line of ``weights`` (m, n); ties, starting at ``ties``, count one half.

    The weighted Mann-Whitney statistic: equal to ``sklearn.metrics.roc_auc_score`` with those sample weights, without
    its sort. ``nan`` where a class has no weight.
    """
    positive = np.add.reduceat(weights * y, ties, axis=1)
    negative = np.add.reduceat(weights * ~y, ties, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: npt.NDArray[np.float64] = (positive * below).sum(axis=1) / positive.sum(axis=1) / negative.sum(axis=1)
        return ratio
