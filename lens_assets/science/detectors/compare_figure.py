"""Figures of promotion: the differences of two detectors by stratum, and the gates of one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lens_assets.science.detectors.strata import ALL, HELD_OUT

_COLOURS = {"green": "#2f7d46", "yellow": "#b98a00", "red": "#b3261e", "insufficient": "0.55"}
_BETTER, _WORSE, _SAME = "#1f5a8c", "#b4501e", "0.45"
_LEVEL = 0.05


def differences(table: pl.DataFrame, name: str | None = None) -> Figure:
    """AUC and recall of the first detector minus the second, by stratum of one set, 68 and 95 %; filled where Holm's p < 0.05."""
    sets = table["set"].unique().sort().to_list()
    name = name or (HELD_OUT if HELD_OUT in sets else sets[0])
    part = table.filter((pl.col("set") == name) & pl.col("metric_difference").is_not_null())
    points = part.filter((pl.col("metric") == "recall") & pl.col("threshold_name").str.starts_with("fpr"))
    point = points["threshold_name"].sort()[-1] if points.height else "p0.5"
    order = part.select("stratum_axis", "stratum").unique().sort("stratum_axis", "stratum")
    whole = [r for r in order.rows() if r[0] == ALL]
    rows = whole + [r for r in order.rows() if r[0] != ALL]
    figure = Figure(figsize=(9.2, 1.5 + 0.27 * max(len(rows), 1)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    labels = []
    for k, (axis, stratum) in enumerate(rows):
        y = len(rows) - 1 - k
        here = part.filter((pl.col("stratum_axis") == axis) & (pl.col("stratum") == stratum))
        counts = here.sort("metric").row(0, named=True)
        labels.append("all" if axis == ALL else f"{axis} {stratum}")
        labels[-1] += f"  ({counts['n_pos']})"
        for ax, metric, threshold in ((left, "auc", ""), (right, "recall", point)):
            found = here.filter((pl.col("metric") == metric) & (pl.col("threshold_name") == threshold))
            if metric == "recall" and axis == "n2_category":
                continue  # confusers divide the non-lenses: the lenses are the same in each
            for r in found.iter_rows(named=True):
                sure = r["p_holm"] is not None and r["p_holm"] < _LEVEL
                colour = (_BETTER if r["metric_difference"] > 0 else _WORSE) if sure else _SAME
                if r["lo95"] is not None:
                    ax.plot([r["lo95"], r["hi95"]], [y, y], color=colour, lw=1)
                    ax.plot([r["lo68"], r["hi68"]], [y, y], color=colour, lw=3, alpha=0.6)
                ax.plot([r["metric_difference"]], [y], "o", color=colour, ms=4, mfc=colour if sure else "white")
    for ax, what in ((left, "AUC"), (right, f"recall at {point}")):
        ax.axvline(0, color="k", lw=0.7)
        ax.grid(axis="x", lw=0.4, color="0.9")
        ax.set_xlabel(f"difference of {what}", fontsize=8)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.tick_params(axis="x", labelsize=8)
    left.set(yticks=range(len(rows) - 1, -1, -1), ylim=(-0.7, max(len(rows), 1) - 0.3))
    left.set_yticklabels(labels, fontsize=7)
    a, b = (table["detector_a"][0], table["detector_b"][0]) if table.height else ("", "")
    figure.suptitle(f"{a} minus {b}, {name} (lenses); filled: Holm p < {_LEVEL:g}", fontsize=10)
    return figure


def gates(table: pl.DataFrame, title: str) -> Figure:
    """Every gate with its 68 and 95 % interval, its bar, and the 95th percentile of its permutation null."""
    probes = table.filter(pl.col("gate_unit") == "AUC").sort("gate", descending=True)
    scores = table.filter(pl.col("gate_unit") != "AUC").sort("gate", descending=True)
    figure = Figure(figsize=(8.4, 5.4), dpi=110, layout="constrained")
    top, low = figure.subplots(2, 1, height_ratios=(max(probes.height, 1), max(scores.height, 1)))
    for ax, part, unit in ((top, probes, "AUC (line: bar; triangle: 95 % of the null)"), (low, scores, "mean score")):
        for y, r in enumerate(part.iter_rows(named=True)):
            colour = _COLOURS[r["gate_colour"]]
            if r["gate_value"] is None:
                ax.text(0.52, y, "insufficient", fontsize=7, va="center", color=colour)
                continue
            for lo, hi, width, alpha in (("gate_lo95", "gate_hi95", 1, 1.0), ("gate_lo68", "gate_hi68", 4, 0.6)):
                if r[lo] is not None:
                    ax.plot([r[lo], r[hi]], [y, y], color=colour, lw=width, alpha=alpha)
            ax.plot([r["gate_value"]], [y], "o", color=colour, ms=5, mfc=colour if r["gate_decides"] else "white")
            if r["gate_bar"] is not None:
                ax.plot([r["gate_bar"]] * 2, [y - 0.35, y + 0.35], color="k", lw=1)
            if r["gate_null95"] is not None:
                ax.plot([r["gate_null95"]], [y], marker="^", color="0.4", ms=4)
        ax.set(yticks=range(part.height), ylim=(-0.7, max(part.height, 1) - 0.3), xlabel=unit)
        ax.set_yticklabels([f"{r['gate']}  ({r['n_pos']} / {r['n']})" for r in part.iter_rows(named=True)], fontsize=8)
        ax.grid(axis="x", lw=0.4, color="0.9")
    figure.suptitle(f"{title}: gates (lenses / all); filled ones decide", fontsize=10)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without a time in it."""
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return path
