"""Completeness: physics that a surface must obey, whether the error of its fit is known, and whether it closes on a known sky."""

import polars as pl

from lens_assets.assets.audits import closure
from lens_assets.assets.completeness import completeness_surface
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.storage import Artefact


def _physics(artefact: Artefact, workspace: Workspace) -> Outcome:
    steps = artefact.read("physics")
    wrong = steps.filter(pl.col("violates"))
    problems = [
        f"{r['operating_point']}: completeness falls from {r['completeness_from']:.3f} to {r['completeness_to']:.3f} "
        f"with better {r['check_axis']} ({r['step_from']} to {r['step_to']}), p {r['p_holm']:.1e}"
        for r in wrong.iter_rows(named=True)
    ]
    return Outcome(problems[:20], {"steps": steps.height, "violations": wrong.height})


def _fit_error(artefact: Artefact, workspace: Workspace) -> Outcome:
    cells = artefact.read("cells").filter((pl.col("support") == "supported") & pl.col("prior_refused").is_not_null())
    problems = []
    for level in (68, 95):
        lost = cells.filter(pl.col(f"full_lo{level}").is_null())
        if lost.height > cells.height / 2:
            refused = max(lost["prior_refused"].to_list())
            problems.append(
                f"{lost.height} of {cells.height} supported cells (at all thresholds) have no {level} % bound with the error of "
                f"the fitted priors: up to {refused:.0%} of its draws leave too few effective injections. "
                "More lenses to fit, or more injections a cell"
            )
    return Outcome(problems, {"cells": cells.height})


def _closes(artefact: Artefact, workspace: Workspace) -> Outcome:
    facts = artefact.facts
    compared = {"compared": facts["compared"], "smallest_p_holm": facts.get("smallest_p_holm")}
    if facts["closes"] is None:
        return Outcome(["nothing could be compared: no true lens lies in a supported cell"], {"compared": 0})
    return Outcome([] if facts["closes"] else ["true lenses contradict the surface"], compared)


physics = gate(
    completeness_surface,
    "physics",
    "Completeness does not fall significantly with depth or arc brightness at fixed everything else.",
    _physics,
    blocking=False,
)
fit_error = gate(
    completeness_surface,
    "fit_error_known",
    "Where priors were fitted, most supported cells have an interval with the error of the fit.",
    _fit_error,
    blocking=False,
)
closes = gate(
    closure,
    "closes",
    "The found counts of true lenses lie where the published intervals say.",
    _closes,
    blocking=False,
)
