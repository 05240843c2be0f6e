"""The comparison of two releases as one HTML file: no script, nothing fetched, readable on paper.

It begins with what a reader wants to know (how many cells differ, beyond what chance gives), then the map of
significance, the largest differences with intervals and n, the marginals, and what differs in the metadata.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

import polars as pl

from lens_assets.science.release.compare import FAMILY_ERROR, Comparison

_CLIP = 5.0
_COLD, _WARM, _NONE = (33, 102, 172), (178, 24, 43), "#f1f1ef"
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d1d1b;margin:0 auto;padding:1.6rem;max-width:1180px;background:#fff}
h1{font-size:1.5rem;margin:0 0 .2rem} h2{font-size:1.12rem;margin:2rem 0 .4rem} p{max-width:75ch;margin:.4rem 0}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums;margin:.5rem 0}
th,td{padding:.25rem .65rem;text-align:right;white-space:nowrap;border-bottom:1px solid #e4e4e0;vertical-align:top}
th{font-weight:600;border-bottom:1px solid #999} th.w,td.w{text-align:left}
td.long{text-align:left;white-space:normal;overflow-wrap:anywhere;max-width:26rem;font-size:12.5px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:1rem;margin:1rem 0}
.card{border:1px solid #dcdcd6;border-left:5px solid #999;border-radius:4px;padding:.6rem .9rem}
.card.go{border-left-color:#1b6e3a} .card.no{border-left-color:#b3261e}
.card b.verdict{font-size:14px} .no .verdict{color:#b3261e} .go .verdict{color:#1b6e3a}
.small{font-size:13px;color:#55554f} .maps{display:flex;flex-wrap:wrap;gap:1.1rem} figure{margin:0;max-width:100%}
.card td{white-space:normal}
figcaption{font-size:13px;font-weight:600;margin-bottom:.2rem} .scroll{overflow-x:auto} tr.differs td{background:#fff4e0}
@media(max-width:760px){.two{grid-template-columns:1fr}}
"""


def comparison_page(found: Comparison, *, largest: int = 20) -> str:
    """The page as text; ``largest`` rows in the table of differences."""
    a, b = found.about
    s = found.summary
    out = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>{escape(a['release'])} against {escape(b['release'])}</title><style>{_STYLE}</style></head><body>",
        "<h1>Two selection functions, side by side</h1>",
        f"<div class='two'>{_card('A', a)}{_card('B', b)}</div>",
        "<h2>Do they differ beyond their errors?</h2>",
        *_answer(s),
        "<h2>Where</h2>",
        "<p class='small'>One panel a depth; Einstein radius across, PSF upwards. The number is A &minus; B in points of a "
        "per cent, the colour its significance; a frame marks cells that differ after Holm's allowance. Grey cells are "
        "not supported in both and not tested.</p>",
        _legend(),
        f"<div class='maps'>{''.join(_maps(found.cells))}</div>",
        f"<h2>Largest differences</h2>{_largest(found.cells, largest)}",
        f"<h2>Along the axes</h2>{_marginals(found.marginals)}",
        "<h2>What else is not the same</h2>",
        _metadata(found),
        "</body></html>",
    ]
    return "\n".join(out) + "\n"


def _card(letter: str, about: dict[str, Any]) -> str:
    rows = ("surface", "operating point", "cut", "false-positive rate", "cells", "injections")
    items = "".join(
        f"<tr><td class='w'>{escape(k)}</td><td class='w'>{escape(str(about[k]))}</td></tr>" for k in rows if about[k]
    )
    return (
        f"<div class='card {'go' if about['go'] else 'no'}'><b>{letter}: {escape(about['release'])}</b><br>"
        f"<b class='verdict'>{escape(about['verdict'])}</b><table>{items}</table></div>"
    )


def _answer(s: dict[str, Any]) -> list[str]:
    if not s["cells_tested"]:
        return [
            f"<p><b>Nothing can be said:</b> of {s['cells_common']} cells in common, none is supported in both.</p>"
        ]
    out = []
    if s["pooled"] is not None:
        r = s["pooled"]
        out.append(
            f"<p><b>All injections together: A {_value(r, 'a')}, B {_value(r, 'b')}, A &minus; B {100 * r['difference']:+.1f} "
            f"points, {r['z']:+.1f} sigma, p = {_p(r['p'])}</b> (one test; 68 % in brackets; over the cells that each fills).</p>"
        )
    out += [
        f"<p><b>{s['cells_differ']} of {s['cells_tested']} tested cells differ</b> (family-wise error {FAMILY_ERROR:g}, Holm). "
        f"Beyond two sigma lie {s['beyond_2_sigma']}; with no difference at all {s['expected_beyond_2_sigma']:.1f} would be "
        f"expected. Largest difference {100 * s['largest']:.0f} points; mean A &minus; B {100 * s['mean']:+.1f} points, cells "
        f"weighted by their injections.</p>",
        f"<p class='small'>A has {s['cells_a']} cells, B {s['cells_b']}, {s['cells_common']} in common; "
        f"{s['cells_common'] - s['cells_tested']} of these lack support in one of them. Errors are the published ones, with hosts "
        f"used more than once and bricks that differ in them. {_threshold(s)} Errors of bricks are common to cells of one PSF and "
        "depth, so cells that differ tend to do so together.</p>",
    ]
    if s["injections_shared"]:
        out.append(
            f"<p class='small'>The releases share {s['injections_shared']:,} injections ({s['injections_a']:,} in A, "
            f"{s['injections_b']:,} in B). Their errors are then not independent, and differences are understated here: "
            "the paired tests of one release's sensitivity tables are sharper.</p>"
        )
    return out


