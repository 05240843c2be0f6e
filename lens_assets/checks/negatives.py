"""Negatives: none is a known lens, the mixture is the one asked for, and the sample looks like its parent."""

import dagster as dg
import polars as pl

from lens_assets.assets.negatives import negative_pool, negative_sample
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.engines.beside import outdated
from lens_assets.science.engines.place import Opened
from lens_assets.science.negatives import coverage
from lens_assets.science.storage import Artefact


def _known(artefact: Artefact, workspace: Workspace) -> Outcome:
    registry = workspace.store().get("lens_registry").read()
    sample = artefact.read()
    found = coverage.known_lens_problems(sample, registry, workspace.profile().negatives.exclusion_arcsec)
    return Outcome(found[:20], {"negatives": sample.height, "known systems": registry.height, "too close": len(found)})


def _mix(artefact: Artefact, workspace: Workspace) -> Outcome:
    sample = artefact.read()
    found = coverage.mix_problems(sample, workspace.profile().negatives)
    return Outcome(found, {"n": sample.height, "N2": int((sample["pool"] == "N2").sum())})


def _strata(artefact: Artefact, workspace: Workspace) -> Outcome:
    strata = artefact.read("strata")
    found = coverage.strata_problems(strata)
    return Outcome(found[:20], {"target": int(strata["target"].sum()), "shortfall": int(strata["shortfall"].sum())})


def _parent(artefact: Artefact, workspace: Workspace) -> Outcome:
    store = workspace.store()
    pools = (store.get("negative_pool", tile) for tile in store.partitions("negative_pool"))
    counts = pl.concat([coverage.parent_counts(pool.read()) for pool in pools if pool.facts["rows"]])
    table = coverage.coverage(artefact.read(), counts)
    found = coverage.coverage_problems(table)
    parent = int(counts.filter(pl.col("axis") == counts["axis"][0])["n"].sum())
    return Outcome(found[:20], {"parent": parent, "coverage": dg.MetadataValue.json(table.to_dicts()[:60])})


def _beside(artefact: Artefact, workspace: Workspace) -> Outcome:
    found = outdated(Opened(workspace.store(), workspace.data_release(), workspace.profile()), artefact)
    return Outcome(found[:20], {"borders read": len(artefact.facts["beside"])})


borders_read = gate(
    negative_pool,
    "borders_read",
    "The pool was made with the borders of all adjacent tiles that the release has, as they are now.",
    _beside,
    blocking=False,
)
no_known_lens = gate(
    negative_sample,
    "no_known_lens",
    "No negative lies within the exclusion radius of a known lens or candidate.",
    _known,
)
mixture = gate(
    negative_sample, "mixture_as_asked", "The share of hard confusers (N2) is the wanted one.", _mix, blocking=False
)
strata = gate(
    negative_sample, "strata_filled", "Every stratum of TYPE and exposures got its target.", _strata, blocking=False
)
like_parent = gate(
    negative_sample, "like_its_parent", "The sample covers sky and TYPE as its parent does.", _parent, blocking=False
)
