"""Figures of the realism report, from the report alone; each is written as PNG and carries the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.realism.report import RealismReport

REAL, INJECTED, GREY = "#1b6ca8", "#d1603d", "#8a8a8a"
GO, NOGO = "#2a7f3f", "#b3261e"


def _figure(report: RealismReport, title: str, size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}   [{report.verdict.upper()}]", fontsize=11, color=GO if report.verdict == "go" else NOGO)
    return figure


def _save(figure: Any, path: str | Path) -> Path:
    figure.savefig(path, format="png", metadata={"Software": None})
    return Path(path)


def _tidy(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def gates_figure(report: RealismReport, path: str | Path) -> Path:
    """Every gate with a bar, as value over bar with its 95 % interval: left of the line passes (for p, the bar over
    p)."""
    rows = [x for x in report.gates if x.bar is not None]
    figure = _figure(report, "realism gates", (8, 0.42 * len(rows) + 1.4))
    axis = figure.subplots()
    lowest, highest = 0.05, 20.0
    for y, x in enumerate(reversed(rows)):
        assert x.bar is not None
        blocking = x.name in report.facts["blocking"]
        text = f"{x.name}{'' if blocking else ' (not blocking)'}\n{x.value:.3g} {x.unit}, bar {x.bar:.3g}"
        axis.text(-0.02, y, text, transform=axis.get_yaxis_transform(), ha="right", va="center", fontsize=7.5)
        if x.status == "insufficient":
            axis.text(1.0, y, f"insufficient: {x.detail['reason']}", va="center", ha="center", fontsize=6.5, color=NOGO)
            continue
        low = x.better == "low"
        values = np.array([x.value, x.lo95, x.hi95]) / x.bar
        values = values if low else 1 / np.maximum(values, 1e-6)
        v, a, b = np.clip(values, lowest, highest)
        colour = GO if x.passed else NOGO
        if np.isfinite(a) and np.isfinite(b):
            axis.plot([a, b], [y, y], color=colour, lw=1.6, alpha=0.6)
        axis.plot([v], [y], "o", color=colour, ms=6)
    axis.axvline(1, color="black", lw=1)
    axis.set(xscale="log", xlim=(lowest * 0.9, highest * 1.1), ylim=(-0.7, len(rows) - 0.3), yticks=[])
    axis.set_xlabel("value / bar (pass: left of 1)", fontsize=8)
    _tidy(axis)
    axis.spines["left"].set_visible(False)
    return _save(figure, path)


def measures_figure(report: RealismReport, path: str | Path) -> Path:
    """Cumulative distributions of the measures under matched conditions, real and injected."""
    panels = [
        ("excess_snr_r", "arc-annulus SNR (r, azimuth-subtracted)"),
        ("annulus_gr", "annulus g - r (mag)"),
        ("annulus_rz", "annulus r - z (mag)"),
        ("excess_gr", "arc g - r (mag)"),
        ("excess_rz", "arc r - z (mag)"),
        ("arc_sb_r", "arc surface brightness (r mag/arcsec$^2$)"),
        ("arc_radius", "arc radius (arcsec)"),
        ("arc_width", "arc width (arcsec)"),
        ("arc_asymmetry", "tangential asymmetry"),
    ]
    figure = _figure(report, "matched conditions: real lenses and injections", (9.5, 7.5))
    axes = figure.subplots(3, 3).ravel()
    matched = report.measures.filter(pl.col("matched_conditions"))
    for axis, (name, label) in zip(axes, panels, strict=True):
        pooled = matched[name].drop_nulls().to_numpy()
        for side, colour in (("real", REAL), ("injected", INJECTED)):
            v = np.sort(matched.filter(pl.col("side") == side)[name].drop_nulls().to_numpy())
            axis.step(
                v,
                np.arange(1, len(v) + 1) / max(len(v), 1),
                where="post",
                color=colour,
                lw=1.6,
                label=f"{side} ({len(v)})",
            )
        if len(pooled):
            lo, hi = np.percentile(pooled, [1, 99])
            axis.set_xlim(lo - 0.05 * (hi - lo + 1e-9), hi + 0.05 * (hi - lo + 1e-9))
        axis.set_ylim(0, 1.02)
        axis.set_xlabel(label, fontsize=8)
        axis.legend(fontsize=6.5, frameon=False, loc="lower right")
        _tidy(axis)
    return _save(figure, path)


def background_figure(report: RealismReport, path: str | Path) -> Path:
    """The ratio of noise power, injected over untouched, per band, with 95 % intervals and the bar."""
    power, ks = report.gate("background_power"), report.gate("background_ks")
    figure = _figure(report, "background of injected stamps over their untouched hosts", (9.5, 3.2))
    axes = figure.subplots(1, 3, sharey=True)
    for b, (axis, band) in enumerate(zip(axes, "grz", strict=True)):
        if "ratio" in power.detail:
            edges = np.asarray(power.detail["frequency_edges"])
            k = (edges[1:] + edges[:-1]) / 2
            ratio, lo, hi = (np.asarray(power.detail[n])[b] for n in ("ratio", "lo95", "hi95"))
            axis.fill_between(k, lo, hi, color=INJECTED, alpha=0.25, lw=0)
            axis.plot(k, ratio, "o-", color=INJECTED, ms=4)
        else:
            axis.text(0.5, 0.5, "insufficient", transform=axis.transAxes, ha="center", color=NOGO)
        assert power.bar is not None
        for s in (-1, 1):
            axis.axhline(1 + s * power.bar, color=GREY, lw=1, ls="--")
        axis.axhline(1, color="black", lw=0.8)
        d = ks.detail.get(band)
        axis.set_title(f"{band}" + (f"   KS p = {d['p']:.3g}" if d else ""), fontsize=9)
        axis.set_xlabel("spatial frequency (cycles / pixel)", fontsize=8)
        _tidy(axis)
    axes[0].set_ylabel("noise power ratio", fontsize=8)
    return _save(figure, path)


def probe_figure(report: RealismReport, path: str | Path) -> Path:
    """The linear probe: its ROC, and its AUC beside null, controls and bar."""
    probe = report.gate("feature_probe")
    figure = _figure(report, "feature-space realism: linear probe", (9.5, 4))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    if probe.detail.get("fpr"):
        left.plot(probe.detail["fpr"], probe.detail["tpr"], color=INJECTED, lw=2)
    left.set(xlim=(0, 1), ylim=(0, 1.01))
    left.set_xlabel("injections taken for real", fontsize=8)
    left.set_ylabel("real taken for real", fontsize=8)
    left.set_title(
        f"{probe.n_real} real, {probe.n_injected} injected, {probe.detail.get('components', '-')} components",
        fontsize=9,
    )
    rows: list[tuple[str, float, float, float, str]] = [
        ("real / injected", probe.value, probe.lo95, probe.hi95, INJECTED)
    ]
    if "null_hi95" in probe.detail:
        rows.append(("permuted labels", probe.detail["null_mean"], np.nan, probe.detail["null_hi95"], GREY))
    for name, c in probe.detail.get("controls", {}).items():
        value = c.get("auc", c.get("mean"))
        rows.append((name.replace("_", " "), value, c.get("lo95", np.nan), c["hi95"], REAL))
    for y, (_, value, lo, hi, colour) in enumerate(reversed(rows)):
        if np.isfinite(hi):
            right.plot([lo if np.isfinite(lo) else value, hi], [y, y], color=colour, lw=2, alpha=0.6)
        if np.isfinite(value):
            right.plot([value], [y], "o", color=colour, ms=6)
        else:
            right.text(0.5, y, "insufficient", color=NOGO, fontsize=8, va="center")
    right.set_yticks(range(len(rows)), [r[0] for r in reversed(rows)], fontsize=8)
    if probe.bar is not None:
        right.axvline(probe.bar, color="black", lw=1)
        right.text(probe.bar, len(rows) - 0.45, "bar", fontsize=8, ha="center")
    right.axvline(0.5, color=GREY, lw=1, ls="--")
    right.set(xlim=(0.3, 1.02), ylim=(-0.6, len(rows) - 0.2))
    right.set_xlabel("cross-validated AUC", fontsize=8)
    _tidy(left)
    _tidy(right)
    return _save(figure, path)


def write_figures(report: RealismReport, folder: str | Path) -> list[Path]:
    """All figures into ``folder``, named with the verdict: ``realism-gates-go.png`` and so on."""
    made = {"gates": gates_figure, "measures": measures_figure, "background": background_figure, "probe": probe_figure}
    return [make(report, Path(folder) / f"realism-{name}-{report.tag}.png") for name, make in made.items()]
