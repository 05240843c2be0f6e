"""The model card: what the release is, how it was made, how far it may be trusted, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from lens_assets.science.completeness.continuous import Fitted
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.sensitivity import Sensitivity
from lens_assets.science.release.card_priors import prior_error

LIMITS = (
    "It is not a survey precision: nothing here says what share of candidates are lenses.",
    "It is not a statement that any list of lenses is complete.",
    "It does not carry to cosmology by itself: the population of lenses is an input, not a result.",
    "It holds for this detector, at these thresholds, on images prepared as its specification says, and for no other.",
    "It holds for sources drawn from the stated priors; other priors give another surface.",
)


def model_card(
    surface: Surface,
    *,
    name: str,
    version: str,
    primary: str,
    surfaces: Mapping[str, Surface],
    detector: Mapping[str, Any],
    digests: Mapping[str, str],
    realism: Mapping[str, Any] | None,
    survey: pl.DataFrame | None,
    band: Sensitivity | None = None,
    models: Mapping[str, Fitted] | None = None,
    anchors: pl.DataFrame | None = None,
) -> str:
    """MODEL_CARD.md as text; every number in it comes from the surface."""
    verdict, meta = surface.verdict, surface.meta
    point = surface.point("default")
    grid = surface.grid
    out = [f"# {name} {version}", "", f"**{verdict.title}**", ""]
    if not verdict.go:
        out += [
            "The injections behind this surface did not pass, or did not take, the realism gates. The numbers are what",
            "was measured; whether real lenses are found at the same rate has not been shown.",
            "",
        ]
    out += [
        "## What it is",
        "",
        "The probability that a strong lens of a given Einstein radius, under given seeing and depth, scores at or",
        f"above a threshold of the detector, measured by injection and recovery. Surface: `{primary}`"
        + (f", one of {len(surfaces)}" if len(surfaces) > 1 else "")
        + ".",
        "",
        "## Detector",
        "",
        *_listing(detector),
        f"- digest: `{digests['detector']}`",
        "",
        "## Operating points",
        "",
        "| name | cut | 68 % of the cut | false-positive rate | negatives |",
        "|---|---|---|---|---|",
    ]
    for p in surface.points:
        span = f"{p.lo68:.6g} to {p.hi68:.6g}" if p.has_error else "fixed"
        rate = "" if p.fpr_target is None else f"{p.fpr_target:g}"
        mark = " (default)" if p.name == point.name else ""
        out.append(f"| {p.name}{mark} | {p.cut:.6g} | {span} | {rate} | {p.n_negatives or ''} |")
    for refused, reason in meta["refused"].items():
        out.append(f"| {refused} | refused | {reason} | | |")
    out += ["", "## Grid and support", "", "| axis | cells | range | width |", "|---|---|---|---|"]
    for axis in grid.axes:
        out.append(
            f"| {axis.meaning} | {len(axis)} | {axis.edges[0]:g} to {axis.edges[-1]:g} {axis.unit} "
            f"| {2 * axis.half:g} |"
        )
    support = meta["support"]
    least = surface.settings.min_per_cell
    out += [
        "",
        f"{grid.size} cells: {support['supported']} supported (at least {least} injections), {support['insufficient']} "
        f"insufficient, {support['empty']} empty. {meta['injections_used']:,} injections into "
        f"{surface.members['host'].n_unique():,} hosts; left out: "
        + (", ".join(f"{n:,} ({why})" for why, n in meta["rejected"].items()) or "none")
        + ".",
        "",
        "## Completeness against Einstein radius",
        "",
    ]
    out += _curve(surface, point.name, survey)
    out += prior_error(surface, point.name)
    out += _anchors(anchors, point.name) + _sensitivity(band, point.name) + _models(models)
    falls = surface.violations.height
    out += [
        "",
        "## Intervals",
        "",
        f"- `binomial_*`: {meta['intervals']['binomial']}, hosts taken as independent",
        f"- `host_*`: {meta['intervals']['host']}",
        f"- `total_*` (what the look-up gives): {point.total_name(meta['intervals']['host'])}",
        *(
            [
                "- `prior_*`: completeness over the draws of the fit of the priors; `full_*`: `total_*` and that, in quadrature"
            ]
            if surface.prior
            else [
                "- `prior_*` and `full_*` are empty: these priors were not fitted to lenses, and what their error adds is not known"
            ]
        ),
        "",
        "## Checks",
        "",
        f"- Steps towards deeper data or brighter arcs: {surface.physics.height:,} tested, {falls} with a significant "
        f"fall (family-wise error {surface.settings.family_error:g}); see the physics table.",
        f"- Realism: {verdict.title}. The full report is REALISM.json."
        + ("" if realism else " It holds no measurement."),
        "",
        "## What it must not be used for",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
        "## Use",
        "",
        "```python",
        "from lookup import load  # the file beside this one; it needs numpy and pyarrow",
        'f = load(".")',
        f"f.completeness(theta_e=1.5, psf={grid.psf.centres[len(grid.psf) // 2]:g}, "
        f"depth={grid.depth.centres[len(grid.depth) // 2]:g})",
        "```",
        "",
        f"Priors digest: `{digests['priors']}`. Lineage: LINEAGE.json. Citation: CITATION.cff. Checksums: SHA256SUMS.",
        "",
    ]
    return "\n".join(out)


def _listing(values: Mapping[str, Any]) -> list[str]:
    """The plain entries of a specification; nested ones are in DETECTOR.json."""
    plain = {k: v for k, v in values.items() if isinstance(v, (str, int, float, bool))}
    return [f"- {k}: {v}" for k, v in sorted(plain.items())] + ["- full specification: DETECTOR.json"]


def _anchors(anchors: pl.DataFrame | None, point: str) -> list[str]:
    """Recall on real lenses, and its two factors."""
    rows = [] if anchors is None else anchors.filter(pl.col("operating_point") == point).to_dicts()
    if not rows:
        return []
    gate = rows[0]
    out = [
        "",
        "## Recall on real lenses, in two factors",
        "",
        f"At `{point}`, on lenses the detector did not learn from. Observable: the detectability gate sees an arc; it says so of "
        f"{gate['gate_false_alarm']:.3f} [{gate['gate_false_alarm_lo95']:.3f}, {gate['gate_false_alarm_hi95']:.3f}] (95 %) of "
        f"{gate['n_gate_randoms']:,} random galaxies. Intervals are 68 %, Wilson.",
        "",
        "| set | tiers | observable | found, of the observable | found | found, not observable |",
        "|---|---|---|---|---|---|",
    ]

    def cell(r: Mapping[str, Any], stem: str, k: str, n: str) -> str:
        if r[stem] is None:
            return "none"
        return f"{r[stem]:.3f} [{r[f'{stem}_lo68']:.3f}, {r[f'{stem}_hi68']:.3f}] ({r[k]}/{r[n]})"

    for r in rows:
        out.append(
            f"| {r['anchor_set']} | {r['anchor_tiers']} | {cell(r, 'observable_recall', 'n_anchors_observable', 'n_anchors')} | "
            f"{cell(r, 'conditional_recall', 'n_anchors_found_observable', 'n_anchors_observable')} | "
            f"{cell(r, 'anchor_recall', 'n_anchors_found', 'n_anchors')} | {r['n_anchors_found_unobservable']} |"
        )
    return out


def _sensitivity(band: Sensitivity | None, point: str) -> list[str]:
    """How far the number moves from surface to surface, and which pairs differ."""
    if band is None or not band.pairs.height:
        return []
    whole = band.marginals.filter(
        (pl.col("operating_point") == point) & (pl.col("axis") == "all") & (pl.col("band_family") == "all")
    )
    pairs = band.pairs.filter((pl.col("operating_point") == point) & (pl.col("pair_scope") == "all"))
    tested = pairs.filter(pl.col("n_pairs") > 0)
    out = ["", "## Sensitivity", ""]
    for r in whole.iter_rows(named=True):
        if r["band_lowest"] is not None:
            out.append(
                f"Over {r['n_surfaces']} surfaces ({r['weighting']}): {r['band_lowest']:.3f} (`{r['lowest_surface']}`) to "
                f"{r['band_highest']:.3f} (`{r['highest_surface']}`), median {r['band_median']:.3f}. Part of the range is noise."
            )
    out += [
        "",
        f"Paired on shared injections: {tested.height} of {pairs.height} pairs have some, {tested['differs'].sum()} differ "
        "(McNemar and host-wise sign-flip, both exact, after Holm).",
        "",
        "| pair | injections | difference | 68 % | p (host, Holm) |",
        "|---|---|---|---|---|",
    ]
    for r in tested.sort("p_host_holm", "surface_a", "surface_b").iter_rows(named=True):
        out.append(
            f"| {r['surface_a'].replace('|', ' / ')} - {r['surface_b'].replace('|', ' / ')} | {r['n_pairs']} | "
            f"{r['paired_difference']:+.4f} | {r['paired_lo68']:+.4f} to {r['paired_hi68']:+.4f} | {r['p_host_holm']:.2g} |"
        )
    return out


def _models(models: Mapping[str, Fitted] | None) -> list[str]:
    if not models:
        return []
    out = [
        "",
        "## Continuous model",
        "",
        "Beside the table, for supported cells alone: `f.completeness(..., model=True)`. Details: MODEL.json.",
        "",
        "| operating point | cells | misfit, p | effective parameters | table's 68 % holds it | 95 % | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, fitted in sorted(models.items()):
        a = fitted.agreement
        out.append(
            f"| {name} | {a['n_cells']} | {a['misfit']:.1f}, {a['p_misfit']:.2g} | {a['edf']:.1f} | {a['inside68']:.2f} | "
            f"{a['inside95']:.2f} | {'refused' if a['refused'] else 'published'} |"
        )
    for name, fitted in sorted(models.items()):
        if fitted.agreement["refused"]:
            out += ["", f"At {name} the model is refused: {fitted.agreement['refused']}. Take the table: either the shape that "
                    "is imposed is wrong, or the hosts of one condition are unlike those of the next."]  # fmt: skip
    return out


def _curve(surface: Surface, point: str, survey: pl.DataFrame | None) -> list[str]:
    frame = surface.marginals.filter(pl.col("axis") == "theta_e") if survey is None else survey
    frame = frame.filter(pl.col("operating_point") == point).sort("i_axis")
    fitted = surface.prior is not None
    more = " with the fit's error, 68 % | 95 % |" if fitted else ""
    out = [
        f"At `{point}`, weighting: {frame['weighting'][0]}. The value is for the supported share of the weight alone.",
        "",
        f"| theta_E [arcsec] | completeness | 68 % | 95 % |{more} injections | supported share |",
        "|---|---|---|---|---|---|" + ("---|---|" if fitted else ""),
    ]

    def span(r: Mapping[str, Any], kind: str, level: int) -> str:
        lo, hi = r[f"{kind}_lo{level}"], r[f"{kind}_hi{level}"]
        return "not known" if lo is None or hi is None else f"{lo:.3f} to {hi:.3f}"

    for r in frame.iter_rows(named=True):
        kinds = ("total", "full") if fitted else ("total",)
        if r["completeness"] is None:
            cells = ["none", *[""] * (2 * len(kinds))]
        else:
            cells = [f"{r['completeness']:.3f}", *(span(r, kind, level) for kind in kinds for level in (68, 95))]
        share = r["share_supported"] or 0
        out.append(f"| {r['axis_centre']:g} | {' | '.join(cells)} | {r['n_injections']} | {share:.3f} |")
    return out
