"""Figures of a detector: ROC, precision-recall, reliability, score histograms, training curves. PNG, drawn without a
screen.

Everything drawn comes from the evaluation's tables and the history; nothing is computed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lens_assets.science.detectors import strata_figures
from lens_assets.science.detectors.evaluate import Evaluation

COLOURS = {"held-out": "#1f5a8c", "independent": "#b4501e", "evaluation": "#5c7f36"}
_GREY = "0.55"
PANELS = (
    ("sample", "as sampled, bins of equal rows"),
    ("positive", "as sampled, bins of equal numbers of lenses"),
    ("balanced", "classes made equal"),
    ("mapped", "after the calibration map"),
)


def draw(
    folder: Path, title: str, evaluation: Evaluation | None = None, history: pl.DataFrame | None = None
) -> list[Path]:
    """Write the figures there is material for into ``folder``; the paths written, sorted."""
    written = []
    if history is not None and history.height:
        written.append(_save(training(history, title), folder / "training.png"))
    if evaluation is not None:
        written.append(_save(roc(evaluation, title), folder / "roc.png"))
        written.append(_save(precision_recall(evaluation, title), folder / "precision_recall.png"))
        written.append(_save(reliability(evaluation, title), folder / "reliability.png"))
        written.append(_save(histograms(evaluation, title), folder / "scores.png"))
        written.append(_save(strata_figures.by_stratum(evaluation, title), folder / "strata.png"))
    return sorted(written)


def roc(evaluation: Evaluation, title: str) -> Figure:
    """Recall against false-positive rate, logarithmic; the rates that thresholds were set for are marked."""
    figure, ax = _figure()
    floor = 1.0
    for name, part in _series(evaluation, "roc"):
        keep = part.filter(pl.col("abscissa") > 0)
        floor = min(floor, float(keep["abscissa"].min() or 1.0))  # type: ignore[arg-type]
        ax.plot(
            keep["abscissa"],
            keep["ordinate"],
            color=COLOURS[name],
            lw=1.6,
            label=f"{name}: AUC {_value(evaluation, name, 'auc')}",
        )
    for row in evaluation.thresholds.drop_nulls(["threshold", "fpr_target"]).iter_rows(named=True):
        ax.axvline(row["fpr_target"], color=_GREY, lw=0.8, ls=":")
    diagonal = np.geomspace(floor / 2, 1, 50)
    ax.plot(diagonal, diagonal, color=_GREY, lw=0.8, ls="--")
    ax.set(
        xscale="log",
        xlim=(floor / 2, 1.05),
        ylim=(0, 1.02),
        xlabel="false-positive rate (report negatives)",
        ylabel="recall",
    )
    return _finish(figure, ax, title, "lower right")


def precision_recall(evaluation: Evaluation, title: str) -> Figure:
    """Precision at the sample's ratio of classes against recall."""
    figure, ax = _figure()
    for name, part in _series(evaluation, "pr"):
        ap = _value(evaluation, name, "average_precision")
        ax.plot(part["abscissa"], part["ordinate"], color=COLOURS[name], lw=1.6, label=f"{name}: AP {ap}")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision in the sample (not of a survey)")
    return _finish(figure, ax, title, "lower left")


def reliability(evaluation: Evaluation, title: str) -> Figure:
    """Fraction of lenses against mean score: as sampled, with both classes equal, in bins of equal numbers of lenses, and
    after the calibration map where there is one."""
    panels = [p for p in PANELS if p[0] != "mapped" or "mapped" in set(evaluation.curves["series"])]
    figure = Figure(figsize=(4.5 * len(panels), 4.4), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(panels))
    for ax, (series, label) in zip(axes, panels, strict=True):
        ax.plot([1e-6, 1], [1e-6, 1], color=_GREY, lw=0.8, ls="--")
        for name, part in _series(evaluation, "reliability"):
            part = part.filter(pl.col("series") == series)
            y, bars = part["ordinate"].to_numpy(), None
            if part["lo68"].null_count() == 0 and part.height:
                bars = np.clip([y - part["lo68"].to_numpy(), part["hi68"].to_numpy() - y], 0, None)
            ax.errorbar(
                part["abscissa"], y, yerr=bars, color=COLOURS[name], marker="o", ms=4, lw=1, capsize=2, label=name
            )
        ax.set(xlabel="mean score", ylabel="fraction of lenses", title=label)
        ax.title.set_fontsize(9)
        if series != "balanced":
            ax.set(xscale="symlog", yscale="symlog", xlim=(0, 1.1), ylim=(0, 1.1))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(_decades())
            ax.set_xscale("symlog", linthresh=1e-3)
            ax.set_yscale("symlog", linthresh=1e-3)
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    figure.suptitle(title, fontsize=10)
    return figure


