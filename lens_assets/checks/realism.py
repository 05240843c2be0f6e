"""Realism: go or no-go. A no-go holds back the surface unless the profile records a reason; then the surface says so everywhere."""

from lens_assets.assets.realism import realism
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.storage import Artefact


def _verdict(artefact: Artefact, workspace: Workspace) -> Outcome:
    override = workspace.profile().realism.override
    figures = {"verdict": artefact.facts["verdict"], "override": override.reason if override.allow else "none"}
    if artefact.facts["verdict"] == "go":
        return Outcome([], figures)
    waived = override.reason.strip() if override.allow else None
    return Outcome([f"no-go: {reason}" for reason in artefact.facts["reasons"]], figures, waived)


verdict = gate(
    realism,
    "injections_look_real",
    "Every blocking realism gate passes: the network cannot tell injections from held-out lenses by more than the bar.",
    _verdict,
)
