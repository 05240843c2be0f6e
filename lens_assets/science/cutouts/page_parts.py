"""Pieces of the report page: text that cannot break the page, tables, small graphs as SVG, stamps as PNG inside it.

Nothing here knows what the report is about (``page``). No script, no outside file: a page that is mailed is whole.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from lens_assets.science.cutouts.figures import rgb

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
POSITIVE, NEGATIVE = "#c8501e", "#3b6aa0"
"""Told apart by lightness as well, and always named in words."""
STYLE = """
:root{--ink:#1c2430;--dim:#5b6675;--line:#d8dde4;--ground:#fff;--panel:#f5f7f9}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:24px 20px 64px;color:var(--ink);background:var(--ground);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:26px;margin:0 0 4px}h2{font-size:20px;margin:40px 0 8px;border-bottom:2px solid var(--line);padding-bottom:4px}
h3{font-size:16px;margin:20px 0 6px}p{max-width:78ch;margin:6px 0}.dim{color:var(--dim)}
nav{display:flex;flex-wrap:wrap;gap:2px 14px}a{color:#1f5fa8}
table{border-collapse:collapse;margin:8px 0;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px 3px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:middle}
th{font-weight:600;color:var(--dim);font-size:13px}td.n,th.n{text-align:right}
.scroll{overflow-x:auto}
.word{display:inline-block;min-width:62px;padding:0 7px;border-radius:9px;font-size:13px;font-weight:600;text-align:center}
.green{background:#dcefe0;color:#1d5a2b}.yellow{background:#fbeec2;color:#6b4e00}.red{background:#f8d9d6;color:#8e1b13}
.insufficient{background:#e6e8eb;color:#444c56}
.cards{display:flex;flex-wrap:wrap;gap:10px;margin:12px 0}
.card{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:8px 14px;flex:1 1 150px}
.card b{display:block;font-size:20px}.card span{color:var(--dim);font-size:13px}
.stamps{display:flex;flex-wrap:wrap;gap:8px;margin:8px 0}
figure{margin:0;width:110px}figure img{width:110px;height:110px;image-rendering:pixelated;display:block;background:#000}
figcaption{font-size:11px;line-height:1.25;color:var(--dim);overflow-wrap:anywhere}
.pair{display:flex;gap:8px;margin-right:12px}.nowrap{white-space:nowrap}code{overflow-wrap:anywhere;font-size:13px}
td code{white-space:nowrap}
.small{display:flex;flex-wrap:wrap;gap:6px 10px}.small div{width:182px;font-size:12px}
.small svg{display:block}.ends{display:flex;justify-content:space-between;color:var(--dim)}
summary{cursor:pointer;color:#1f5fa8;margin:8px 0}
@media (max-width:600px){body{padding:16px 12px}figure{width:88px}figure img{width:88px;height:88px}}
"""


def text(value: object) -> str:
    """Anything as text of a page."""
    return html.escape(str(value))


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def word(colour: str) -> str:
    """A verdict: the word in its colour."""
    return f'<span class="word {text(colour)}">{text(colour)}</span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; columns ``numeric`` are set right."""
    kind = ['class="n"' if k in set(numeric) else "" for k in range(len(head))]
    top = "".join(f"<th {kind[k]}>{text(name)}</th>" for k, name in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td {kind[k]}>{cell}</td>" for k, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def interval_graph(auc: float, low: float, high: float, bars: Sequence[float] = (0.6, 0.7)) -> str:
    """An AUC with its 68 % interval on a scale from 0.5 to 1, with the two bars."""
    width, height = 150, 18

    def at(value: float) -> float:
        return round((min(max(value, 0.5), 1.0) - 0.5) * 2 * (width - 10) + 5, 1)

    ticks = "".join(
        f'<line x1="{at(b)}" x2="{at(b)}" y1="1" y2="{height - 1}" stroke="{c}" stroke-dasharray="2 2"/>'
        for b, c in zip(bars, ("#b98a00", "#b3261e"), strict=True)
    )
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="{auc:.3f}, {low:.3f} to {high:.3f}">'
        f'<line x1="5" x2="{width - 5}" y1="9" y2="9" stroke="#d8dde4"/>{ticks}'
        f'<line x1="{at(low)}" x2="{at(high)}" y1="9" y2="9" stroke="#1c2430" stroke-width="5" stroke-opacity=".35"/>'
        f'<circle cx="{at(auc)}" cy="9" r="2.6" fill="#1c2430"/></svg>'
    )


def histogram(negatives: F64, positives: F64, bins: int = 28) -> str:
    """Both classes' distributions, each of area 1, between the 1st and 99th percentile of all; what lies beyond is in
    the outer bins. A long tail is shown on an asinh axis (linear within one MAD of the median), and says so."""
    width, height = 180, 64
    every = np.concatenate([negatives, positives])
    every = every[np.isfinite(every)]
    if not every.size:
        return '<p class="dim">no values</p>'
    low, middle, high = np.percentile(every, (1, 50, 99))
    scale = float(np.median(np.abs(every - middle)))
    long = scale > 0 and max(high - middle, middle - low) > 12 * scale

    def axis_of(values: F64) -> F64:
        return np.asarray(np.arcsinh((values - middle) / scale) if long else values)

    first, last = axis_of(np.array([low, high]))
    edges = np.linspace(first, last if last > first else first + 1, bins + 1)
    curves, top = [], 0.0
    for values, colour in ((negatives, NEGATIVE), (positives, POSITIVE)):
        inside = np.clip(axis_of(values[np.isfinite(values)]), edges[0], edges[-1])
        share = np.histogram(inside, edges)[0] / max(len(inside), 1)
        top = max(top, float(share.max(initial=0)))
        curves.append((share, colour))
    paths = ""
    for share, colour in curves:
        x = np.repeat(np.linspace(1, width - 1, bins + 1), 2)[1:-1]
        y = np.repeat(height - 3 - share / (top or 1) * (height - 8), 2)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        paths += f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
    axis = f'<line x1="1" x2="{width - 1}" y1="{height - 2}" y2="{height - 2}" stroke="#98a2ae"/>'
    note = "<span>asinh</span>" if long else ""
    ends = f'<div class="ends"><span>{low:.3g}</span>{note}<span>{high:.3g}</span></div>'
    return f'<svg width="{width}" height="{height}">{axis}{paths}</svg>{ends}'


def picture(stamp: F32) -> str:
    """A stamp (3, h, w) in colours as an image inside the page; north up."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb(stamp)[::-1])).save(stream, "PNG", optimize=True)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def stamps(images: F32, captions: Sequence[str], kind: str = "") -> str:
    """A row of stamps with captions (text). ``kind`` "pairs": two and two."""
    if not len(images):
        return '<p class="dim">none</p>'
    cells = [
        f"<figure>{picture(image)}<figcaption>{text(caption)}</figcaption></figure>"
        for image, caption in zip(images, captions, strict=True)
    ]
    if kind == "pairs":  # the two never part at the end of a line
        cells = [f'<div class="pair">{"".join(cells[i : i + 2])}</div>' for i in range(0, len(cells), 2)]
    return f'<div class="stamps {kind}">{"".join(cells)}</div>'
