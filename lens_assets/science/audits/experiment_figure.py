"""The figure of the closure experiment: what each step changes, how often intervals hold the truth, and cell by cell."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lens_assets.science.audits.judge import AS_PUBLISHED, LENSES, WITH_PRIORS, Outcome
from lens_assets.science.audits.steps import ALIKE, EXACT, ORDINARY, PUBLISHED, SKY
from lens_assets.science.completeness.figures import _FINE, _INK, _STOP, _STYLE

_SHOWN = {PUBLISHED: _STOP, ORDINARY: "#c98a1b", ALIKE: "#2f6690", EXACT: _FINE}
_FURTHER = "#8a4fa3"


def closure_figure(outcome: Outcome, title: str) -> Figure:
    """Three panels: the steps from the published surface to the sky, the coverage of every surface, and predicted against
    true completeness cell by cell. ``title`` says what surface, which seeds."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(15.5, 6.2), layout="constrained")
        steps, share, cells = figure.subplots(1, 3, width_ratios=(1.05, 1.25, 1.0))
        _steps(steps, outcome.steps, outcome.facts.get("priors"))
        _coverage(share, outcome.arms)
        _cells(cells, outcome.cells)
        lenses = int(outcome.arms.filter(pl.col("closure_against") == LENSES)["n_true_lenses"].max() or 0)  # type: ignore[arg-type]
        figure.suptitle(f"{title}\n{lenses:,} true lenses that no step has seen, through the whole pipeline", fontsize=12, x=0.01,
                        ha="left")  # fmt: skip
    return figure


def _colour(arm: str) -> str:
    return _SHOWN.get(arm, _FURTHER)


def _steps(ax: Axes, steps: pl.DataFrame, priors: dict[str, Any] | None) -> None:
    rows = [r for r in steps.iter_rows(named=True) if r["closure_step"] != "all together"]
    ladder = [r for r in rows if r["closure_step"][0].isdigit()]
    further = [r for r in rows if not r["closure_step"][0].isdigit()]
    names: list[tuple[str, float, str]] = [(f"{PUBLISHED} surface", ladder[0]["completeness_before"], _STOP)]
    names += [(r["step_to_arm"], r["completeness_after"], _colour(r["step_to_arm"])) for r in ladder]
    names += [(r["step_to_arm"], r["completeness_after"], _FURTHER) for r in further]
    for place, (_, value, colour) in enumerate(names):
        ax.plot(value, place, "o", color=_INK if names[place][0] == SKY else colour, ms=8)
    for i, r in enumerate(ladder):
        half = (r["step_hi68"] - r["step_lo68"]) / 2
        ax.annotate(
            "",
            (r["completeness_after"], i + 1),
            (r["completeness_before"], i),
            arrowprops={"arrowstyle": "->", "color": "#999999"},
        )
        ax.text(max(r["completeness_after"], r["completeness_before"]) + 0.015, i + 0.5,
                f"{r['step_difference']:+.3f} ± {half:.3f}", fontsize=9, va="center", color="#444444",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9}, zorder=4)  # fmt: skip
    if priors is not None and priors["lo68"] is not None:
        ax.plot([priors["lo68"], priors["hi68"]], [0, 0], color=_STOP, lw=5, alpha=0.35, solid_capstyle="butt")
        ax.text(priors["lo68"], -0.22, "error of the fit, 68 %", fontsize=8, color=_STOP)
    sky = ladder[-1]["completeness_after"]
    ax.axvline(sky, color=_INK, lw=0.8, ls=":")
    ax.set_yticks(range(len(names)), [_wrapped(n) for n, *_ in names], fontsize=8.5)
    high = max(v for _, v, _ in names)
    ax.set_ylim(len(names) - 0.5, -0.6)
    ax.set_xlim(min(v for _, v, _ in names) - 0.06, high + 0.16)
    ax.set_xlabel("completeness at the true lenses' own cells")
    ax.set_title("one change at a time, 68 %", fontsize=10)
    ax.grid(axis="x", alpha=0.25, lw=0.6)


def _coverage(ax: Axes, arms: pl.DataFrame) -> None:
    rows = sorted(arms.iter_rows(named=True), key=lambda r: (r["closure_against"] == LENSES, _rank(r["closure_arm"])))
    labels = []
    for i, r in enumerate(rows):
        for level, colour in ((68, "#7a9cc6"), (95, _INK)):
            lo, hi = r[f"share_inside{level}_lo95"], r[f"share_inside{level}_hi95"]
            if lo is None:
                continue
            at = i + (-0.14 if level == 68 else 0.14)
            ax.plot([lo, hi], [at, at], color=colour, lw=1.6)
            ax.plot(r[f"share_inside{level}"], at, "o", color=colour, ms=5)
            ax.plot(r[f"expected_inside{level}"], at, "|", color=_STOP, ms=9, mew=1.6)
        own = "" if r["closure_against"] == LENSES else "machinery: "
        of = "lenses" if r["closure_against"] == LENSES else "arcs"
        labels.append(
            _wrapped(f"{own}{r['closure_arm']}") + f"\n({r['n_compared']} cells, {r['n_true_lenses']:,} {of})"
        )
    for nominal, colour in ((0.68, "#7a9cc6"), (0.95, _INK)):
        ax.axvline(nominal, color=colour, lw=0.9, ls="--")
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("share of cells whose interval holds the truth\n(68 %: blue, 95 %: black; bars are 95 %)")
    ax.set_title("coverage; red: expected of a right surface", fontsize=10)
    ax.grid(axis="x", alpha=0.25, lw=0.6)


def _cells(ax: Axes, cells: pl.DataFrame) -> None:
    rows = cells.filter((pl.col("closure_level") == "cell") & (pl.col("closure_against") == LENSES))
    ax.plot([0, 1], [0, 1], color="#999999", lw=0.8)
    for name, colour in _SHOWN.items():
        mine = rows.filter(pl.col("closure_arm") == name)
        x, y = mine["predicted_completeness"].to_numpy(), mine["true_completeness"].to_numpy()
        bars: Any = [np.maximum(y - mine["true_lo68"].to_numpy(), 0), np.maximum(mine["true_hi68"].to_numpy() - y, 0)]
        spread: Any = [
            np.maximum(x - mine["predicted_lo68"].to_numpy(), 0),
            np.maximum(mine["predicted_hi68"].to_numpy() - x, 0),
        ]
        if name == PUBLISHED:
            ax.errorbar(x, y, yerr=bars, xerr=spread, fmt="none", lw=0.6, color=colour, alpha=0.6)
        ax.plot(x, y, "o", ms=4, color=colour, alpha=0.8, label=name, zorder=3)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_aspect("equal")
    ax.set_xlabel("predicted completeness of a cell")
    ax.set_ylabel("true completeness")
    ax.set_title("cell by cell; 68 % bars of the published surface", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    ax.grid(alpha=0.25, lw=0.6)


def _rank(arm: str) -> tuple[int, str]:
    order = [PUBLISHED, AS_PUBLISHED, WITH_PRIORS, ORDINARY, ALIKE, EXACT]
    return (order.index(arm) if arm in order else len(order), arm)


def _wrapped(text: str) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 26:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
