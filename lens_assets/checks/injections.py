"""Injections: there are hosts inside the grid, none of them trained, and no scored injection is missing."""

import polars as pl

from lens_assets.assets.injections import injection_hosts, injection_scores
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.workspace import Workspace
from lens_assets.science.storage import Artefact


def _hosts(artefact: Artefact, workspace: Workspace) -> Outcome:
    hosts = artefact.read()
    learnt = workspace.store().get("splits").scan().filter(pl.col("role") != "host").select("galaxy_id").collect()
    shared = hosts.join(learnt, on="galaxy_id", how="semi").height
    problems = [f"{shared} hosts play another role too"] if shared else []
    if not hosts.height:
        problems.append(f"no host lies inside the grid: {artefact.facts['rejected_random']}")
    cells = hosts.select("psf_bin", "depth_bin").n_unique()
    return Outcome(problems, {"hosts": hosts.height, "PSF x depth cells with hosts": cells})


def _complete(artefact: Artefact, workspace: Workspace) -> Outcome:
    store = workspace.store()
    variant = artefact.partition.split("+")[1]
    keys = [key for key in store.partitions("injection_batch") if key.split("+")[1] == variant]
    wanted = pl.concat([store.get("injection_batch", key).scan().select("injection_id") for key in keys]).collect()
    scored = artefact.read().select("injection_id")
    missing, extra = (a.join(b, on="injection_id", how="anti").height for a, b in ((wanted, scored), (scored, wanted)))
    problems = [f"{missing} injections have no score, {extra} scores no injection"] if missing or extra else []
    return Outcome(problems, {"injections": wanted.height, "scored": scored.height})


hosts_fit = gate(injection_hosts, "hosts_fit", "There are hosts inside the grid, and they play no other role.", _hosts)
all_scored = gate(injection_scores, "all_scored", "Every injection of the variant has one score.", _complete)
