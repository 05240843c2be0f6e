"""The calibration in two figures: what moved and how surely, and unseen lenses before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.calibration.judge import TOGETHER
from lens_assets.science.calibration.model import PARAMETERS
from lens_assets.science.calibration.observables import NAMES

REAL, BEFORE, AFTER, GREY = "#1b6ca8", "#d1603d", "#2a7f3f", "#8a8a8a"


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | Path) -> Path:
    figure.savefig(path, format="png", metadata={"Software": None})
    return Path(path)


def parameters_figure(parameters: pl.DataFrame, path: str | Path, n: int) -> Path:
    """Every fitted parameter over its allowed range: base set, fit with 68 and 95 %; hollow where the base set decides."""
    rows = {r["parameter"]: r for r in parameters.iter_rows(named=True)}
    figure = _figure((8.2, 0.36 * len(PARAMETERS) + 1.3))
    figure.suptitle(f"priors fitted to {n} held-out lenses", fontsize=11)
    axis = figure.subplots()
    for y, p in enumerate(reversed(PARAMETERS)):
        r = rows[p.name]
        at = {k: (r[k] - p.lo) / (p.hi - p.lo) for k in r if k.startswith("fitted") or k == "base_value"}
        axis.plot([at["fitted_lo95"], at["fitted_hi95"]], [y, y], color=AFTER, lw=1.4, alpha=0.5)
        axis.plot([at["fitted_lo68"], at["fitted_hi68"]], [y, y], color=AFTER, lw=3.5, alpha=0.7)
        axis.plot([at["fitted_value"]], [y], "o", ms=6, color=AFTER, mfc=AFTER if r["identified"] else "white")
        axis.plot([at["base_value"]], [y], "|", ms=12, mew=2, color=BEFORE)
        unit = f" {p.unit}" if p.unit != "1" else ""
        words = f"{p.name}: {r['fitted_value']:.3g} ({r['fitted_lo95']:.3g} to {r['fitted_hi95']:.3g}){unit}"
        axis.text(-0.02, y, words, transform=axis.get_yaxis_transform(), ha="right", va="center", fontsize=7.5)
        axis.text(
            1.01,
            y,
            f"{p.lo:g} .. {p.hi:g}",
            transform=axis.get_yaxis_transform(),
            va="center",
            fontsize=6.5,
            color=GREY,
        )
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(PARAMETERS) - 0.3), yticks=[], xticks=[])
    axis.set_xlabel("allowed range;  | base set, o fit with 68 and 95 % (hollow: the base set decides)", fontsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return _save(figure, path)


def judgement_figure(judgement: pl.DataFrame, path: str | Path) -> Path:
    """Distances of unseen lenses from injections under the base and the fitted set, per observable and group."""
    groups = sorted(judgement["selection_group"].unique().to_list())
    figure = _figure((4.8 * max(len(groups), 1) + 1.2, 4.2))
    axes = np.atleast_1d(figure.subplots(1, max(len(groups), 1), sharey=True))
    order = [TOGETHER, *NAMES]
    words = {"blind": "found without images", "imaging": "found in images"}
    for axis, group in zip(axes, groups, strict=False):
        rows = {
            r["observable_name"]: r for r in judgement.filter(pl.col("selection_group") == group).iter_rows(named=True)
        }
        for y, name in enumerate(reversed(order)):
            for side, colour, shift in (("before", BEFORE, 0.13), ("after", AFTER, -0.13)):
                r = rows[name]
                axis.plot(
                    [r[f"distance_{side}_lo95"], r[f"distance_{side}_hi95"]],
                    [y + shift] * 2,
                    color=colour,
                    lw=1.4,
                    alpha=0.5,
                )
                axis.plot(
                    [r[f"distance_{side}"]], [y + shift], "o", ms=4.5, color=colour, label=side if y == 0 else None
                )
        r = rows[TOGETHER]
        axis.axvline(r["null_distance"], color=GREY, lw=1, ls="--")
        axis.set_title(f"{words.get(group, group)}: {r['n_lenses']} unseen lenses", fontsize=9)
        axis.set_xlabel("energy distance (dashed: two samples of one population)", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.set_xlim(left=-0.005)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7.5, frameon=False, loc="lower right")
    axes[0].set_yticks(
        range(len(order)), [o.removeprefix("obs_").replace("_", " ") for o in reversed(order)], fontsize=8
    )
    figure.suptitle("lenses that took no part in the fit", fontsize=11)
    return _save(figure, path)
