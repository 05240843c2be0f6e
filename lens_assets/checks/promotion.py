"""Promotion: no shortcut gate of a detector is red, and there is a champion."""

from lens_assets.assets.promotion import detector_comparison, detector_gates
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.detectors.promotion import BARRED
from lens_assets.science.storage import Artefact


def _red(artefact: Artefact, workspace: Workspace) -> Outcome:
    colour = artefact.facts["colour"]
    told = list(artefact.facts["problems"])
    return Outcome(told if colour in BARRED else [], {"colour": colour, "told": "; ".join(told) or "nothing"})


def _block(artefact: Artefact, workspace: Workspace) -> Outcome:
    found = _red(artefact, workspace)
    if workspace.profile().detectors.gates.block:
        return found
    return Outcome([], {**found.figures, "gates.block": "false in this profile: red forbids promotion, not the chain"})


def _champion(artefact: Artefact, workspace: Workspace) -> Outcome:
    standing = artefact.read()
    reasons = dict(standing.select("detector", "standing_reason").iter_rows())
    figures = {"champion": artefact.facts["champion"] or "none", "detectors": standing.height}
    return Outcome([] if artefact.facts["champion"] else [f"{k}: {v}" for k, v in sorted(reasons.items())], figures)


no_red_gate = gate(
    detector_gates,
    "no_red_gate",
    "No gate that decides is red or without a result: core, profile outside the arcs, metadata, annulus, adversarial stamps.",
    _red,
    blocking=False,
)
gates_let_the_chain_go_on = gate(
    detector_gates,
    "gates_let_the_chain_go_on",
    "Where the profile says so (`detectors.gates.block`), red gates stop the chain.",
    _block,
)
a_champion = gate(
    detector_comparison,
    "there_is_a_champion",
    "A detector without red gates is the champion of the profile.",
    _champion,
    blocking=False,
)
