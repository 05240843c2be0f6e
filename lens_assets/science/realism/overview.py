"""Realism reports side by side: every detector and variant that has one, and the two-by-two of source and host.

Parametric or real source, random or lens-like host: where the probe's AUC falls along a row, hosts gave the injections
away; where it falls down a column, sources did. Cells without a report stay empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lens_assets.science.cutouts.page_parts import STYLE, number, table, text
from lens_assets.science.injections.variants import Variant

GATES = (
    "feature_probe",
    "feature_frechet",
    "arc_snr",
    "annulus_colour",
    "arc_colour",
    "background_power",
    "blinded_panel",
)
"""The gates of the overview; the reports have all."""
PARAMETRIC = ("sersic", "clumpy", "mixture")
_COLOUR = {"go": "green", "no-go": "red"}


@dataclass(frozen=True)
class Entry:
    """One report (its JSON) of a detector and a variant."""

    detector: str
    variant: Variant
    report: Mapping[str, Any]

    @property
    def source(self) -> str:
        """``parametric``, ``real`` or ``point``."""
        return "parametric" if self.variant.source in PARAMETRIC else str(self.variant.source)

    @property
    def hosts(self) -> str:
        """``random`` or ``lens-like`` (matched by catalogue, or fitted)."""
        return "random" if self.variant.hosts == "random" else "lens-like"

    @property
    def distinct(self) -> str:
        """How many real galaxies were injected, in words; empty for sources that are drawn."""
        found = self.report["facts"].get("sources")
        if not found:
            return ""
        return f"{found['distinct']} distinct source{'' if found['distinct'] == 1 else 's'} (effective {found['effective']:.1f})"

    def gate(self, name: str) -> Mapping[str, Any] | None:
        """One gate; ``None`` where the report has it not."""
        return next((g for g in self.report["gates"] if g["name"] == name), None)


def two_by_two(entries: Sequence[Entry], detector: str) -> dict[tuple[str, str], list[Entry]]:
    """Entries of a detector by (source, hosts); every cell is there, empty or not."""
    cells: dict[tuple[str, str], list[Entry]] = {
        (s, h): [] for s in ("parametric", "real") for h in ("random", "lens-like")
    }
    for entry in entries:
        if entry.detector == detector and (entry.source, entry.hosts) in cells:
            cells[entry.source, entry.hosts].append(entry)
    return {cell: sorted(found, key=lambda e: e.variant.name) for cell, found in cells.items()}


def told(gate: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Value, 95 % interval and n of a gate in a line."""
    if gate is None:
        return "–"
    if gate["status"] == "insufficient":
        return "insufficient"
    span = ""
    if gate["lo95"] is not None and gate["hi95"] is not None:
        span = f" ({number(gate['lo95'], digits)} to {number(gate['hi95'], digits)})"
    return f"{number(gate['value'], digits)}{span}, n {gate['n_real']}/{gate['n_injected']}"


def lines(entries: Sequence[Entry]) -> list[str]:
    """The overview for a terminal: one line a report."""
    return [
        f"{e.detector} {e.variant.name}: {e.report['verdict']}; probe AUC {told(e.gate('feature_probe'))}; "
        f"Frechet {told(e.gate('feature_frechet'), 2)}{'; ' + e.distinct if e.distinct else ''}"
        for e in _sorted(entries)
    ]


def _sorted(entries: Sequence[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda e: (e.detector, e.variant.name))


def overview_page(entries: Sequence[Entry]) -> str:
    """The page as text of one HTML file."""
    rows = []
    for e in _sorted(entries):
        verdict = e.report["verdict"]
        cells = [f"<code>{text(e.detector)}</code>", f"<code>{text(e.variant.name)}</code>"]
        cells += [text(f"{e.variant.source} {e.distinct}".strip()), text(e.variant.hosts), text(e.variant.prior_set)]
        cells.append(f'<span class="word {_COLOUR[verdict]}">{text(verdict)}</span>')
        for name in GATES:
            gate = e.gate(name)
            good = "" if gate is None or gate["passed"] is None else ("✓ " if gate["passed"] else "✗ ")
            cells.append(f'<span class="nowrap">{good}{text(told(gate))}</span>')
        rows.append(cells)
    head = ["detector", "variant", "source", "hosts", "priors", "verdict", *(g.replace("_", " ") for g in GATES)]
    squares = "".join(_square(entries, d) for d in sorted({e.detector for e in entries}))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Realism: all reports</title>'
        f"<style>{STYLE}</style></head><body><h1>Realism: all reports</h1>"
        '<p class="dim">Injections against held-out lenses. Value (95 % interval), n real/injected; ✓ passes, ✗ fails.</p>'
        f"{table(head, rows)}<h2>Source by host</h2><p>AUC of the linear probe (0.5: cannot tell; bar in each report). Falls "
        "along a row: the hosts gave injections away; falls down a column: the sources did.</p>"
        f"{squares}</body></html>\n"
    )


def _square(entries: Sequence[Entry], detector: str) -> str:
    cells = two_by_two(entries, detector)
    rows = []
    for source in ("parametric", "real"):
        row = [f"<b>{source} source</b>"]
        for hosts in ("random", "lens-like"):
            found = cells[source, hosts]
            graphs = "".join(
                f"<div><code>{text(e.variant.name)}</code> {text(e.distinct)}<br>{_graph(e.gate('feature_probe'))}</div>"
                for e in found
            )
            row.append(graphs or '<span class="dim">no report</span>')
        rows.append(row)
    return f"<h3>{text(detector)}</h3>" + table(["", "random hosts", "lens-like hosts"], rows)


def _graph(gate: Mapping[str, Any] | None) -> str:
    """The AUC with its 95 % interval from 0.4 to 1, and the bar."""
    if gate is None or gate["value"] is None:
        return '<span class="dim">insufficient</span>'
    width, height = 260, 22

    def at(value: float) -> float:
        return round((min(max(value, 0.4), 1.0) - 0.4) / 0.6 * (width - 12) + 6, 1)

    lo, hi = (gate["value"] if gate[k] is None else gate[k] for k in ("lo95", "hi95"))
    bar = "" if gate["bar"] is None else (
        f'<line x1="{at(gate["bar"])}" x2="{at(gate["bar"])}" y1="1" y2="{height - 1}" stroke="#b3261e" stroke-dasharray="2 2"/>'
    )  # fmt: skip
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="{text(told(gate))}">'
        f'<line x1="6" x2="{width - 6}" y1="11" y2="11" stroke="#d8dde4"/>'
        f'<line x1="{at(0.5)}" x2="{at(0.5)}" y1="4" y2="18" stroke="#98a2ae"/>{bar}'
        f'<line x1="{at(lo)}" x2="{at(hi)}" y1="11" y2="11" stroke="#1c2430" stroke-width="5" stroke-opacity=".35"/>'
        f'<circle cx="{at(gate["value"])}" cy="11" r="3.2" fill="#1c2430"/></svg><br>'
        f'<span class="dim">{text(told(gate))}</span>'
    )
