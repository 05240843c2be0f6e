"""The priors as tables of a paper, from the sets that the code reads: Markdown and LaTeX (booktabs).

``python -m lens_assets.science.injections.tables`` prints the page ``docs/priors.md``; a test holds the page to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from lens_assets.science.injections.colours import ColourTable, Spectra
from lens_assets.science.injections.distributions import describe
from lens_assets.science.injections.priors import AroundHost, Clumps, PriorSet, load_priors
from lens_assets.science.injections.variants import load_variants

_ROWS = (
    ("r_mag", "source r (unlensed)", "AB mag"), ("g_r", "source g - r", "mag"), ("r_z", "source r - z", "mag"),
    ("colour_correlation", "correlation of the colours", ""),
    ("re", "source half-light radius", "arcsec"), ("sersic_n", "source Sersic index", ""),
    ("source_q", "source axis ratio", ""),
    ("beta", "source offset / theta_E", ""), ("lens_q", "lens axis ratio", ""), ("slope", "lens slope (variants epl)", ""),
    ("shear", "shear, per component", ""), ("jitter", "centre jitter, per axis", "arcsec"),
    ("clumps", "clumps (family clumpy)", ""), ("families", "families (variants mixture)", ""),
    ("spectra", "spectra (variants with colours by spectra)", ""), ("table", "table (variants with colours by table)", ""),
)  # fmt: skip


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:g}"
        case dict():
            return ", ".join(f"{name} {share:g}" for name, share in value.items())
        case Spectra() | ColourTable():
            return str(value)
        case AroundHost(sigma_q=sq, sigma_phi=sp, lo=lo, hi=hi):
            return f"host + N(0, {sq:g}) in [{lo:g}, {hi:g}]; angle host + N(0, {sp:g} deg)"
        case Clumps(number=number, fraction=fraction, radius=radius):
            return f"{number[0]}-{number[1]} clumps, share {describe(fraction)}, radius/Re {describe(radius)}"
        case _:
            return describe(value)  # type: ignore[arg-type]


def _cells(sets: Sequence[PriorSet]) -> list[list[str]]:
    rows = [[label, unit, *(_text(getattr(s, name)) for s in sets)] for name, label, unit in _ROWS]
    return [*(row for row in rows if any(row[2:])), ["digest", "", *(s.digest[:12] for s in sets)]]


def _latex(text: str) -> str:
    for old, new in (("_", r"\_"), ("%", r"\%"), ("theta\\_E", r"$\theta_\mathrm{E}$"), ("^2", "$^2$")):
        text = text.replace(old, new)
    return text


def paper_table(form: Literal["markdown", "latex"] = "markdown", sets: Sequence[PriorSet] | None = None) -> str:
    """The priors of ``sets`` (all shipped ones by default), one column a set."""
    sets = list(load_priors().values()) if sets is None else list(sets)
    head, cells = ["quantity", "unit", *(s.name for s in sets)], _cells(sets)
    if form == "markdown":
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells]) + "\n"
    body = [" & ".join(map(_latex, row)) + r" \\" for row in cells]
    width = r"p{0.3\textwidth}"
    lines = [
        rf"\begin{{tabular}}{{ll{width * len(sets)}}}",
        r"\toprule",
        " & ".join(map(_latex, head)) + r" \\",
        r"\midrule",
    ]
    return "\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def variant_table() -> str:
    """All shipped variants as a Markdown table."""
    lines = ["| variant | source | lens | colours | priors | PSF | noise | hosts | paired with | |", "|---" * 10 + "|"]
    for v in load_variants().values():
        psf = v.psf.kind + (f" {v.psf.beta:g}" if v.psf.kind == "moffat" else "")
        cells = (
            v.name,
            v.source,
            v.lens,
            v.colours,
            v.prior_set,
            psf,
            v.noise,
            v.hosts,
            v.paired_with or "",
            v.summary,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page ``docs/priors.md``."""
    references = "\n".join(f"- `{s.name}`: {s.reference}" for s in load_priors().values())
    return (
        "# Priors and variants\n"
        "Generated from `lens_assets/config/injections` (`lens-assets priors --page`); a test fails when it is out of date. The "
        "same table for a paper: `lens-assets priors --format latex`. What the quantities mean: [injections](injections.md).\n\n"
        "Magnitudes are unlensed, observed frame, AB. N: normal, U: uniform; `[a, b]` are truncations.\n\n"
        f"{paper_table()}\n{references}\n- `calibrated`: not shipped; fitted to held-out real lenses, and loaded from that fit.\n\n"
        f"## Variants\n{variant_table()}"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
