"""Networks (one partition a recipe and seed), and the scores and the evaluation of every detector made of them."""

import dagster as dg
import polars as pl

from lens_assets.assets.logbook import of_detector, tracked
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL, DETECTOR, NETWORK, SAME
from lens_assets.resources.workspace import Workspace
from lens_assets.science.columns.detectors import SCORES
from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.detectors import (
    checkpoint,
    effective,
    ensemble_report,
    evaluate,
    figures,
    logged,
    members,
    networks,
    score,
    train,
)
from lens_assets.science.detectors.ensemble_score import EnsembleScorer, score_members
from lens_assets.science.detectors.recipes import Recipe, parse_detector
from lens_assets.science.detectors.strata import ALL as WHOLE
from lens_assets.science.hashing import digest
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft

GROUP = "detectors"
GPU = "gpu"
SCORING = ("detectors/score.py", *networks.SOURCES, "cutouts/normalise.py", "cutouts/settings.py")
ENSEMBLES = ("detectors/ensemble_combine.py", "detectors/ensemble_score.py")

recipes = dg.AssetSpec(
    "recipes",
    description="The training recipes: one YAML file each; a network is a recipe and a seed.",
    group_name=GROUP,
    kinds={"yaml", "external"},
    owners=["team:lens-assets"],
    partitions_def=NETWORK,
)


def stamps_of(cutouts: list[Artefact]) -> ShardSet:
    """All shards as one source of stamps."""
    return ShardSet([a.folder for a in cutouts])


def scoring_code(detector: Artefact) -> tuple[str, ...]:
    """What decides a detector's scores besides its artefact: a change of how ensembles combine scores no network again."""
    return (*SCORING, *ENSEMBLES) if detector.facts.get("kind") == "ensemble" else SCORING


def usable(splits: Artefact, stamps: ShardSet) -> pl.DataFrame:
    """Rows of the sample that have a stamp (the others were rejected with a reason), with the digest of the stamp."""
    return splits.read().join(stamps.index.select("galaxy_id", "stamp_digest"), on="galaxy_id", how="inner")


def told(row: dict[str, float]) -> str:
    """An epoch as a line of the log."""
    line = "epoch {epoch}: loss {train_loss:.4f}, AUC on the selection set {select_auc:.4f}, {seconds:.0f} s"
    minutes = f"; at most {row['at_most'] / 60:.1f} min to go" if row["at_most"] else "; the last one"
    return line.format(**row) + minutes


def recipe_of(workspace: Workspace, key: str) -> Recipe:
    """The recipe of a detector with what the profile overrides."""
    return parse_detector(key, overrides=workspace.profile().detectors.overrides)


@dg.asset(
    **renewing(GROUP, {"python", "pytorch", "mlflow"}, pool=GPU, chosen=True),
    partitions_def=NETWORK,
    deps=[dg.AssetDep(recipes, partition_mapping=SAME)],
    ins={"splits": dg.AssetIn(partition_mapping=ALL), "cutouts": dg.AssetIn(partition_mapping=ALL)},
    metadata=of_table("detector_history", "history"),
)
def network(
    context: dg.AssetExecutionContext, workspace: Workspace, splits: Artefact, cutouts: list[Artefact]
) -> dg.MaterializeResult[Artefact]:
    """A network trained on real cutouts only, its epoch chosen on validation objects that play no other part. It depends on the
    stamps of its training and selection sets alone: a change elsewhere does not cause a training."""
    settings, stamps = workspace.profile().detectors, stamps_of(cutouts)
    recipe = recipe_of(workspace, context.partition_key)
    rows = usable(splits, stamps).filter(pl.col("role").is_in(["train", "select"])).sort("galaxy_id")
    domain = [] if recipe.domain is None else recipe.domain.columns
    columns = ["galaxy_id", "role", "label", "weight", "tier", "pool", "stamp_digest", *domain]
    identity = {
        "code": code_digest(*effective.ROOMS, "detectors/checkpoint.py"),
        "recipe": recipe.digest,
        "threads": settings.threads,
        "rows": digest(rows.select(columns).rows()),
    }
    links: dict[str, str] = {}

    def make(draft: Draft) -> None:
        with tracked(context, workspace, digest(identity), f"training {recipe.key}", kind="training") as run:
            links["mlflow"] = run.url
            result = train.train(
                recipe,
                rows,
                stamps,
                workspace.work / "training",
                settings=settings,
                logger=run,
                progress=lambda row: context.log.info(told(row)),
                pulse=context.log.info,
            )
            spec = checkpoint.save(draft.folder, result)
            figures.draw(draft.folder, recipe.key, history=result.history)
            run.artifact(draft.folder, "checkpoint")
            draft.table(members.rows_table(rows), members.ROWS_FILE)
            draft.facts.update(
                rows=result.history.height,
                trained_on=rows.filter(pl.col("role") == "train").height,
                parameters=spec.parameters,
                best_epoch=spec.best_epoch,
                select_auc=spec.select_auc,
            )

    return stage(
        context, workspace, identity, make, lambda made: {k: dg.MetadataValue.url(v) for k, v in links.items()}
    )


