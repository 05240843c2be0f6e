"""What a finished chain found, as text for a terminal: every number with its interval and its n, the verdict first."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from lens_assets.partitions import folder_key, surface_key
from lens_assets.resources.workspace import Workspace
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.storage import Artefact

NONE = "-"


def summary(workspace: Workspace) -> str:
    """The results of the profile's detectors and variants; the closure for the first surface."""
    runs, store = workspace.profile().runs, workspace.store()
    parts = [detector_lines(store.get("evaluation", d), d) for d in runs.detectors]
    for detector in runs.detectors:
        for variant in runs.variants:
            key = folder_key(surface_key(detector, variant))
            parts.append(surface_lines(store.get("completeness_surface", key), store.get("realism", key), key))
    first = folder_key(surface_key(runs.detectors[0], runs.variants[0]))
    parts.append(closure_lines(store.get("closure", first), first))
    parts.append(places(workspace, store.get("completeness_surface", first), store.get("realism", first)))
    return "\n\n".join(parts)


def interval(row: dict[str, object], value: str, prefix: str = "", level: int = 68) -> str:
    """``0.531 [0.510, 0.552]`` of a row, or a dash."""
    v, lo, hi = row[value], row[f"{prefix}lo{level}"], row[f"{prefix}hi{level}"]
    if v is None:
        return NONE
    bounds = f" [{lo:.3f}, {hi:.3f}]" if lo is not None and hi is not None else ""
    return f"{v:.3f}{bounds}"


def detector_lines(evaluation: Artefact, key: str) -> str:
    """AUC and average precision with intervals on each evaluation set."""
    rows = evaluation.read().filter(
        (pl.col("stratum_axis") == "all") & pl.col("metric").is_in(["auc", "average_precision"])
    )
    lines = [f"DETECTOR {key}   (68 % intervals; n = lenses + others)"]
    for r in rows.iter_rows(named=True):
        n = f"n = {r['n_pos']} + {r['n'] - r['n_pos']}"
        lines.append(
            f"  {r['set']:12s} {r['metric']:18s} {interval(r, 'value'):26s} {n}"
            + (f"   {r['why_not']}" if r["why_not"] else "")
        )
    for r in evaluation.read("thresholds").filter(pl.col("refused").is_not_null()).iter_rows(named=True):
        lines.append(f"  threshold {r['name']} refused: {r['refused']}")
    return "\n".join(lines)


def point_text(point: OperatingPoint) -> str:
    """Name of an operating point, its cut, and the negatives it was set on."""
    on = f", set on {point.n_negatives} negatives" if point.n_negatives else ""
    return f"threshold {point.name} (score >= {point.cut:.4f}{on})"


def surface_lines(made: Artefact, realism: Artefact, key: str) -> str:
    """The completeness table of one surface under its verdict."""
    surface = Surface.load(made)
    point = surface.point("default")
    support = surface.meta["support"]
    lines = [
        f"COMPLETENESS {key.replace('+', ' x ')}   {point_text(point)}",
        f"  realism {surface.verdict.title}",
        f"  cells: {support['supported']} supported, {support['insufficient']} insufficient, {support['empty']} empty; "
        f"{surface.members.height} injections on {surface.members['host'].n_unique()} hosts",
        '  theta_E ["]   weighted by the survey        injections pooled             n (hosts)       survey supported',
    ]
    survey = made.read("survey").filter(pl.col("operating_point") == point.name)
    pooled = surface.marginals.filter((pl.col("operating_point") == point.name) & (pl.col("axis") == "theta_e"))
    weighted = {r["axis_centre"]: r for r in survey.iter_rows(named=True)}
    for r in pooled.sort("axis_centre").iter_rows(named=True):
        w = weighted.get(r["axis_centre"])
        share = f"{w['share_supported']:.0%}" if w and w["share_supported"] is not None else NONE
        n = f"{r['n_injections']} ({r['n_unique_hosts']})"
        lines.append(
            f"  {r['axis_centre']:8.2f}      {interval(w, 'completeness', 'total_') if w else NONE:28s}  "
            f"{interval(r, 'completeness', 'total_'):28s}  {n:14s}  {share}"
        )
    if surface.prior is not None:
        whole = surface.marginals.filter((pl.col("operating_point") == point.name) & (pl.col("axis") == "all"))
        r = whole.row(0, named=True)
        lines.append(
            f"  all injections {interval(r, 'completeness', 'total_')}; with the error of the fitted priors "
            f"{interval(r, 'completeness', 'full_')} ({surface.prior.n} draws of the fit, {r['prior_refused'] or 0:.0%} refused)"
        )
    lines.append("  gates: " + "; ".join(_gate(r) for r in realism.read().iter_rows(named=True) if r["gate_blocking"]))
    return "\n".join(lines)


def _gate(r: dict[str, object]) -> str:
    value = NONE if r["gate_value"] is None else f"{r['gate_value']:.3g}"
    n = f"n {r['gate_n_real']}+{r['gate_n_injected']}"
    return f"{r['gate']} {value} (bar {r['gate_bar']:.3g}, {r['gate_status']}, {n})"


def closure_lines(closure: Artefact, key: str) -> str:
    """True against predicted completeness."""
    rows = closure.read().filter(pl.col("closure_level").is_in(["all", "theta_e"])).sort("closure_level", "at_theta_e")
    facts = closure.facts
    verdict = {True: "closes", False: "does NOT close", None: "could not be compared"}[facts["closes"]]
    lines = [
        f"AGAINST THE HIDDEN TRUTH {key.replace('+', ' x ')}: the surface {verdict}",
        '  theta_E ["]   true lenses found             predicted by the surface      found/n     inside 68 %, 95 %',
    ]
    for r in rows.iter_rows(named=True):
        at = "    all " if r["at_theta_e"] is None else f"{r['at_theta_e']:8.2f}"
        n = f"{r['n_true_found']}/{r['n_true_lenses']}"
        inside = (
            NONE if r["inside68"] is None else f"{'yes' if r['inside68'] else 'no'}, {'yes' if r['inside95'] else 'no'}"
        )
        lines.append(
            f"  {at}      {interval(r, 'true_completeness', 'true_'):28s}  "
            f"{interval(r, 'predicted_completeness', 'predicted_'):28s}  {n:10s}  {inside}"
        )
    whole = rows.filter((pl.col("closure_level") == "all") & pl.col("full_inside68").is_not_null())
    for r in whole.iter_rows(named=True):
        inside = ", ".join("yes" if r[f"full_inside{level}"] else "no" for level in (68, 95))
        predicted = interval(r, "predicted_completeness", "predicted_full_")
        lines.append(f"  all, with the error of the fitted priors: {predicted}, inside 68 %, 95 %: {inside}")
    lines.append(
        "  Truth is every mock lens outside training, seen or not; the surface is for its own source priors, and the mock's "
        "lenses\n  come from other models: a difference is a finding, not an error of counting."
    )
    return "\n".join(lines)


def places(workspace: Workspace, surface: Artefact, realism: Artefact) -> str:
    """Where the figures and the release are."""
    figures = sorted([*surface.folder.glob("*.png"), *realism.folder.glob("*.png")])
    releases = sorted(p for p in workspace.product_folder.glob("*") if p.is_dir())
    return "\n".join(
        ["FIGURES", *(f"  {_short(f)}" for f in figures), "RELEASE", *(f"  {_short(p)}" for p in releases)]
    )


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
