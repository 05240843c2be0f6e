"""Cutouts: every object is accounted for, no pixels are shared between splits, both classes come from one reader, and no
simple feature gives the classes away."""

import dagster as dg
import polars as pl

from lens_assets.assets.cutouts import cutout_quality, cutouts
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.cutouts import source
from lens_assets.science.splits import checks
from lens_assets.science.storage import Artefact


def _accounted(artefact: Artefact, workspace: Workspace) -> Outcome:
    tile = artefact.partition
    asked = workspace.store().get("splits").scan().filter((pl.col("tile") == tile) & (pl.col("split") != "guard"))
    wanted = set(asked.select("galaxy_id").collect()["galaxy_id"].to_list())
    kept, lost = (set(artefact.read(t)["galaxy_id"].to_list()) for t in ("index", "rejected"))
    problems = []
    if kept & lost:
        problems.append(f"{len(kept & lost)} objects are both kept and rejected")
    if kept | lost != wanted:
        problems.append(
            f"{len(wanted - kept - lost)} objects vanished, {len((kept | lost) - wanted)} were not asked for"
        )
    return Outcome(problems, {"asked": len(wanted), "kept": len(kept), "rejected": len(lost)})


def _indices(workspace: Workspace) -> pl.DataFrame:
    store = workspace.store()
    return pl.concat([store.get("cutouts", key).read("index") for key in store.partitions("cutouts")])


def _digests(artefact: Artefact, workspace: Workspace) -> Outcome:
    found = checks.digests_disjoint(
        workspace.store().get("splits").read(),
        _indices(workspace).select("galaxy_id", pl.col("stamp_digest").alias("digest")),
    )
    return Outcome(found.problems[:20], {"facts": dg.MetadataValue.json(found.facts)})


def _one_source(artefact: Artefact, workspace: Workspace) -> Outcome:
    sources = artefact.facts.get("sources", {})
    return Outcome(source.mixed_sources(sources), {"sources": dg.MetadataValue.json(sources)})


def _noise(artefact: Artefact, workspace: Workspace) -> Outcome:
    found = artefact.facts["noise"]
    if found["verdict"] == "insufficient":  # a rehearsal of a few lenses; the column `source` is judged all the same
        return Outcome([], {"verdict": "insufficient", "n": found["n"], "n_pos": found["n_pos"]})
    text = (
        f"the background's correlation alone separates the classes: AUC {found['auc']:.3f} (68 %: {found['lo68']:.3f} to "
        f"{found['hi68']:.3f}, n {found['n']}); {found['rule']} {found['bar']:.2f}"
    )
    return Outcome([] if found["verdict"] == "pass" else [text], {"result": dg.MetadataValue.json(found)})


def _copies(artefact: Artefact, workspace: Workspace) -> Outcome:
    found = artefact.facts["duplicates"]
    every = found["across_splits"]
    problems = []
    if n := found["with_train_or_val"]["overlap"]:
        problems.append(f"{n} stamps of train or val share pixels with one of another split")
    problems += [
        f"{n} pairs of stamps in two splits are {kind}" for kind in ("identical", "alike") if (n := every[kind])
    ]
    return Outcome(problems, {"duplicates": dg.MetadataValue.json(found)})


def _lost_alike(artefact: Artefact, workspace: Workspace) -> Outcome:
    sample = workspace.store().get("splits").read().filter(pl.col("split") != "guard")
    found = checks.losses_alike(sample, _indices(workspace)["galaxy_id"])
    return Outcome(found.problems[:20], {"facts": dg.MetadataValue.json(found.facts)})


def _shortcuts(artefact: Artefact, workspace: Workspace) -> Outcome:
    noise = [f for f in artefact.facts["red"] if f.startswith(("lag", "noise", "background"))]
    problems = (
        [f"these say what the noise is, not what the galaxy is, and separate the classes: {', '.join(noise)}"]
        if noise
        else []
    )
    figures = {
        "red": ", ".join(artefact.facts["red"]) or "none",
        "yellow": ", ".join(artefact.facts["yellow"]) or "none",
    }
    return Outcome(problems, figures)


accounted = gate(cutouts, "all_accounted", "Asked for = cut + rejected with a reason, object by object.", _accounted)
digests_disjoint = gate(
    cutout_quality, "digests_disjoint", "No stamp (by the digest of its pixels) is in two splits.", _digests
)
one_source = gate(cutout_quality, "one_source", "Stamps of both classes come from the same reader.", _one_source)
noise_at_chance = gate(
    cutout_quality,
    "noise_at_chance",
    "A cross-validated classifier on the background's autocorrelation does not tell the classes apart.",
    _noise,
)
no_copies = gate(
    cutout_quality,
    "no_copies_across_splits",
    "No stamp is the same picture as one in another split, and none of train or val shares pixels with one (test and evaluation, "
    "which both only judge, may overlap: told).",
    _copies,
)
no_noise_shortcut = gate(
    cutout_quality,
    "no_noise_shortcut",
    "No property of the noise or background separates the classes (red).",
    _shortcuts,
)
lost_alike = gate(
    cutout_quality,
    "lost_alike",
    "Objects without a stamp are not lost by class, declination, exposures or TYPE.",
    _lost_alike,
    blocking=False,
)
