"""Two detectors side by side as one HTML file: the answer in words, the figure, and the numbers behind both."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lens_assets.science.cutouts.page_parts import STYLE, number, table, text, word
from lens_assets.science.detectors.compare import answer
from lens_assets.science.detectors.compare_figure import differences
from lens_assets.science.detectors.strata import ALL, EVALUATION, HELD_OUT, INDEPENDENT

_HEAD = ("stratum", "metric", "A", "B", "A - B", "95 %", "p", "p, bootstrap", "p, Holm", "lenses", "objects")
_NUMERIC = range(2, len(_HEAD))


def page(found: pl.DataFrame, about: Mapping[str, Mapping[str, Any]]) -> str:
    """The page; ``found`` is ``detector_differences`` of one pair, ``about`` what is to be said of each detector by key
    (``gates`` a colour, the rest words)."""
    a, b = found["detector_a"][0], found["detector_b"][0]
    out = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>{text(a)} against {text(b)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{text(a)} against {text(b)}</h1>",
        f"<p><b>{text(answer(found))}</b></p>",
        table(("", "detector", "gates", "what it is"), list(_about(a, b, about))),
    ]
    there = set(found["set"])
    for name in (n for n in (HELD_OUT, INDEPENDENT, EVALUATION) if n in there):
        part = found.filter(pl.col("set") == name)
        out += [f"<h2>{text(name)}</h2>", _figure(part, name), table(_HEAD, list(_rows(part)), _NUMERIC)]
        missing = part.filter(pl.col("why_not").is_not_null() & (pl.col("metric") == "auc"))
        if missing.height:
            words = "; ".join(
                f"{r['stratum_axis']} {r['stratum']}: {r['why_not']}" for r in missing.iter_rows(named=True)
            )
            out.append(f"<p class='dim'>Not compared: {text(words)}.</p>")
    out += [
        "<h2>How</h2>",
        "<p class='dim'>Both detectors on the same rows. AUC: DeLong's test of a paired difference; average precision: paired "
        "bootstrap; recall at each detector's own threshold of the same name: McNemar's exact test. Each allows for systems that "
        "were matched twice and for bricks whose objects are alike (the larger p stands); intervals hold the percentiles of the "
        "paired bootstrap over systems and over bricks. Holm's adjustment is over the strata of a set, metric and threshold; "
        "the whole set is one test.</p>",
        "</body></html>",
    ]
    return "\n".join(out) + "\n"


def _about(a: str, b: str, about: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    for letter, key in (("A", a), ("B", b)):
        facts = dict(about.get(key, {}))
        colour = str(facts.pop("gates", "insufficient"))
        yield [letter, text(key), word(colour), text("; ".join(f"{k} {v}" for k, v in facts.items()))]


def _rows(part: pl.DataFrame) -> Iterator[list[str]]:
    measured = part.filter(pl.col("metric_difference").is_not_null())
    whole = pl.col("stratum_axis") != ALL
    for r in measured.sort(whole, "stratum_axis", "stratum", "metric", "threshold_name").iter_rows(named=True):
        name = r["metric"] + (f" at {r['threshold_name']}" if r["threshold_name"] else "")
        span = "–" if r["lo95"] is None else f"{r['lo95']:+.4f} to {r['hi95']:+.4f}"
        yield [
            text("all" if r["stratum_axis"] == ALL else f"{r['stratum_axis']} {r['stratum']}"), text(name),
            number(r["value_a"], 4), number(r["value_b"], 4), f"{r['metric_difference']:+.4f}", span,
            _p(r["p_paired"]), _p(r["p_bootstrap"]), _p(r["p_holm"]), str(r["n_pos"]), str(r["n"]),
        ]  # fmt: skip


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _figure(part: pl.DataFrame, name: str) -> str:
    if not part["metric_difference"].drop_nulls().len():
        return "<p class='dim'>Nothing could be compared.</p>"
    stream = io.BytesIO()
    FigureCanvasAgg(differences(part, name)).print_png(stream, metadata={"Software": None})  # type: ignore[no-untyped-call]
    data = base64.b64encode(stream.getvalue()).decode()
    return f"<img alt='differences by stratum' style='max-width:100%' src='data:image/png;base64,{data}'>"
