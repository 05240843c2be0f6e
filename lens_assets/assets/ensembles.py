"""Detectors, made of networks: one by itself, or an ensemble."""

import dagster as dg
import polars as pl
import polars.selectors as cs

from lens_assets.assets.detectors import ENSEMBLES, GPU, GROUP, SCORING, stamps_of, usable
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, DETECTOR, SAME
from lens_assets.resources.workspace import Workspace
from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.detectors import calibration, ensemble_make, members
from lens_assets.science.detectors.ensembles import Composition, Ensemble, composition
from lens_assets.science.hashing import digest
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft

COLUMNS = ("galaxy_id", "role", "label", "ra", "dec", "stamp_digest")
MAKING = ("detectors/ensemble_disk.py", "detectors/ensemble_fit.py", "detectors/ensemble_make.py",
    "detectors/ensemble_maps.py")  # fmt: skip

compositions = dg.AssetSpec(
    "compositions",
    description="What each detector is made of: one network by itself, or the members and the combiner of an ensemble, one YAML "
    "file each.",
    group_name=GROUP,
    kinds={"yaml", "external"},
    owners=["team:lens-assets"],
    partitions_def=DETECTOR,
)


def members_of(made_of: Composition, networks: list[Artefact]) -> dict[str, Artefact]:
    """The networks of a detector by key, in its order; an error that says which are not there yet."""
    there = {a.partition: a for a in networks}
    if absent := [key for key in made_of.members if key not in there]:
        raise FileNotFoundError(f"network: materialise these partitions first: {', '.join(absent)}")
    return {key: there[key] for key in made_of.members}


@dg.asset(
    **renewing(GROUP, {"python", "pytorch"}, pool=GPU, chosen=True, partial=("network",)),
    partitions_def=DETECTOR,
    deps=[dg.AssetDep(compositions, partition_mapping=SAME)],
    ins={
        "network": dg.AssetIn(partition_mapping=ALL, metadata={"partial": True}),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "cutouts": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("detector_members", members.MEMBERS_FILE),
)
def detector(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    network: list[Artefact],
    splits: Artefact,
    cutouts: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """What is scored, evaluated and measured, frozen and whole in itself: a network as it was trained, or an ensemble with
    copies of its members, its rule fitted on the role `calibrate`. It hangs on its own members and on the rows it is
    fitted on: another network or a change elsewhere in the sample does not change it."""
    made_of = composition(context.partition_key)
    parts = members_of(made_of, network)
    if made_of.ensemble is None:
        return single(context, workspace, made_of, parts[made_of.key])
    return combined(context, workspace, made_of.ensemble, parts, splits, stamps_of(cutouts))


def single(
    context: dg.AssetExecutionContext, workspace: Workspace, made_of: Composition, network: Artefact
) -> dg.MaterializeResult[Artefact]:
    """The detector that is one network by itself."""
    identity = {"code": code_digest("detectors/members.py"), "made_of": made_of.digest, **digests(network)}

    def make(draft: Draft) -> None:
        draft.table(members.pass_through(network.folder, network.digest, draft.folder), members.MEMBERS_FILE)
        draft.facts.update({**network.facts, "rows": 1, "members": [made_of.key]})

    return stage(context, workspace, identity, make)


def combined(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    ensemble: Ensemble,
    parts: dict[str, Artefact],
    splits: Artefact,
    stamps: ShardSet,
) -> dg.MaterializeResult[Artefact]:
    """The detector that is an ensemble."""
    profile, sample = workspace.profile(), usable(splits, stamps)
    rows = ensemble_make.needed(ensemble, sample)
    log_odds = calibration.log_odds(sample.filter(pl.col("role") == "train")["label"].to_numpy())
    told = rows.select(cs.exclude(cs.nested())) if ensemble.combiner.kind == "routed" else rows.select(COLUMNS)
    identity = {
        "code": code_digest(*SCORING, *ENSEMBLES, *MAKING),
        "made_of": ensemble.digest,
        "folds": [profile.detectors.seed, profile.splits.role_nside],
        **({} if ensemble.combiner.kind == "mean" else {"log_odds": log_odds}),
        "rows": digest(told.rows()),
        **digests([*parts.values()]),
    }

    def make(draft: Draft) -> None:
        networks = {
            key: ensemble_make.Network(a.digest, a.folder, a.read(members.ROWS_FILE)["galaxy_id"].to_list())
            for key, a in parts.items()
        }
        made = ensemble_make.make(
            draft.folder,
            ensemble,
            networks,
            rows,
            stamps,
            profile.detectors,
            log_odds=log_odds,
            nside=profile.splits.role_nside,
        )
        draft.table(made.members, members.MEMBERS_FILE)
        if made.fitted is not None:
            draft.table(made.fitted, "fit")
        draft.facts.update({"rows": made.members.height, "members": [*parts], **made.facts})

    def metadata(made: Artefact) -> dict[str, dg.MetadataValue]:
        return {"members": dg.MetadataValue.md(markdown(made.read(members.MEMBERS_FILE)))}

    return stage(context, workspace, identity, make, metadata)
