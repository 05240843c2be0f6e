"""Calibration: no lens fits and judges, none was trained on, and the unseen half agrees better than before."""

import polars as pl

from lens_assets.assets.calibration import prior_calibration
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.calibration.judge import TOGETHER
from lens_assets.science.calibration.lenses import FIT, JUDGE, overlap_of_halves
from lens_assets.science.storage import Artefact


def _apart(artefact: Artefact, workspace: Workspace) -> Outcome:
    lenses = artefact.read("lenses")
    halves = [lenses.filter(pl.col("half") == name) for name in (FIT, JUDGE)]
    shared = overlap_of_halves(*halves)
    problems = [f"{n} {column}s are in both halves" for column, n in shared.items() if n]
    sample = workspace.store().get("splits").read()
    learnt = sample.filter(pl.col("role").is_in(["train", "guard"]))["galaxy_id"].implode()
    trained = lenses.filter(pl.col("galaxy_id").is_in(learnt))
    if trained.height:
        problems.append(
            f"{trained.height} lenses of the calibration trained or guard, for instance {trained['galaxy_id'][0]}"
        )
    return Outcome(problems, {"fit": halves[0].height, "judge": halves[1].height})


def _closer(artefact: Artefact, _: Workspace) -> Outcome:
    whole = artefact.read("judgement").filter(pl.col("observable_name") == TOGETHER)
    problems = [
        f"{r['selection_group']} ({r['n_lenses']} lenses): distance {r['distance_after']:.3f} after, "
        f"{r['distance_before']:.3f} before"
        for r in whole.iter_rows(named=True)
        if r["distance_after"] >= r["distance_before"]
    ]
    return Outcome(problems + list(artefact.facts["warnings"]), {"groups": whole.height})


halves = gate(
    prior_calibration,
    "halves_apart",
    "No galaxy and no system fits and judges; no lens of the calibration is a training or guard object.",
    _apart,
)
closer = gate(
    prior_calibration,
    "closer_to_unseen_lenses",
    "On lenses that took no part, injections of the fitted set are closer than those of the base set; the weights are even enough.",
    _closer,
    blocking=False,
)
