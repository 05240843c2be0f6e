"""The report on the stamps as one page for a browser: what was lost, what gives the classes away, what is there twice.

A single HTML file without outside parts. The numbers are those of ``report.QualityReport``; nothing is computed here but
histograms, and which stamps to show is decided by hashes and by the features, so the same report gives the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.cutouts.features import meaning
from lens_assets.science.cutouts.page_parts import (
    NEGATIVE,
    POSITIVE,
    STYLE,
    histogram,
    interval_graph,
    number,
    stamps,
    table,
    text,
    word,
)
from lens_assets.science.cutouts.report import QualityReport
from lens_assets.science.hashing import seed_of
from lens_assets.science.splits.settings import SPLITS

_SHOWN, _EXTREME, _EXTREME_FEATURES, _PAIRS = 24, 4, 6, 8


def report_page(report: QualityReport, title: str = "Cutouts: quality and shortcuts") -> str:
    """The page as text of an HTML file."""
    facts = report.facts
    known = report.features.filter(pl.col("split").is_in(list(SPLITS)))
    sections = [
        _accounts(report),
        _sources(facts),
        _features(report, known),
        _galleries(report, known),
        _twice(report),
        _method(),
    ]
    links = "".join(
        f'<a href="#{name}">{label}</a>'
        for name, label in (
            ("lost", "Lost"), ("source", "Source"), ("features", "Features"), ("galleries", "Galleries"),
            ("twice", "Duplicates"), ("method", "How it is measured"),
        )
    )  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{text(title)}</h1>"
        f'<p class="dim">What the stamps of a sample say about themselves before any network sees them.</p><nav>{links}</nav>'
        f"{_cards(report)}{''.join(sections)}</body></html>\n"
    )


def _cards(report: QualityReport) -> str:
    facts, twice = report.facts, report.facts["duplicates"]
    noise = facts["noise"]
    across = sum(twice["with_train_or_val"].values())
    cards = [
        (
            f"{facts['stamps']:,}",
            f"stamps: {facts['positives']:,} positives, {facts['stamps'] - facts['positives']:,} negatives",
        ),
        (f"{sum(facts['rejected'].values()):,}", "rejected, each with a reason"),
        (
            f"{len(facts['red'])} red, {len(facts['yellow'])} yellow",
            f"of {report.shortcuts.height} features that separate",
        ),
        (
            number(noise["auc"]),
            f"AUC of the noise alone ({number(noise['lo68'])} to {number(noise['hi68'])}, n {noise['n']:,}): {noise['verdict']}",
        ),
        (f"{across:,}", "pairs of stamps that train or val share with another split"),
    ]
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{b}</b><span>{text(s)}</span></div>' for b, s in cards)
        + "</div>"
    )


def _accounts(report: QualityReport) -> str:
    lost = report.rejected_by_tile
    reasons = sorted(lost["reason"].unique().to_list()) if lost.height else []
    by_tile: dict[str, dict[str, int]] = {}
    for tile, reason, n in lost.select("tile", "reason", "n").iter_rows():
        by_tile.setdefault(tile, {})[reason] = n
    rows, total = [], dict.fromkeys(["asked", "kept", *reasons], 0)
    for tile, asked, kept in report.tiles.select("tile", "asked", "kept").iter_rows():
        counts = {"asked": asked, "kept": kept} | {r: by_tile.get(tile, {}).get(r, 0) for r in reasons}
        rows.append(
            [
                text(tile),
                *(f"{n:,}" for n in counts.values()),
                f"{asked - kept - sum(by_tile.get(tile, {}).values()):,}",
            ]
        )
        total = {name: total[name] + n for name, n in counts.items()}
    other = total["asked"] - total["kept"] - sum(total[r] for r in reasons)
    rows.append(["<b>all</b>", *(f"<b>{n:,}</b>" for n in total.values()), f"<b>{other:,}</b>"])
    head = ["tile", "asked for", "stamps", *reasons, "without a stamp or a reason"]
    classes = [
        [("positives", "negatives")[label == 0], text(reason), f"{n:,}"]
        for label, reason, n in report.rejected.iter_rows()
    ]
    return (
        '<h2 id="lost">What was lost, and why</h2><p>Every object of the sample (the guard ring between splits is never cut) '
        "either has a stamp or a reason. Objects lost from one class only are a shortcut of their own: the second table.</p>"
        + table(head, rows, range(1, len(head)))
        + ("<h3>By class</h3>" + table(["class", "reason", "objects"], classes, [2]) if classes else "")
    )


def _sources(facts: dict[str, Any]) -> str:
    noise = facts["noise"]
    rows = []
    for key, n in facts.get("sources", {}).items():
        label, source = key.split(": ", 1)
        rows.append([("positives", "negatives")[label == "0"], text(source), f"{n:,}"])
    one = len({key.split(": ", 1)[1] for key in facts.get("sources", {})}) < 2
    verdict = (
        "All stamps come from one source." if one else "<b>Stamps come from several sources: not to be trained on.</b>"
    )
    colour = {"pass": "green", "fail": "red"}.get(noise["verdict"], "insufficient")
    return (
        f'<h2 id="source">Source of the pixels</h2><p>{verdict} A brick slice was resampled once, a stamp of the viewer\'s '
        "twice; a network sees the difference at once.</p>"
        + table(["class", "source", "stamps"], rows, [2])
        + "<p>Noise alone (logistic regression on the background's correlation at lags 1 and 2, cross-validated over sky "
        f"cells): AUC <b>{number(noise['auc'])}</b>, 68 % {number(noise['lo68'])} to {number(noise['hi68'])}, "
        f"n {noise['n']:,} ({noise['n_pos']:,} positives) {word(colour)} Rule: {text(noise['rule'])}, {noise['bar']:.2f}.</p>"
    )


def _features(report: QualityReport, known: pl.DataFrame) -> str:
    order = {"red": 0, "yellow": 1, "green": 2, "insufficient": 3}
    rows = sorted(
        report.shortcuts.iter_rows(named=True), key=lambda r: (order[r["colour"]], -(r["auc"] or 0), r["feature"])
    )
    counts = {c: sum(r["colour"] == c for r in rows) for c in order}
    told = ", ".join(f"{n} {word(c)}" for c, n in counts.items() if n)
    loud = [r for r in rows if r["colour"] in ("red", "yellow")]
    quiet = [r for r in rows if r["colour"] not in ("red", "yellow")]
    key = (
        f'<p><span style="color:{POSITIVE}">━</span> positives &nbsp; <span style="color:{NEGATIVE}">━</span> negatives; '
        "each curve has area 1, between the 1st and 99th percentile; long tails on an asinh axis</p>"
    )
    return (
        f'<h2 id="features">Simple features that separate the classes</h2><p>{told}. Each feature alone, positives against '
        "negatives of train, val and test: AUC (0.5 is chance; mirrored when positives lie lower), interval from resampling "
        "whole sky cells. Yellow: the lower 68 % bound exceeds 0.60; red: it exceeds 0.70. A red <i>annulus</i> or "
        "<i>asymmetry</i> is what arcs do; a red <i>core_4</i>, <i>background</i>, <i>edge</i> or <i>noise</i> is a shortcut.</p>"
        + (_feature_table(loud) if loud else "<p>None.</p>")
        + f"<details><summary>The {len(quiet)} others</summary>{_feature_table(quiet)}</details>"
        + "<h3>Distributions</h3>" + key + _distributions(loud or quiet[:12], known)
        + f"<details><summary>The {len(quiet)} others</summary>{_distributions(quiet, known)}</details>"
    )  # fmt: skip


def _feature_table(rows: list[dict[str, Any]]) -> str:
    cells = []
    for r in rows:
        known = r["auc"] is not None and r["lo68"] is not None
        cells.append(
            [
                f"<code>{text(r['feature'])}</code>",
                word(r["colour"]),
                number(r["auc"]),
                f'<span class="nowrap">{number(r["lo68"])} to {number(r["hi68"])}</span>',
                interval_graph(r["auc"], r["lo68"], r["hi68"]) if known else "",
                text(r["direction"] or "–"),
                f"{r['n']:,}",
                f"{r['n_pos']:,}",
                f'<span class="dim">{text(meaning(r["feature"]))}</span>',
            ]
        )
    head = ["feature", "verdict", "AUC", "68 %", "0.5 to 1", "positives", "n", "of them positives", "what it is"]
    return table(head, cells, [2, 6, 7])


def _distributions(rows: list[dict[str, Any]], known: pl.DataFrame) -> str:
    y = known["label"].to_numpy().astype(bool) if known.height else np.empty(0, bool)
    out = ""
    for r in rows:
        values = known[r["feature"]].cast(pl.Float64).fill_null(np.nan).to_numpy() if known.height else np.empty(0)
        auc = f"AUC {number(r['auc'], 2)}, {r['colour']}"
        out += f"<div><code>{text(r['feature'])}</code><br><span class='dim'>{auc}</span>{histogram(values[~y], values[y])}</div>"
    return f'<div class="small">{out}</div>'


def _galleries(report: QualityReport, known: pl.DataFrame) -> str:
    out = '<h2 id="galleries">Galleries</h2><p class="dim">g, r, z as blue, green, red; north up, east left; '
    out += f"{report.stamps.shards[0].shape[-1] * 0.262:.1f} arcsec on a side.</p>" if report.stamps.shards else "</p>"
    for label, name in ((1, "positives"), (0, "negatives")):
        ids = known.filter(pl.col("label") == label)["galaxy_id"].to_list()
        ids = sorted(ids, key=lambda g: seed_of("page", g))[:_SHOWN]
        out += f"<h3>Random {name}</h3>" + _by_id(report, ids, ids)
    pictures, names = [], []
    reason = dict(report.lost.select("galaxy_id", "reason").iter_rows()) if report.lost.height else {}
    for shard in report.stamps.shards:
        for name, image in zip(*shard.refused, strict=True):
            if name in reason:
                pictures.append(image)
                names.append(f"{name}: {reason[name]}")
    out += '<h3>Rejected</h3><p class="dim">A few per tile, as they are; none of them reaches a network.</p>'
    out += stamps(np.stack(pictures[:_SHOWN]) if pictures else np.empty(0, np.float32), names[:_SHOWN])
    out += "<h3>Extremes of the features that separate most</h3>"
    ranked = report.shortcuts.drop_nulls("auc").sort(["auc", "feature"], descending=[True, False])["feature"].to_list()
    seen: set[str] = set()
    shown = 0
    for feature in ranked:
        stem = feature.rsplit("_", 1)[0]
        if stem in seen or shown == _EXTREME_FEATURES:
            continue
        seen.add(stem)
        shown += 1
        part = known.select("galaxy_id", "label", feature).drop_nulls().sort([feature, "galaxy_id"])
        both = pl.concat([part.head(_EXTREME), part.tail(_EXTREME)]).unique("galaxy_id", maintain_order=True)
        captions = [f"{v:.4g} ({'positive' if k else 'negative'}) {g}" for g, k, v in both.iter_rows()]
        out += (
            f"<p><code>{text(feature)}</code>, lowest {_EXTREME} and highest {_EXTREME}: {text(meaning(feature))}</p>"
        )
        out += _by_id(report, both["galaxy_id"].to_list(), captions)
    return out


def _by_id(report: QualityReport, ids: list[str], captions: list[str]) -> str:
    return stamps(report.stamps.images(ids) if ids else np.empty(0, np.float32), captions)


def _twice(report: QualityReport) -> str:
    twice = report.facts["duplicates"]
    words = {
        "identical": "the same bytes under two ids",
        "overlap": "positions closer than a stamp: some pixels are shared",
        "alike": "farther apart by catalogue, yet the same picture",
    }
    rows = [
        [kind, told, *(f"{twice[where][kind]:,}" for where in ("kinds", "across_splits", "with_train_or_val"))]
        for kind, told in words.items()
    ]
    out = '<h2 id="twice">Duplicates</h2>' + table(
        ["kind", "what it is", "pairs", "across any splits", "of them with train or val"], rows, [2, 3, 4]
    )
    measured = twice.get("calibration")
    if measured:
        tried = measured["tried"]
        found = [
            [text(what), f"{n:,} of {tried:,}", f"{n / max(tried, 1):.1%}"] for what, n in measured["found"].items()
        ]
        out += (
            "<p>How good the search for <i>alike</i> is, measured on these stamps. Recognised when moved as another reader "
            "would deliver them:</p>" + table(["the same picture", "found", "share"], found, [1, 2])
            + f"<p>False alarms: of {measured['null_pairs']:,} pairs with one stamp turned by 90 degrees (so that nothing can "
            f"be the same sky) {measured['null_likely']:,} passed the first step and <b>{measured['null_alike']:,}</b> both; "
            f"fewer than {measured['false_alarms_below']:.2g} a pair at 95 %. {twice['not_comparable']:,} stamps are filled by "
            "their object and could not be compared.</p>"
        )  # fmt: skip
    odd = report.duplicates.filter(pl.col("kind") != "overlap")
    far = report.duplicates.filter((pl.col("kind") == "overlap") & (pl.col("first_split") != pl.col("second_split")))
    shown = pl.concat(
        [odd.head(_PAIRS), far.sort("shared", descending=True).head(_PAIRS - min(odd.height, _PAIRS // 2))]
    )
    if shown.height:
        ids, captions = [], []
        for r in shown.iter_rows(named=True):
            for side in ("first", "second"):
                ids.append(r[side])
                captions.append(f"{r['kind']}, {r['separation_arcsec']:.1f}″, {r[f'{side}_split']}: {r[side]}")
        out += "<h3>Pairs to look at</h3><p class='dim'>Identical and alike ones, then overlaps across splits.</p>"
        out += stamps(report.stamps.images(ids), captions, "pairs")
    return out


def _method() -> str:
    return (
        '<h2 id="method">How it is measured</h2><p>Estimators and radii: <code>lens_assets/science/cutouts/features.py</code>; '
        "verdicts: <code>shortcut.py</code>; sources: <code>source.py</code>; duplicates: <code>duplicates.py</code> and "
        "<code>calibration.py</code>. A pixel is valid where its inverse variance is positive and it is finite. A stamp is "
        "rejected when a band is missing, a pixel of the core (r &lt; 8 px) is invalid, more than 2 % of the central 50 x 50 "
        "px are, or its background annulus cannot normalise it.</p>"
    )
