"""Splits: nothing is shared between sets, shares are what was asked for, both classes passed one screen, and
catalogue metadata alone cannot tell the classes apart."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

import dagster as dg

from lens_assets.assets.splits import splits
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.profile import Profile
from lens_assets.science.splits import checks
from lens_assets.science.splits.shortcut import metadata_shortcut
from lens_assets.science.storage import Artefact

Judge = Callable[[Artefact, Profile], checks.CheckResult]

_JUDGES: Mapping[str, Judge] = {
    "keys_complete": lambda a, p: checks.keys_complete(a.read()),
    "ids_disjoint": lambda a, p: checks.ids_disjoint(a.read()),
    "cells_disjoint": lambda a, p: checks.cells_disjoint(a.read(), p.splits.nside),
    "train_clear_of_evaluation": lambda a, p: checks.train_clear_of_evaluation(a.read(), p.splits.exclusion_arcsec),
    "splits_apart": lambda a, p: checks.splits_apart(a.read(), p.splits.guard_arcsec),
    "shares_achieved": lambda a, p: checks.shares_achieved(a.read(), p.splits),
    "same_screen": lambda a, p: checks.same_screen(a.read(), load_selection(p.negatives.selection)),
}


def _of(judge: Judge) -> Callable[[Artefact, Workspace], Outcome]:
    def run(artefact: Artefact, workspace: Workspace) -> Outcome:
        found = judge(artefact, workspace.profile())
        return Outcome(
            found.problems[:20], {"problems": len(found.problems), "facts": dg.MetadataValue.json(found.facts)}
        )

    return run


def _metadata_alone(artefact: Artefact, workspace: Workspace) -> Outcome:
    found = metadata_shortcut(artefact.read(), workspace.profile().splits)
    text = f"metadata alone separates the classes: AUC {found.auc:.3f} (68 %: {found.lo68:.3f} to {found.hi68:.3f}, n {found.n})"
    problems = [] if found.verdict == "pass" else [f"{found.verdict}: {text}"]
    return Outcome(problems, {"result": dg.MetadataValue.json(asdict(found))})


def _balance(artefact: Artefact, workspace: Workspace) -> Outcome:
    found = checks.balanced(artefact.read("balance"))
    return Outcome(found.problems[:20], {"facts": dg.MetadataValue.json(found.facts)})


split_checks = [
    gate(splits, name, (getattr(checks, name).__doc__ or name).split("\n\n")[0].replace("\n", " "), _of(judge))
    for name, judge in _JUDGES.items()
]
metadata_alone = gate(
    splits,
    "metadata_alone_tells_nothing",
    "A classifier on TYPE, exposures, PSF, depth, declination and E(B-V) separates the classes with a lower 68 % AUC "
    "bound under 0.60.",
    _metadata_alone,
)
balanced = gate(
    splits,
    "conditions_balanced",
    "PSF, depth and exposures of the splits resemble each other.",
    _balance,
    blocking=False,
)