def _threshold(s: dict[str, Any]) -> str:
    if s["threshold_common"]:
        return (
            "Both are at one threshold of one detector: its sampling error moves both alike, and only what it does to the "
            "difference is counted (the intervals that are shown hold all of it)."
        )
    return "The sampling error of each threshold is in them, common to all cells of a release."


def _colour(z: float) -> str:
    share = min(abs(z) / _CLIP, 1.0)
    end = _WARM if z > 0 else _COLD
    return "#" + "".join(f"{round(247 + (e - 247) * share):02x}" for e in end)


def _legend() -> str:
    steps = [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5]
    boxes = "".join(
        f"<rect x='{150 + 30 * i}' y='2' width='30' height='14' fill='{_colour(z)}'/>"
        f"<text x='{165 + 30 * i}' y='29' text-anchor='middle'>{z:+d}</text>"
        for i, z in enumerate(steps)
    )
    return (
        "<div class='scroll'><svg width='680' height='34' font-size='11.5' font-family='system-ui,sans-serif' role='img' "
        "aria-label='colour scale'><text x='142' y='13' text-anchor='end'>A finds fewer</text>"
        f"{boxes}<text x='488' y='13'>A finds more (sigma)</text></svg></div>"
    )


def _maps(cells: pl.DataFrame) -> list[str]:
    out = []
    for (depth,), part in cells.sort("cell_depth").group_by("cell_depth", maintain_order=True):
        tested = int(part["tested"].sum())
        if tested:
            out.append(
                f"<figure><figcaption>depth r = {depth:g} mag</figcaption><div class='scroll'>{_svg(part)}</div></figure>"
            )
    left = [f"{d:g}" for d in cells["cell_depth"].unique().sort()
            if not cells.filter(pl.col("cell_depth") == d)["tested"].any()]  # fmt: skip
    if left:
        out.append(f"<p class='small'>Without a tested cell: depth r = {', '.join(left)} mag.</p>")
    return out


def _svg(part: pl.DataFrame) -> str:
    thetas, psfs = part["cell_theta_e"].unique().sort().to_list(), part["cell_psf"].unique().sort().to_list()
    w, h, x0, y0 = 38, 24, 52, 4
    marks = []
    for r in part.sort("differs").iter_rows(named=True):
        x, y = x0 + w * thetas.index(r["cell_theta_e"]), y0 + h * (len(psfs) - 1 - psfs.index(r["cell_psf"]))
        fill = _colour(r["z"]) if r["tested"] else _NONE
        edge = "stroke='#111' stroke-width='2'" if r["differs"] else "stroke='#fff'"
        inset = 1 if r["differs"] else 0
        marks.append(
            f"<rect x='{x + inset}' y='{y + inset}' width='{w - 2 * inset}' height='{h - 2 * inset}' fill='{fill}' {edge}>"
            f"<title>{escape(_words(r))}</title></rect>"
        )
        if r["tested"]:
            ink = "#fff" if abs(r["z"]) > 3.2 else "#111"
            marks.append(
                f"<text x='{x + w / 2}' y='{y + h / 2 + 4}' text-anchor='middle' fill='{ink}' pointer-events='none'>"
                f"{100 * r['difference']:+.0f}</text>"
            )
    marks += [
        f"<text x='{x0 + w * (i + 0.5)}' y='{y0 + h * len(psfs) + 15}' text-anchor='middle'>{t:g}</text>"
        for i, t in enumerate(thetas)
        if i % 2 == 0
    ]
    marks += [
        f"<text x='{x0 - 5}' y='{y0 + h * (len(psfs) - 1 - j) + h / 2 + 4}' text-anchor='end'>{p:g}</text>"
        for j, p in enumerate(psfs)
    ]
    width, height = x0 + w * len(thetas) + 4, y0 + h * len(psfs) + 36
    middle = y0 + h * len(psfs) / 2
    marks.append(
        f"<text x='{x0 + w * len(thetas) / 2}' y='{height - 4}' text-anchor='middle'>Einstein radius [arcsec]</text>"
    )
    marks.append(
        f"<text transform='translate(13 {middle}) rotate(-90)' text-anchor='middle'>PSF FWHM r [arcsec]</text>"
    )
    return (
        f"<svg width='{width}' height='{height}' font-size='11.5' font-family='system-ui,sans-serif' role='img' "
        f"aria-label='significance by cell'>{''.join(marks)}</svg>"
    )


