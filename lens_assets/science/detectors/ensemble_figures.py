"""The figure of an ensemble's diversity: correlations and disagreement by regime, and risk against coverage. Nothing is
computed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lens_assets.science.detectors.ensemble_diversity import Diversity
from lens_assets.science.detectors.strata import HELD_OUT

PAIRS = ("#1f5a8c", "#b4501e", "#5c7f36", "#7a4b8c", "#8c7a1f", "0.45")
SERIES = {"spread": ("#b4501e", "by spread"), "margin": ("#1f5a8c", "by distance to it"), "perfect": ("0.5", "perfect")}


def draw(folder: Path, title: str, found: Diversity) -> list[Path]:
    """Write ``diversity.png`` into ``folder``; the path written, in a list."""
    names = sorted(set(found.curves["threshold_name"])) or [""]
    table = found.table.filter(pl.col("set") == HELD_OUT)
    shown = [r for r in table["regime"].unique().sort().to_list() if r != "all"]
    first = ["lenses", "non-lenses", *(r for r in shown if r.startswith("near "))]
    order = [r for r in first if r in shown] + [r for r in shown if r not in first]
    figure = Figure(figsize=(13.5, 1.9 + 0.36 * max(8, len(order))), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _by_regime(left, table.filter(pl.col("measure") == "spearman"), order, labels=True)
    left.set_xlabel("rank correlation of two members' logits")
    cut = names[0]
    shares = table.filter((pl.col("measure") == "disagreement") & pl.col("threshold_name").is_in([cut]))
    _by_regime(middle, shares, order)
    middle.set_xlabel(f"found by one of the two only, at {cut}" if cut else "no threshold could be set")
    _risk(right, found, cut)
    figure.suptitle(f"{title}: held-out rows, 68 % intervals", fontsize=10)
    path = folder / "diversity.png"
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return [path]


def _by_regime(ax: Axes, part: pl.DataFrame, order: list[str], labels: bool = False) -> None:
    pairs = part.select("member_a", "member_b").unique().sort("member_a", "member_b").rows()
    size = {r["regime"]: (r["n_pos"], r["n"] - r["n_pos"]) for r in part.iter_rows(named=True)}
    for i, (a, b) in enumerate(pairs):
        rows = part.filter((pl.col("member_a") == a) & (pl.col("member_b") == b)).drop_nulls("value")
        at = np.array([order.index(r) for r in rows["regime"]]) + (i - (len(pairs) - 1) / 2) * 0.7 / max(len(pairs), 1)
        value = rows["value"].to_numpy()
        bars = np.clip([value - rows["lo68"].to_numpy(), rows["hi68"].to_numpy() - value], 0, None)
        ax.errorbar(
            value, at, xerr=bars, fmt="o", ms=4, lw=1.1, capsize=2, color=PAIRS[i % len(PAIRS)], label=f"{a}, {b}"
        )
    ax.set_ylim(len(order) - 0.4, -0.6)
    names = [f"{r}  ({size[r][0]} + {size[r][1]})" if r in size else r for r in order] if labels else [""] * len(order)
    ax.set_yticks(range(len(order)), names, fontsize=8)
    ax.grid(axis="y", color="0.9", lw=0.6)
    if pairs and labels:
        ax.legend(frameon=False, fontsize=7, loc="lower left")
        ax.set_title("regime (lenses + non-lenses)", fontsize=8, loc="left")


def _risk(ax: Axes, found: Diversity, cut: str) -> None:
    areas = found.table.filter(pl.col("threshold_name") == cut)
    for series, (colour, label) in SERIES.items():
        part = found.curves.filter((pl.col("threshold_name") == cut) & (pl.col("series") == series))
        if not part.height:
            continue
        row = areas.filter(pl.col("measure") == f"aurc_{series}").row(0, named=True)
        span = "" if row["lo68"] is None else f" [{row['lo68']:.4f}, {row['hi68']:.4f}]"
        ax.plot(part["coverage"], part["risk"], color=colour, lw=1.5, label=f"{label}: area {row['value']:.4f}{span}")
    whole = areas.filter(pl.col("measure") == "risk").drop_nulls("value")
    for value in whole["value"]:
        ax.axhline(value, color="0.6", lw=0.8, ls="--", label=f"in no order: {value:.4f}")
    ax.set(
        xlim=(0, 1.02),
        ylim=(0, 1.45 * ax.get_ylim()[1]),
        xlabel="coverage (classes as equally many)",
        ylabel=f"share of errors at {cut}",
    )
    if cut:
        ax.legend(frameon=False, fontsize=7, loc="upper left")
