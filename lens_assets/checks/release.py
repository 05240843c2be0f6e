"""Release: what is published is what was made. A version that was published with other bytes stays; the new one needs a number."""

from lens_assets.assets.release import release
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.errors import BadInput
from lens_assets.science.release.publish import verify
from lens_assets.science.storage import Artefact


def _published(artefact: Artefact, workspace: Workspace) -> Outcome:
    place = workspace.product_folder / f"{artefact.facts['name']}-{artefact.facts['version']}"
    figures = {"place": str(place), "verdict": artefact.facts["verdict"]}
    if not place.is_dir():
        return Outcome([f"{place} is not there"], figures)
    try:
        verify(place)
    except BadInput as fault:
        return Outcome([f"the published files were changed: {fault}"], figures)
    if (place / "SHA256SUMS").read_bytes() != artefact.file("SHA256SUMS").read_bytes():
        return Outcome(
            [f"{place.name} was published with other content: raise `release_version` in the profile"], figures
        )
    return Outcome([], figures)


published = gate(
    release,
    "published",
    "The published directory is intact and holds what this artefact holds.",
    _published,
    blocking=False,
)
