"""Release: how far the number moves between surfaces, and the citable directory of everything that was measured."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from lens_assets import lookup
from lens_assets.assets.calibration import REWEIGHTING, priors_for
from lens_assets.assets.completeness import of_hosts, types_searched
from lens_assets.assets.injections import variant_of
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, folder_key, surface_key
from lens_assets.resources.workspace import Workspace
from lens_assets.science.completeness import figures
from lens_assets.science.completeness.band_figure import band_figure
from lens_assets.science.completeness.continuous import models_of
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.sensitivity import Sensitivity
from lens_assets.science.completeness.sensitivity import sensitivity as band_of
from lens_assets.science.hashing import canonical
from lens_assets.science.profile import Runs
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
    **renewing("completeness", {"python", "scipy", "matplotlib"}, chosen=True, partial=("completeness_surface",)),
    ins={
        "completeness_surface": dg.AssetIn(partition_mapping=ALL, metadata=_PARTIAL),
        "conditions": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("completeness_band_marginals", "marginals"),
)
def sensitivity(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    completeness_surface: list[Artefact],
    conditions: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """How far completeness moves when the injections, or the detector, are made another way: lowest, median and highest of the
    profile's surfaces per cell and marginal, and paired tests on shared injections (McNemar's and the host-wise one). Of one
    surface alone there is no band, and the tables are empty."""
    runs = workspace.profile().runs
    made_here, primary = of_profile(completeness_surface, runs)
    identity = {
        "code": code_digest(
            "completeness", "clusters.py", "columns/sensitivity.py", "columns/completeness.py", *REWEIGHTING
        ),
        "primary": primary,
        "types": types_searched(workspace),
        **digests(list(made_here.values()), conditions),
    }

    def make(draft: Draft) -> None:
        surfaces = {name: Surface.load(a) for name, a in made_here.items()}
        band = band_of(surfaces, primary, of_hosts(conditions, workspace))
        for name, frame in (("cells", band.cells), ("marginals", band.marginals), ("pairs", band.pairs)):
            draft.table(frame, name)
        main = surfaces[primary]
        figure = band_figure(band, main.point("default").name, main.verdict)
        if figure is not None:
            figures.save(figure, draft.path("sensitivity.png"))
        draft.facts.update(reference=primary, surfaces=len(surfaces), rows=band.marginals.height)

    def metadata(made: Artefact) -> dict[str, object]:
        point = Surface.load(made_here[primary]).point("default").name
        whole = made.read("marginals").filter((pl.col("operating_point") == point) & (pl.col("axis") == "all"))
        pairs = made.read("pairs").filter((pl.col("operating_point") == point) & (pl.col("pair_scope") == "all"))
        return {"band": dg.MetadataValue.md(markdown(whole)), "pairs": dg.MetadataValue.md(markdown(pairs))}

    return stage(context, workspace, identity, make, metadata)


def of_profile(surfaces: Sequence[Artefact], runs: Runs) -> tuple[dict[str, Artefact], str]:
    """The surfaces that the profile asks for, by ``detector|variant``, and the name of the primary one.

    Raises ``FileNotFoundError`` naming those that are not made yet.
    """
    wanted = {folder_key(surface_key(d, v)): f"{d}|{v}" for d in runs.detectors for v in runs.variants}
    found = {wanted[a.partition]: a for a in surfaces if a.partition in wanted}
    missing = sorted(set(wanted.values()) - set(found))
    if missing:
        raise FileNotFoundError(f"surfaces of the profile that are not there yet: {', '.join(missing)}")
    return found, f"{runs.detectors[0]}|{runs.variants[0]}"


@dg.asset(
    **renewing(
        "release",
        {"python", "fits", "parquet"},
        chosen=True,
        partial=("completeness_surface", "realism", "detector", "anchors"),
    ),
    ins={
        "completeness_surface": dg.AssetIn(partition_mapping=ALL, metadata=_PARTIAL),
        "realism": dg.AssetIn(partition_mapping=ALL, metadata=_PARTIAL),
        "detector": dg.AssetIn(partition_mapping=ALL, metadata=_PARTIAL),
        "anchors": dg.AssetIn(partition_mapping=ALL, metadata=_PARTIAL),
        "sensitivity": dg.AssetIn(),
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
    anchors: list[Artefact],
    sensitivity: Artefact,
    conditions: list[Artefact],
    sweeps: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """One directory to cite and to load without this platform: the table as Parquet, FITS and ECSV, model card, realism verdict,
    priors, detector, lineage, figures and the look-up. A published version is never overwritten: other content needs another
    version."""
    profile = workspace.profile()
    runs = profile.runs
    made_here, primary = of_profile(completeness_surface, runs)
    report = next(a for a in realism if a.partition == folder_key(primary))
    frozen, found = (next(a for a in of if a.partition == runs.detectors[0]) for of in (detector, anchors))
    identity = {
        "code": code_digest(
            "release",
            "completeness",
            "columns/release.py",
            "columns/completeness.py",
            "columns/sensitivity.py",
            *REWEIGHTING,
        ),
        "lookup": sha256_file(lookup.__file__),  # a copy of it is in the release
        "runs": runs,
        "types": types_searched(workspace),
        **digests(list(made_here.values()), report, frozen, found, sensitivity, conditions, sweeps),
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
            anchors=found.read(),
            band=Sensitivity(
                sensitivity.read("cells"), sensitivity.read("marginals"), sensitivity.read("pairs"), primary
            ),
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
