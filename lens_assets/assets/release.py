"""Release: the citable directory, with everything that was measured and what it was measured with."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from lens_assets import lookup
from lens_assets.assets.calibration import priors_for
from lens_assets.assets.completeness import of_hosts, types_searched
from lens_assets.assets.injections import variant_of
from lens_assets.assets.stage import digests, of_table, renewing, stage
from lens_assets.partitions import ALL, folder_key, surface_key
from lens_assets.resources.workspace import Workspace
from lens_assets.science.completeness.continuous import models_of
from lens_assets.science.completeness.model import Surface
from lens_assets.science.hashing import canonical
from lens_assets.science.provenance import code_digest
from lens_assets.science.release import lineage, publish, sky, write
from lens_assets.science.storage import Artefact, Draft, sha256_file

_PARTIAL = {"partial": True}


def priors_of(variants: Sequence[str], workspace: Workspace) -> dict[str, Any]:
    """What the injections of the primary variant (the first) were drawn from, and those of the others by name."""
    drawn = {v.name: {"variant": v, "set": priors_for(v, workspace)} for v in map(variant_of, variants)}
    first = drawn.pop(variants[0])
    return canonical({**first, **({"others": drawn} if drawn else {})})  # type: ignore[no-any-return]


@dg.asset(
    **renewing(
        "release", {"python", "fits", "parquet"}, chosen=True, partial=("completeness_surface", "realism", "detector")
    ),
    ins={
        "completeness_surface": dg.AssetIn(partition_mapping=ALL, metadata=_PARTIAL),
        "realism": dg.AssetIn(partition_mapping=ALL, metadata=_PARTIAL),
        "detector": dg.AssetIn(partition_mapping=ALL, metadata=_PARTIAL),
        "conditions": dg.AssetIn(partition_mapping=ALL),
        "sweeps": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("release_surface", "surface*"),
)
def release(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    completeness_surface: list[Artefact],
    realism: list[Artefact],
    detector: list[Artefact],
    conditions: list[Artefact],
    sweeps: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """One directory to cite and to load without this platform: the table as Parquet, FITS and ECSV, model card, realism verdict,
    priors, detector, lineage, figures and the look-up. A published version is never overwritten: other content needs another
    version."""
    profile = workspace.profile()
    runs = profile.runs
    wanted = {folder_key(surface_key(d, v)): f"{d}|{v}" for d in runs.detectors for v in runs.variants}
    made_here = {wanted[a.partition]: a for a in completeness_surface if a.partition in wanted}
    missing = sorted(set(wanted.values()) - set(made_here))
    if missing:
        raise FileNotFoundError(f"surfaces of the profile that are not there yet: {', '.join(missing)}")
    primary = f"{runs.detectors[0]}|{runs.variants[0]}"
    report = next(a for a in realism if wanted.get(a.partition) == primary)
    frozen = next(a for a in detector if a.partition == runs.detectors[0])
    identity = {
        "code": code_digest(
            "release", "completeness", "columns/release.py", "columns/completeness.py", "columns/sensitivity.py"
        ),
        "lookup": sha256_file(lookup.__file__),  # a copy of it is in the release
        "runs": runs,
        "types": types_searched(workspace),
        **digests(list(made_here.values()), report, frozen, conditions, sweeps),
    }

    def make(draft: Draft) -> None:
        surfaces = {name: Surface.load(a) for name, a in made_here.items()}
        columns = ["cell", "psfsize_r", "depth_r"]
        facts = write.write_release(
            draft,
            surfaces,
            name=runs.release,
            version=runs.release_version,
            realism=report.json("report"),
            priors=priors_of(runs.variants, workspace),
            detector=canonical(frozen.json("spec")),
            lineage=canonical(lineage.trace(workspace.store(), *made_here.values())),
            citation=lineage.CITATION,
            primary=primary,
            conditions=of_hosts(conditions, workspace),
            tiles={a.partition: of_hosts([a], workspace) for a in conditions},
            models=models_of(surfaces[primary]),
            sky=sky.sky_of(pl.concat([a.scan().select(columns) for a in sweeps]).collect()),
        )
        draft.facts.update({k: v for k, v in facts.items() if k != "files"})

    def metadata(made: Artefact) -> dict[str, object]:
        try:
            place = publish.publish(made.folder, workspace.product_folder, runs.release_version)
        except publish.ReleaseExistsError as fault:  # the check `published` fails and says what to do
            return {"published": f"no: {fault}", "verdict": made.facts["verdict"]}
        return {"published": dg.MetadataValue.path(str(place)), "verdict": made.facts["verdict"]}

    return stage(context, workspace, identity, make, metadata)
