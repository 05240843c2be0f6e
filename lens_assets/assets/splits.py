"""Splits: one table of positives and negatives, each with the set and the role it plays."""

import dagster as dg

from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.resources.workspace import Workspace
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.provenance import code_digest
from lens_assets.science.splits.assign import make_splits
from lens_assets.science.storage import Artefact, Draft


@dg.asset(
    **renewing("splits", {"python", "polars", "parquet"}),
    ins={"positives": dg.AssetIn(), "negative_sample": dg.AssetIn()},
    metadata=of_table("splits"),
)
def splits(
    context: dg.AssetExecutionContext, workspace: Workspace, positives: Artefact, negative_sample: Artefact
) -> dg.MaterializeResult[Artefact]:
    """Train, validation and test by HEALPix cell with a guard ring, and inside them separate roles: choosing the epoch,
    calibration, thresholds, hosting injections, reporting."""
    profile = workspace.profile()
    identity = {
        "code": code_digest("splits", "negatives", "sieve.py", "columns/splits.py"),
        "settings": profile.splits,
        "selection": load_selection(profile.negatives.selection),
    }

    def make(draft: Draft) -> None:
        table, balance, facts = make_splits(positives.read(), negative_sample.read(), profile.splits)
        draft.table(table)
        draft.table(balance, "balance")
        draft.facts.update(facts)

    return stage(
        context,
        workspace,
        {**identity, **digests(positives, negative_sample)},
        make,
        lambda made: {"balance": dg.MetadataValue.md(markdown(made.read("balance")))},
    )
