"""The figure of an evaluation by stratum: score distributions beside the AUC and recall they make, one row a stratum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lens_assets.science.detectors.evaluate import Evaluation
from lens_assets.science.detectors.strata import ALL, HELD_OUT

LENS, OTHER, WARM = "#1f5a8c", "0.55", "#b4501e"
_AXES = ("type", "psf_r", "depth_r", "nobs_z", "tier", "channel", "n2_category")
"""In the order of the figure; the last three divide one class alone."""


def by_stratum(evaluation: Evaluation, title: str, name: str = HELD_OUT) -> Figure:
    """Histograms of the logit of both classes, AUC, and recall at the first measured threshold, for every stratum of a set."""
    aucs = evaluation.metrics.filter((pl.col("set") == name) & (pl.col("metric") == "auc"))
    rows = [r for r in aucs.iter_rows(named=True) if r["stratum_axis"] == ALL]
    for axis in _AXES:
        rows += [r for r in aucs.iter_rows(named=True) if r["stratum_axis"] == axis]
    n = max(len(rows), 1)
    figure = Figure(figsize=(9.6, 1.2 + 0.34 * n), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(2.2, 1, 1))
    point = _point(evaluation)
    for k, row in enumerate(rows):
        y = n - 1 - k
        _ridge(left, evaluation, name, row, y)
        _dot(middle, row, y)
        if point is not None:
            other = (
                row["stratum_axis"] == "n2_category"
            )  # all lenses are in each: what differs is the rate of false alarms
            _dot(
                right,
                _count(evaluation, name, row, "fpr" if other else "recall", point["name"]),
                y,
                WARM if other else LENS,
            )
    labels = [_label(r) for r in rows]
    left.set(
        yticks=range(n - 1, n - 1 - len(rows), -1),
        ylim=(-0.6, n),
        xlabel="logit: lenses (blue), non-lenses (grey), each to its own height",
    )
    left.set_yticklabels(labels, fontsize=7)
    if point is not None:
        left.axvline(point["threshold_logit"], color="k", lw=0.6, ls=":")
    titles = (
        "AUC, 68 and 95 %",
        f"recall at {point['name']}\n(orange: false-positive rate)" if point else "no threshold",
    )
    for ax, what in ((middle, titles[0]), (right, titles[1])):
        ax.set(ylim=(-0.6, n), yticks=[])
        ax.set_xlabel(what, fontsize=8)
        ax.grid(axis="x", lw=0.4, color="0.9")
    if rows and rows[0]["value"] is not None:
        middle.axvline(rows[0]["value"], color=LENS, lw=0.7, ls="--")
    figure.suptitle(f"{title}, {name}", fontsize=10)
    return figure


def _point(evaluation: Evaluation) -> Mapping[str, Any] | None:
    found = evaluation.thresholds.filter(
        pl.col("fpr_target").is_not_null() & pl.col("threshold_logit").is_not_null()
    ).sort("fpr_target", descending=True)
    return found.row(0, named=True) if found.height else None


def _count(
    evaluation: Evaluation, name: str, row: Mapping[str, Any], metric: str, point: str
) -> Mapping[str, Any] | None:
    found = evaluation.metrics.filter(
        (pl.col("set") == name) & (pl.col("metric") == metric) & (pl.col("threshold_name") == point)
        & (pl.col("stratum_axis") == row["stratum_axis"]) & (pl.col("stratum") == row["stratum"])
        & (pl.col("interval") == "wilson")
    )  # fmt: skip
    return found.row(0, named=True) if found.height else None


def _ridge(ax: Axes, evaluation: Evaluation, name: str, row: Mapping[str, Any], y: int) -> None:
    whole = row["stratum_axis"] == ALL
    curve = "scores" if whole else "scores_by_stratum"
    for series, colour in (("non-lenses", OTHER), ("lenses", LENS)):
        key = series if whole else f"{row['stratum_axis']}|{row['stratum']}|{series}"
        part = evaluation.curves.filter(
            (pl.col("set") == name) & (pl.col("curve") == curve) & (pl.col("series") == key)
        ).sort("point")
        count = part["ordinate"].to_numpy()
        if not count.sum():
            continue
        inside = np.flatnonzero(count)
        span = slice(max(inside[0] - 1, 0), inside[-1] + 2)
        ax.fill_between(
            part["abscissa"].to_numpy()[span], y - 0.4, y - 0.4 + 0.8 * count[span] / count.max(), step="mid", color=colour,
            alpha=0.55, lw=0,
        )  # fmt: skip


def _dot(ax: Axes, row: Mapping[str, Any] | None, y: int, colour: str = LENS) -> None:
    if row is None or row["value"] is None:
        ax.text(
            0.02,
            y,
            row["why_not"] if row else "",
            fontsize=6,
            va="center",
            color=OTHER,
            transform=ax.get_yaxis_transform(),
        )
        return
    if row["lo95"] is not None:
        ax.plot([row["lo95"], row["hi95"]], [y, y], color=colour, lw=1)
        ax.plot([row["lo68"], row["hi68"]], [y, y], color=colour, lw=3, alpha=0.6)
    ax.plot([row["value"]], [y], "o", color=colour, ms=3.5)


def _label(row: Mapping[str, Any]) -> str:
    what = "all" if row["stratum_axis"] == ALL else f"{row['stratum_axis']} {row['stratum']}"
    return f"{what}  ({row['n_pos']} / {row['n'] - row['n_pos']})"
