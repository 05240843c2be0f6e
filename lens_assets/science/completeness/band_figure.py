"""The figure of the sensitivity band: completeness of every surface against theta_E, and the paired differences.

Left: the band of the family over the reference's own 68 % interval; its surfaces as lines. Right: each tested pair with
its 68 % and 95 % interval; pairs that differ after Holm's allowance are filled.
"""

from __future__ import annotations

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lens_assets.science.completeness.figures import _FINE, _INK, _STOP, _STYLE
from lens_assets.science.completeness.sensitivity import Sensitivity
from lens_assets.science.completeness.verdict import Verdict

_BAND = "#2f6690"
_MOST = 24


def band_figure(found: Sensitivity, point: str, verdict: Verdict) -> Figure | None:
    """Band and pairs at operating point ``point``; ``None`` where there is one surface alone."""
    rows = found.marginals.filter(
        (pl.col("operating_point") == point) & (pl.col("axis") == "theta_e") & (pl.col("band_family") == "all")
    ).sort("weighting", "i_axis")
    pairs = found.pairs.filter(
        (pl.col("operating_point") == point) & (pl.col("pair_scope") == "all") & (pl.col("n_pairs") > 0)
    )
    if not rows.height:
        return None
    survey = [w for w in rows["weighting"].unique().sort() if w.startswith("survey")]
    weighting = (survey or rows["weighting"].unique().sort().to_list())[0]
    rows = rows.filter(pl.col("weighting") == weighting)
    shown = pairs.sort(pl.col("paired_difference").abs(), descending=True).head(_MOST).sort("paired_difference")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(13.5, max(5.2, 2.2 + 0.3 * shown.height)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        _curves(left, rows, found.reference, weighting)
        _forest(right, shown, pairs.height)
        height = float(figure.get_size_inches()[1])
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.set(rect=(0, 0, 1, 1 - 0.72 / height))  # type: ignore[call-arg]
        figure.text(
            0.01, 1 - 0.12 / height, f"Sensitivity of the completeness at {point}", ha="left", va="top", fontsize=13
        )
        figure.text(0.01, 1 - 0.42 / height, verdict.title, ha="left", va="top", fontsize=11, weight="bold",
                    color=_FINE if verdict.go else _STOP)  # fmt: skip
    return figure


def _curves(ax: Axes, rows: pl.DataFrame, reference: str, weighting: str) -> None:
    x = rows["axis_centre"].to_numpy()
    y = {
        c: rows[c].fill_null(np.nan).to_numpy()
        for c in ("band_lowest", "band_median", "band_highest", "completeness", "total_lo68", "total_hi68")
    }
    count = max(rows["n_surfaces"].to_list())
    ax.fill_between(x, y["band_lowest"], y["band_highest"], color=_BAND, alpha=0.2, lw=0)
    # a theta_E without neighbours has no area to fill and no line to draw: its own bar and tick
    ax.vlines(x, y["band_lowest"], y["band_highest"], color=_BAND, alpha=0.35, lw=7,
              label=f"lowest to highest of {count} surfaces")  # fmt: skip
    ax.plot(x, y["band_median"], color=_BAND, lw=1.2, ls="--", marker="_", ms=9, label="median")
    down, up = y["completeness"] - y["total_lo68"], y["total_hi68"] - y["completeness"]
    ax.errorbar(x, y["completeness"], yerr=[np.maximum(down, 0), np.maximum(up, 0)], color=_INK, marker="o", ms=3.5,
                lw=1.4, capsize=2, label=f"{reference}, 68 %")  # fmt: skip
    ax.set_xlabel(r"Einstein radius $\theta_E$ [arcsec]")
    ax.set_ylabel("completeness")
    ax.set_ylim(0, min(1.02, float(np.nanmax([*y["band_highest"], *y["total_hi68"], 0.05])) * 1.25))
    ax.set_title(weighting.replace("; ", ",\n"), fontsize=9.5)
    ax.grid(alpha=0.25, lw=0.6)
    ax.legend(frameon=False, loc="best", fontsize=9)


def _forest(ax: Axes, pairs: pl.DataFrame, tested: int) -> None:
    ax.axvline(0, color="#999999", lw=0.8)
    labels = []
    for i, r in enumerate(pairs.iter_rows(named=True)):
        colour = _STOP if r["differs"] else "#777777"
        ax.plot([r["paired_lo95"], r["paired_hi95"]], [i, i], color=colour, lw=1)
        ax.plot([r["paired_lo68"], r["paired_hi68"]], [i, i], color=colour, lw=2.6)
        ax.plot(r["paired_difference"], i, marker="o", ms=5, color=colour, mfc=colour if r["differs"] else "white")
        labels.append(f"{r['surface_a']} \u2212 {r['surface_b']}  (n = {r['n_pairs']:,})")
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.yaxis.tick_right()
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-0.7, max(len(labels) - 0.3, 0.7))
    more = f", the {pairs.height} largest of {tested}" if tested > pairs.height else ""
    ax.set_title(f"paired differences on shared injections{more}\nfilled: significant after Holm", fontsize=9.5)
    ax.set_xlabel("difference in completeness, 68 % and 95 %")
    ax.grid(axis="x", alpha=0.25, lw=0.6)
    if not labels:
        ax.text(0.5, 0.5, "no two surfaces share injections", transform=ax.transAxes, ha="center", color="#777777")