@dg.asset(
    **renewing(GROUP, {"python", "pytorch", "parquet"}, pool=GPU),
    partitions_def=DETECTOR,
    ins={
        "detector": dg.AssetIn(partition_mapping=SAME),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "cutouts": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("detector_scores"),
)
def detector_scores(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    detector: Artefact,
    splits: Artefact,
    cutouts: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """The frozen detector's score of every object of the sample that has a stamp."""
    profile, stamps = workspace.profile(), stamps_of(cutouts)
    rows = usable(splits, stamps).sort("galaxy_id")
    identity = {
        "code": code_digest(*scoring_code(detector)),
        "detector": detector.digest,
        "rows": digest(rows.select("galaxy_id", "stamp_digest").rows()),
    }

    def make(draft: Draft) -> None:
        scorer = checkpoint.load(detector.folder, profile.cutouts.normalisation, profile.detectors)
        if isinstance(scorer, EnsembleScorer):
            found = score_members(scorer, rows, stamps)
            draft.table(members.scores_table(found, scorer.member_keys), members.SCORES_FILE)
        else:
            found = score.score_rows(scorer, rows, stamps)
        draft.table(SCORES.conform(found))
        draft.facts.update(precision=scorer.precision)

    return stage(context, workspace, identity, make)


@dg.asset(
    **renewing(GROUP, {"python", "polars", "matplotlib", "mlflow"}),
    partitions_def=DETECTOR,
    ins={
        "detector_scores": dg.AssetIn(partition_mapping=SAME),
        "detector": dg.AssetIn(partition_mapping=SAME),
        "splits": dg.AssetIn(partition_mapping=ALL),
        "positives": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("detector_metrics"),
)
def evaluation(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    detector_scores: Artefact,
    detector: Artefact,
    splits: Artefact,
    positives: Artefact,
) -> dg.MaterializeResult[Artefact]:
    """ROC AUC, average precision, recall and precision at thresholds, calibration: overall and by stratum, each with intervals, on
    sets that played no other part; and the thresholds, each with its sampling error or the reason why it is refused."""
    settings = workspace.profile().detectors
    identity = {"code": code_digest("detectors"), "settings": settings, **digests(detector_scores, splits, positives)}
    links: dict[str, str] = {}

    def make(draft: Draft) -> None:
        independent = positives.read().select("galaxy_id", "independent").unique("galaxy_id")
        scores = (
            detector_scores.read().join(splits.read(), on="galaxy_id").join(independent, on="galaxy_id", how="left")
        )
        found = evaluate.evaluate(scores, settings)
        draft.table(found.metrics)
        draft.table(found.thresholds, "thresholds")
        draft.table(found.curves, "curves")
        draft.json("calibration", found.calibration())
        made = figures.draw(draft.folder, context.partition_key, found)
        if detector.facts.get("kind") == "ensemble":
            made += ensemble_report.write(draft, detector.folder, detector_scores, scores, found.thresholds, settings)
        with of_detector(context, workspace, detector) as run:
            links["mlflow"] = run.url
            run.metrics(logged.metrics_of(found.metrics))
            for path in made:
                run.artifact(path, "evaluation")

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {
            "metrics": dg.MetadataValue.md(markdown(overall(made.read()))),
            "calibration": dg.MetadataValue.json(made.json("calibration")),
            **{k: dg.MetadataValue.url(v) for k, v in links.items()},
        },
    )


def overall(metrics: pl.DataFrame) -> pl.DataFrame:
    """The unstratified metrics, for the UI."""
    keep = ["set", "metric", "threshold_name", "value", "lo68", "hi68", "n", "n_pos", "interval"]
    return metrics.filter(pl.col("stratum_axis") == WHOLE).select(keep)