def histograms(evaluation: Evaluation, title: str) -> Figure:
    """Logits of lenses and non-lenses, one panel a set, with the thresholds that were set."""
    names = [name for name in COLOURS if name in set(evaluation.curves["set"])]
    figure = Figure(figsize=(6.4, 1.2 + 2.2 * max(1, len(names))), dpi=110, layout="constrained")
    axes = np.atleast_1d(figure.subplots(max(1, len(names)), 1, sharex=True))
    points = evaluation.thresholds.drop_nulls("threshold_logit")
    used: list[float] = []
    for ax, name in zip(axes, names, strict=False):
        part = evaluation.curves.filter((pl.col("set") == name) & (pl.col("curve") == "scores"))
        for series, colour in (("non-lenses", _GREY), ("lenses", COLOURS[name])):
            one = part.filter(pl.col("series") == series)
            used += one.filter(pl.col("ordinate") > 0)["abscissa"].to_list()
            ax.step(
                one["abscissa"],
                one["ordinate"],
                where="mid",
                color=colour,
                lw=1.4,
                label=f"{series} ({int(one['ordinate'].sum())})",
            )
        for row in points.iter_rows(named=True):
            ax.axvline(row["threshold_logit"], color="k", lw=0.6, ls=":")
            ax.text(row["threshold_logit"], 0.98, row["name"], rotation=90, fontsize=6, va="top", ha="right",
                    transform=ax.get_xaxis_transform())  # fmt: skip
        ax.set(yscale="symlog", ylabel="objects", ylim=(0, None))
        legend = ax.legend(frameon=False, fontsize=8, loc="upper left", title=name)
        legend.get_title().set_fontsize(8)
    if used:
        axes[-1].set_xlim(min(used) - 1, max(max(used), 2.0) + 1)
    axes[-1].set_xlabel("logit")
    figure.suptitle(title, fontsize=10)
    return figure


def training(history: pl.DataFrame, title: str) -> Figure:
    """Losses, AUC on the select rows and the learning rate by epoch; the chosen epoch is marked."""
    figure = Figure(figsize=(6.4, 6.0), dpi=110, layout="constrained")
    top, middle, low = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.3))
    epoch, mark = history["epoch"], "o" if history.height < 40 else None
    top.plot(epoch, history["train_loss"], color=_GREY, marker=mark, ms=3, label="train (weighted, oversampled)")
    top.plot(epoch, history["select_loss"], color=COLOURS["held-out"], marker=mark, ms=3, label="select (unweighted)")
    top.set_ylabel("cross-entropy")
    middle.plot(epoch, history["select_auc"], color=COLOURS["held-out"], marker=mark, ms=3, label="select")
    middle.set_ylabel("AUC")
    low.plot(epoch, history["lr"], color=_GREY, marker=mark, ms=3, label="at the epoch's end")
    low.set(ylabel="learning rate", xlabel="epoch", yscale="log")
    best = history.filter("best")
    for ax in (top, middle):
        for value in best["epoch"]:
            ax.axvline(value, color=COLOURS["independent"], lw=1, ls="--", label=f"chosen epoch {value}")
        ax.legend(frameon=False, fontsize=8)  # type: ignore[call-overload]
    figure.suptitle(title, fontsize=10)
    return figure


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.0, 4.6), dpi=110, layout="constrained")
    return figure, figure.subplots()


def _finish(figure: Figure, ax: Axes, title: str, place: str) -> Figure:
    ax.set_title(title, fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc=place)  # type: ignore[call-overload]
    return figure


def _series(evaluation: Evaluation, curve: str) -> list[tuple[str, pl.DataFrame]]:
    parts = evaluation.curves.filter(pl.col("curve") == curve)
    found = [(name, parts.filter(pl.col("set") == name)) for name in COLOURS]
    return [(name, part) for name, part in found if part.height]


def _value(evaluation: Evaluation, name: str, metric: str) -> str:
    row = evaluation.metrics.filter(
        (pl.col("set") == name) & (pl.col("stratum_axis") == "all") & (pl.col("metric") == metric)
    ).row(0, named=True)
    if row["value"] is None:
        return f"none ({row['why_not']})"
    span = "" if row["lo68"] is None else f" [{row['lo68']:.3f}, {row['hi68']:.3f}]"
    return f"{row['value']:.3f}{span}"


def _decades() -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator([0, 1e-3, 1e-2, 1e-1, 1])


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return path
