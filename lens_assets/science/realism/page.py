"""The realism report as one page for a browser: verdict, gates with intervals, figures, galleries, before and after.

A single HTML file without outside parts; nothing is computed here. Pictures of the stamps are matched in conditions and
brightness, real beside injected, drawn by identity.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.cutouts.page_parts import STYLE, number, stamps, table, text
from lens_assets.science.hashing import seed_of
from lens_assets.science.realism.gate import GateResult
from lens_assets.science.realism.report import RealismReport
from lens_assets.science.realism.stamps import StampSet

SHOWN = 24
CROP = 32
_STATUS = {"pass": "green", "fail": "red", "reported": "insufficient", "insufficient": "insufficient"}
_WHAT = {
    "arc_snr": "1: SNR of the arc, azimuth-subtracted; largest ratio of the 10th, 50th, 90th percentiles",
    "annulus_snr": "1: the same with all light of the annulus, host included",
    "annulus_colour": "2: medians of annulus g-r and r-z, host included; the larger difference",
    "arc_colour": "2: the same of what the azimuthal model leaves",
    "background_ks": "3: background pixels against the untouched host; smallest Holm-adjusted p",
    "background_power": "3: noise power against the untouched host; largest deviation from 1",
    "surface_brightness": "4: distance of the distributions",
    "arc_width": "4: distance of the distributions",
    "arc_radius": "4: distance of the distributions (matched: Einstein radii are gridded, not drawn)",
    "tangential_asymmetry": "4: distance of the distributions",
    "feature_probe": "5: linear probe on the detector's features, folds by host",
    "feature_frechet": "5: regularised Frechet distance, less its bias",
    "blinded_panel": "6: AUC of human votes, real against injected (0.5: cannot tell)",
}
_FIGURES = {
    "gates": "Value over bar, with 95 % intervals",
    "measures": "Distributions under matched conditions",
    "probe": "The probe, its null and its controls",
    "background": "Noise power of injected stamps over untouched hosts",
}


def interval(x: GateResult, digits: int = 3) -> str:
    """The 95 % interval in words, or a dash."""
    if not (np.isfinite(x.lo95) and np.isfinite(x.hi95)):
        return "–"
    return f"{number(x.lo95, digits)} to {number(x.hi95, digits)}"


def _status(x: GateResult) -> str:
    return f'<span class="word {_STATUS[x.status]}">{text(x.status)}</span>'


def realism_page(
    report: RealismReport, real: StampSet, injected: StampSet, folder: Path, *, title: str, about: str,
    before: RealismReport | None = None, override: str = "",
) -> str:  # fmt: skip
    """The page as text of one HTML file.

    folder : where the report's figures lie (``figures.write_figures``). ``about``: one sentence on which lenses judge.
    ``before``: the report of the uncalibrated default on the same lenses. ``override``: the recorded reason, if any.
    """
    sections = [_verdict(report, override), _gates(report)]
    if before is not None:
        sections.append(_before(before, report))
    sections += [_figures(report, folder), _controls(report.gate("feature_probe")), _galleries(report, real, injected)]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
        f"<style>{STYLE}.wide{{max-width:100%;height:auto;display:block;margin:6px 0}}"
        ".sides{display:grid;grid-template-columns:1fr 1fr;gap:24px}@media(max-width:800px){.sides{grid-template-columns:1fr}}"
        f'</style></head><body><h1>{text(title)}</h1><p class="dim">{text(about)}</p>{_cards(report)}'
        f"{''.join(sections)}</body></html>\n"
    )


def _cards(report: RealismReport) -> str:
    probe, distance = report.gate("feature_probe"), report.gate("feature_frechet")
    n = report.facts["n"]
    cards = [
        (report.verdict.upper(), "verdict"),
        (
            number(probe.value),
            f"AUC of the linear probe (95 % {interval(probe)}; {probe.n_real} real, {probe.n_injected} injected; "
            f"bar {number(probe.bar, 2)})",
        ),
        (number(distance.value, 2), f"Frechet distance (95 % {interval(distance, 2)}; two halves of the real lenses: "
                                    f"{number(distance.detail.get('real_real_median'), 2)})"),
        (f"{n['real']:,} / {n['injected']:,}", "real lenses / injections given"),
    ]  # fmt: skip
    if sources := report.facts.get("sources"):
        words = (
            f"distinct real galaxies as sources of {sources['injections']:,} matched injections (effective number "
            f"{number(sources['effective'], 1)}; {sources['needed']} are needed): intervals are for these galaxies"
        )
        cards.append((f"{sources['distinct']:,}", words))
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{text(b)}</b><span>{text(s)}</span></div>' for b, s in cards)
        + "</div>"
    )


def _verdict(report: RealismReport, override: str) -> str:
    if report.verdict == "go":
        return "<p>Every blocking gate passes.</p>"
    rows = "".join(f"<li>{text(reason)}</li>" for reason in report.reasons)
    waived = (
        f" A surface was made in spite of it, for this recorded reason: <i>{text(override)}</i>." if override else ""
    )
    told = f"A surface made under it says so in header, figures and name.{waived}"
    return f"<p><b>No-go</b>, because:</p><ul>{rows}</ul><p>{told}</p>"


def _gates(report: RealismReport) -> str:
    rows = []
    for x in report.gates:
        blocking = "blocking" if x.name in report.facts["blocking"] else "reported"
        bar = "–" if x.bar is None else f"{'≤' if x.better == 'low' else '&gt;'} {x.bar:g}"
        told = x.detail.get("reason", "") if x.status == "insufficient" else ""
        rows.append(
            [f"<code>{text(x.name)}</code>", _status(x),
             f'<span class="nowrap">{number(x.value)} {text(x.unit)}</span>', f'<span class="nowrap">{interval(x)}</span>',
             f'<span class="nowrap">{bar}</span>', f"{x.n_real:,}", f"{x.n_injected:,}", blocking,
             f'<span class="dim">{text(_WHAT.get(x.name, ""))} {text(told)}</span>']
        )  # fmt: skip
    head = ["gate", "status", "value", "95 %", "passes", "real", "injected", "decides", "what it is"]
    return "<h2>Gates</h2>" + table(head, rows, [5, 6])


def _before(before: RealismReport, after: RealismReport) -> str:
    rows = []
    for x in after.gates:
        old = next((y for y in before.gates if y.name == x.name), None)
        if old is None:
            continue
        cells = [f"<code>{text(x.name)}</code>"]
        for y in (old, x):
            cells += [
                f"{number(y.value)} {text(y.unit)}",
                f'<span class="nowrap">{interval(y)}</span>',
                f"{y.n_real} / {y.n_injected}",
                _status(y),
            ]
        rows.append(cells)
    head = ["gate", "before", "95 %", "n", "", "after", "95 %", "n", ""]
    return (
        f"<h2>Before and after the calibration</h2><p>Both against the same lenses, which took no part in the fit: before, "
        f"the population priors on random hosts (<b>{text(before.verdict)}</b>); after, this variant "
        f"(<b>{text(after.verdict)}</b>). n: real / injected.</p>" + table(head, rows)
    )


def _figures(report: RealismReport, folder: Path) -> str:
    out = "<h2>Figures</h2>"
    for name, words in _FIGURES.items():
        path = folder / f"realism-{name}-{report.tag}.png"
        data = base64.b64encode(path.read_bytes()).decode()
        out += f'<h3>{text(words)}</h3><img class="wide" alt="{text(words)}" src="data:image/png;base64,{data}">'
    return out


def _controls(probe: GateResult) -> str:
    controls: Mapping[str, Any] = probe.detail.get("controls", {})
    words = {
        "real_real_halves": "two random halves of the real lenses",
        "confirmed_against_A": "confirmed lenses against tier A",
        "hosts_against_real": "untouched hosts against real lenses",
        "hosts_against_negatives": "untouched hosts against other non-lenses",
    }
    rows = [["real against injected", number(probe.value), interval(probe), f"{probe.n_real} / {probe.n_injected}"]]
    if "null_hi95" in probe.detail:
        rows.append(
            ["permuted labels", number(probe.detail["null_mean"]), f"below {number(probe.detail['null_hi95'])}", ""]
        )
    for name, c in controls.items():
        n = c.get("n")
        low = f"{number(c['lo95'])} to {number(c['hi95'])}" if "lo95" in c else f"below {number(c['hi95'])}"
        rows.append([text(words.get(name, name)), number(c.get("auc", c.get("mean"))), low,
                     f"{n[0]} / {n[1]}" if isinstance(n, list) else str(n)])  # fmt: skip
    return "<h2>The probe and its controls</h2>" + table(["comparison", "AUC", "95 %", "n"], rows, [1])


def _galleries(report: RealismReport, real: StampSet, injected: StampSet) -> str:
    matched = report.measures.filter(pl.col("matched_brightness"))
    out = '<h2>Matched stamps</h2><p class="dim">Matched in seeing, depth and annulus brightness; g, r, z as blue, green, red; '
    out += f'{(2 * CROP + 1) * 0.262:.0f} arcsec on a side.</p><div class="sides">'
    for side, these, words in (("real", real, "Real lenses"), ("injected", injected, "Injections")):
        ids = sorted(matched.filter(pl.col("side") == side)["id"].to_list(), key=lambda i: seed_of("realism page", i))
        where = {str(i): k for k, i in enumerate(these.frame["id"].to_list())}
        rows = [where[i] for i in ids[:SHOWN]]
        middle = these.images.shape[-1] // 2
        low, high = max(middle - CROP, 0), middle + CROP + 1
        pictures = these.images[rows][:, :, low:high, low:high] if rows else np.empty(0, np.float32)
        out += f"<div><h3>{words} ({len(ids)} matched)</h3>{stamps(pictures, [''] * len(rows))}</div>"
    return out + "</div>"