def _words(r: dict[str, Any]) -> str:
    place = f'theta_E {r["cell_theta_e"]:g}", PSF {r["cell_psf"]:g}", depth {r["cell_depth"]:g}'
    if not r["tested"]:
        return f"{place}: A {r['support_a'] or 'no cell'}, B {r['support_b'] or 'no cell'}"
    return f"{place}: A {_value(r, 'a')}, B {_value(r, 'b')}, z = {r['z']:+.1f}, p (Holm) = {_p(r['p_holm'])}"


def _value(r: dict[str, Any], side: str) -> str:
    c, lo, hi = (r[f"{name}_{side}"] for name in ("completeness", "total_lo68", "total_hi68"))
    return f"{c:.3f} ({lo:.3f} to {hi:.3f})"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def _row(r: dict[str, Any], place: str) -> str:
    return (
        f"<tr{' class=differs' if r['differs'] else ''}>{place}<td>{_value(r, 'a')}</td><td>{r['n_injections_a']:,}</td>"
        f"<td>{r['n_unique_hosts_a']:,}</td><td>{_value(r, 'b')}</td><td>{r['n_injections_b']:,}</td>"
        f"<td>{r['n_unique_hosts_b']:,}</td><td>{100 * r['difference']:+.1f}</td><td>{r['z']:+.1f}</td>"
        f"<td>{_p(r['p_holm'])}</td></tr>"
    )


_HEAD = (
    "<th>A (68 %)</th><th>n</th><th>hosts</th><th>B (68 %)</th><th>n</th><th>hosts</th><th>A &minus; B [points]</th>"
    "<th>sigma</th><th>p (Holm)</th></tr>"
)


def _largest(cells: pl.DataFrame, number: int) -> str:
    rows = cells.filter("tested").sort("p", pl.col("difference").abs(), descending=[False, True]).head(number)
    if not rows.height:
        return "<p>No cell is supported in both.</p>"
    body = "".join(
        _row(r, f"<td>{r['cell_theta_e']:g}</td><td>{r['cell_psf']:g}</td><td>{r['cell_depth']:g}</td>")
        for r in rows.iter_rows(named=True)
    )
    head = "<tr><th>&theta;<sub>E</sub> [&Prime;]</th><th>PSF [&Prime;]</th><th>depth</th>"
    return (
        "<p class='small'>By significance; rows that differ after Holm's allowance are shaded.</p>"
        f"<div class='scroll'><table>{head}{_HEAD}{body}</table></div>"
    )


def _marginals(frame: pl.DataFrame) -> str:
    rows = frame.filter("tested")
    if not rows.height:
        return "<p>The two have no value along an axis in common.</p>"
    order = {"all": 0, "theta_e": 1, "psf": 2, "depth": 3}
    rows = rows.sort(pl.col("axis").replace_strict(order, default=9), "axis_centre")
    names = {"all": "all", "theta_e": "Einstein radius", "psf": "PSF FWHM r", "depth": "depth r"}
    body = "".join(
        _row(r, f"<td class='w'>{names.get(r['axis'], escape(r['axis']))}</td>"
                f"<td>{'' if r['axis_centre'] is None else format(r['axis_centre'], 'g')}</td>")
        for r in rows.iter_rows(named=True)
    )  # fmt: skip
    return (
        "<p class='small'>Each injection counting once, so a difference here may also be one of which cells each release "
        "filled. Not the completeness of a survey.</p>"
        f"<div class='scroll'><table><tr><th class='w'>axis</th><th>at</th>{_HEAD}{body}</table></div>"
    )


def _metadata(found: Comparison) -> str:
    if not found.metadata:
        return "<p>Nothing: detector, priors, grid and thresholds are the same.</p>"
    body = "".join(
        f"<tr><td class='w'>{escape(k)}</td><td class='long'>{escape(a)}</td><td class='long'>{escape(b)}</td></tr>"
        for k, a, b in found.metadata
    )
    same = [k for k in ("detector digest", "priors digest") if found.about[0][k] == found.about[1][k]]
    note = f"<p class='small'>The same in both: {', '.join(same)}.</p>" if same else ""
    head = "<tr><th class='w'>entry</th><th class='w'>A</th><th class='w'>B</th></tr>"
    return f"{note}<div class='scroll'><table>{head}{body}</table></div>"


def answer_line(found: Comparison) -> str:
    """The first sentence of the page as plain text, for a terminal."""
    s = found.summary
    largest = s["largest"] if s["largest"] is not None else math.nan
    return (
        f"{s['cells_differ']} of {s['cells_tested']} tested cells differ (of {s['cells_common']} in common); largest "
        f"difference {100 * largest:.0f} points"
    )
