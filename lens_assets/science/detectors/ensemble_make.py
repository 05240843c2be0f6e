"""Making an ensemble's detector: copies of its networks, their logits on the rows a rule is fitted on, the rule, the drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.columns.detectors import ENSEMBLE_FIT
from lens_assets.science.detectors import ensemble_disk
from lens_assets.science.detectors.dataset import StampSource
from lens_assets.science.detectors.ensemble_combine import Rule
from lens_assets.science.detectors.ensemble_fit import fit, refuse_seen
from lens_assets.science.detectors.ensemble_score import EnsembleScorer, Member, score_members
from lens_assets.science.detectors.ensembles import Ensemble
from lens_assets.science.detectors.members import members_table
from lens_assets.science.detectors.score import bf16_supported
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.sphere import cell_of

FIT_ROLE, DRIFT_ROLE = "calibrate", "select"


@dataclass(frozen=True)
class Network:
    """A network's artefact as an ensemble needs it: digest, folder, and the galaxies it was trained or selected on."""

    digest: str
    folder: Path
    seen: Sequence[str]


@dataclass(frozen=True)
class Made:
    """The table of members, the out-of-fold table where a rule was fitted, and what is to be told."""

    members: pl.DataFrame
    fitted: pl.DataFrame | None
    facts: dict[str, Any]


def needed(ensemble: Ensemble, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that decide an ensemble besides its members: those it is fitted on, and those its drift is measured on."""
    roles = [DRIFT_ROLE] if ensemble.combiner.kind == "mean" else [DRIFT_ROLE, FIT_ROLE]
    return rows.filter(pl.col("role").is_in(roles)).sort("galaxy_id")


def make(
    folder: Path,
    ensemble: Ensemble,
    networks: Mapping[str, Network],
    rows: pl.DataFrame,
    stamps: StampSource,
    settings: Settings,
    *,
    log_odds: float | None = None,
    nside: int = 1024,
) -> Made:
    """Write the ensemble's files into ``folder``.

    Parameters
    ----------
    networks : by key, at least the ensemble's members.
    rows : of the split table, those that have a stamp: galaxy_id, role, label, ra, dec (degrees). Only the roles
        ``select`` (drift) and ``calibrate`` (the rule; not for a mean) are looked at.
    log_odds : ln(lenses / non-lenses) of the training sample (see ``ensemble_fit.fit``).
    nside : HEALPix cells of this nside stay together in a fold; that of the roles.

    Raises
    ------
    BadInput : a member saw rows of the fit, or the fit is refused (see ``ensemble_fit``).
    """
    rows = needed(ensemble, rows)
    specs = ensemble_disk.copy_members(folder, {k: (networks[k].digest, networks[k].folder) for k in ensemble.members})
    members = ensemble_disk.load_members(folder, ensemble.members)
    on = rows.filter(pl.col("role") == FIT_ROLE)
    refuse_seen(on["galaxy_id"], {k: networks[k].seen for k in ensemble.members})
    on = on.with_columns(cell=pl.Series(cell_of(on["ra"].to_numpy(), on["dec"].to_numpy(), nside)))
    plain = EnsembleScorer(members, Rule(kind="mean"), precision="fp32", batch=settings.score_batch)
    logits = score_members(plain, on, stamps).drop("logit", "score")
    domains = [specs[k].recipe.domain for k in ensemble.members]
    columns = {c for d in domains if d is not None for c in d.columns} if ensemble.combiner.kind == "routed" else set()
    table = on.select("galaxy_id", "label", "cell", *sorted(columns)).join(logits, on="galaxy_id", how="inner")
    fitted = fit(ensemble.combiner, table, ensemble.members, seed=settings.seed, domains=domains, log_odds=log_odds)
    drift = measure_drift(members, fitted.rule, rows.filter(pl.col("role") == DRIFT_ROLE), stamps, settings)
    digests = {k: networks[k].digest for k in ensemble.members}
    spec = ensemble_disk.save(folder, ensemble, digests, specs, fitted.rule, drift, fitted.facts)
    return Made(
        members_table(
            {k: (digests[k], specs[k]) for k in specs}, ensemble.members,
            fitted.rule.effective_weights(len(ensemble.members)),
        ),
        None if fitted.rows is None else ENSEMBLE_FIT.conform(fitted.rows),
        {"kind": "ensemble", "parameters": spec.parameters, "bf16_drift": drift, **fitted.facts},
    )  # fmt: skip


def measure_drift(
    members: Sequence[Member], rule: Rule, rows: pl.DataFrame, stamps: StampSource, settings: Settings
) -> float | None:
    """Largest |logit(bf16) - logit(fp32)| of the combined logit over at most ``drift_stamps`` of these rows; ``None`` where
    the processor has no bfloat16 or there are no rows."""
    if not bf16_supported() or not rows.height:
        return None
    few = np.unique(np.linspace(0, rows.height - 1, min(rows.height, settings.drift_stamps)).astype(int))
    part = rows.sort("galaxy_id")[few]
    exact = EnsembleScorer(members, rule, precision="fp32", batch=settings.score_batch)
    quick = EnsembleScorer(members, rule, precision="bf16", drift=0.0, batch=settings.score_batch)
    a, b = (score_members(scorer, part, stamps)["logit"].to_numpy() for scorer in (exact, quick))
    return float(np.abs(a - b).max())
