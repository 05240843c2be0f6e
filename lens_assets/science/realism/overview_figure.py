"""One figure of several realism reports: the probe with its controls, and every gate against its bar, variant by variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lens_assets.science.realism.figures import GO, GREY, NOGO
from lens_assets.science.realism.overview import Entry

GATES = ("arc_snr", "annulus_snr", "annulus_colour", "arc_colour", "background_ks", "background_power", "feature_probe")
CONTROLS = {"real_real_halves": "real against real", "hosts_against_real": "untouched hosts against real"}
_MARKS = {"real_real_halves": "s", "hosts_against_real": "D"}
_WORDS = {"feature_probe": "probe AUC"}
_CYCLE = ("#1b6ca8", "#d1603d", "#2a7f3f", "#7a4fa3", "#b58900", "#3aa6a0", "#444444")
_FURTHEST = 20.0


def overview_figure(entries: Sequence[Entry], path: str | Path) -> Path:
    """PNG with a row a detector. Left: AUC of the linear probe, 95 % interval, controls and bar. Right: gates as value over bar
    (bar over p for p-values), 95 % interval; left of one passes, a hollow mark could not be measured well enough."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    detectors = sorted({e.detector for e in entries})
    most = max(sum(e.detector == d for e in entries) for d in detectors)
    figure = Figure(
        figsize=(12, (1.6 + 0.75 * most) * len(detectors)), dpi=120, facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(detectors), 2, squeeze=False, width_ratios=(1, 1.25))
    for (left, right), detector in zip(axes, detectors, strict=True):
        ours = sorted((e for e in entries if e.detector == detector), key=lambda e: e.variant.name)
        _probes(left, ours)
        _gates(right, ours)
        left.set_title(f"{detector}: can a linear probe tell injections from real lenses?", fontsize=9)
        right.set_title("gates against their bars", fontsize=9)
    figure.savefig(path, format="png", metadata={"Software": None})
    return Path(path)


def _probes(axis: Any, entries: Sequence[Entry]) -> None:
    for y, e in enumerate(reversed(entries)):
        gate = e.gate("feature_probe")
        verdict = e.report["verdict"]
        n = "" if gate is None else f"\n{gate['n_real']} real, {gate['n_injected']} injected"
        axis.text(
            -0.02, y, f"{e.variant.name}\n{verdict}{n}", transform=axis.get_yaxis_transform(), ha="right", va="center",
            fontsize=8, color=GO if verdict == "go" else NOGO,
        )  # fmt: skip
        if gate is None or gate["value"] is None:
            axis.text(0.7, y, "insufficient", ha="center", va="center", fontsize=8, color=NOGO)
            continue
        controls = gate["detail"].get("controls", {})
        for k, name in enumerate(CONTROLS):
            c = controls.get(name, {})
            value = c.get("auc", c.get("mean"))
            if value is not None:
                at = y - 0.16 * (k + 1)
                axis.plot([c.get("lo95") or value, c.get("hi95") or value], [at, at], color=GREY, lw=1)
                axis.plot([value], [at], _MARKS[name], color=GREY, ms=4, label=CONTROLS[name] if y == 0 else None)
        colour = _CYCLE[(len(entries) - 1 - y) % len(_CYCLE)]
        if gate["lo95"] is not None:
            axis.plot([gate["lo95"], gate["hi95"]], [y, y], color=colour, lw=3, alpha=0.5, solid_capstyle="butt")
        axis.plot([gate["value"]], [y], "o", color=colour, ms=7)
        axis.axvline(gate["bar"], color="black", lw=1)
    axis.axvline(0.5, color=GREY, lw=1, ls="--")
    axis.set(xlim=(0.2, 1.02), ylim=(-0.7, len(entries) - 0.4), yticks=[])
    axis.set_xlabel("AUC, 95 % interval (line: bar; dashed: cannot tell)", fontsize=8)
    axis.legend(fontsize=7, frameon=False, loc="lower left")  # untouched hosts lie far to the right
    _tidy(axis)


def _gates(axis: Any, entries: Sequence[Entry]) -> None:
    step = 0.8 / max(len(entries), 1)
    for row, name in enumerate(reversed(GATES)):
        for k, e in enumerate(entries):
            gate = e.gate(name)
            if gate is None or gate["value"] is None or not gate["bar"]:
                continue
            y = row + 0.4 - step * (k + 0.5)
            value, lo, hi = (np.clip(v, 1 / _FURTHEST, _FURTHEST) for v in _over_bar(gate))
            colour = _CYCLE[k % len(_CYCLE)]
            axis.plot([lo, hi], [y, y], color=colour, lw=1.4, alpha=0.6)
            hollow = gate["status"] == "insufficient"
            axis.plot([value], [y], "o", color=colour, ms=4.5, mfc="white" if hollow else colour,
                      label=e.variant.name if row == 0 else None)  # fmt: skip
        if row:
            axis.axhline(row - 0.5, color="#dddddd", lw=0.6)
    axis.axvline(1, color="black", lw=1)
    words = [_words(name, entries) for name in reversed(GATES)]
    axis.set(xscale="log", xlim=(0.9 / _FURTHEST, 1.1 * _FURTHEST), ylim=(-0.6, len(GATES) - 0.4))
    axis.set_yticks(range(len(GATES)), words, fontsize=8)
    axis.set_xlabel("value / bar (left of 1 passes)", fontsize=8)
    axis.legend(fontsize=7, frameon=False, loc="upper right")
    _tidy(axis)


def _over_bar(gate: Mapping[str, Any]) -> tuple[float, float, float]:
    """Value and 95 % interval in units of the bar, so that less is better."""
    bar = float(gate["bar"])
    values = [gate["value"] if v is None else v for v in (gate["value"], gate["lo95"], gate["hi95"])]
    if gate["better"] == "high":
        value, lo, hi = (bar / max(float(v), 1e-9) for v in values)
        return value, hi, lo
    value, lo, hi = (float(v) / bar for v in values)
    return value, lo, hi


def _words(name: str, entries: Sequence[Entry]) -> str:
    gate = next((g for g in (e.gate(name) for e in entries) if g is not None and g["bar"]), None)
    blocking = any(name in e.report["facts"]["blocking"] for e in entries)
    bar = "" if gate is None else f"\nbar {gate['bar']:g} {gate['unit'] if gate['unit'] != 'AUC' else ''}".rstrip()
    return f"{_WORDS.get(name, name.replace('_', ' '))}{'' if blocking else ' (reported)'}{bar}"


def _tidy(axis: Any) -> None:
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(labelsize=8)
