"""Calibration: the prior set `calibrated`, fitted to one half of the held-out lenses and judged on the other."""

from dataclasses import dataclass

import dagster as dg
import polars as pl

from lens_assets.assets.detectors import stamps_of
from lens_assets.assets.stage import digests, markdown, of_table, renewing, stage
from lens_assets.partitions import ALL
from lens_assets.resources.workspace import Workspace
from lens_assets.science.calibration import figures
from lens_assets.science.calibration.calibrate import calibrate
from lens_assets.science.calibration.lenses import FIT, JUDGE, calibration_lenses
from lens_assets.science.columns.calibration import (
    CALIBRATION_JUDGEMENT,
    CALIBRATION_LENSES,
    CALIBRATION_ROUNDS,
    PRIOR_CALIBRATION,
)
from lens_assets.science.completeness.detectability import CODE as GATE_CODE
from lens_assets.science.completeness.prior_error import PriorDraws
from lens_assets.science.hashing import digest
from lens_assets.science.injections.priors import PriorSet, prior_set
from lens_assets.science.injections.variants import Variant
from lens_assets.science.lenses.independence import independent_channels
from lens_assets.science.lenses.mapping import ChannelMapping
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Artefact, Draft

GROUP = "calibration"
REWEIGHTING = ("calibration/model.py", "injections/priors.py", "injections/distributions.py")
"""Code outside its own room with which a surface is counted again under draws of the fit."""
CODE = ("calibration", "injections", "realism/measure.py", *GATE_CODE)


@dataclass(frozen=True)
class Fitted:
    """What a calibrated variant takes from a calibration: prior set, hosts, and the lenses that judge and that fitted."""

    priors: PriorSet
    hosts: frozenset[str]
    judges: frozenset[str]
    fitted: frozenset[str]

    @property
    def digest(self) -> str:
        """Identity of what is drawn: another bootstrap of the same fit is no news to an injection."""
        return digest(self.priors.digest, sorted(self.hosts), sorted(self.judges))


def needs_calibration(variant: Variant) -> bool:
    """Whether a variant draws from the fitted set or takes the fitted hosts."""
    return variant.prior_set == "calibrated" or variant.hosts == "calibrated"


def fitted_for(variant: Variant, workspace: Workspace) -> Fitted | None:
    """The calibration a variant depends on, ``None`` for one that does not; ``FileNotFoundError`` when it is not there.

    Read here and not as an input, so that the variants that need none do not wait for it.
    """
    if not needs_calibration(variant):
        return None
    artefact = workspace.store().get("prior_calibration")
    lenses = artefact.read("lenses")
    return Fitted(
        PriorSet.model_validate(artefact.json("priors")),
        frozenset(artefact.read("hosts")["galaxy_id"].to_list()),
        *(frozenset(lenses.filter(pl.col("half") == half)["galaxy_id"].to_list()) for half in (JUDGE, FIT)),
    )


def priors_for(variant: Variant, workspace: Workspace) -> PriorSet:
    """The prior set a variant draws from, the fitted one included."""
    fitted = fitted_for(variant, workspace)
    return fitted.priors if fitted and variant.prior_set == "calibrated" else prior_set(variant.prior_set)


def fit_of(variant: Variant, workspace: Workspace) -> Artefact | None:
    """The calibration whose prior set a variant draws from, ``None`` for a set that was not fitted."""
    return workspace.store().get("prior_calibration") if variant.prior_set == "calibrated" else None


def prior_draws(variant: Variant, fit: Artefact | None) -> PriorDraws | None:
    """Draws of the error of that fit, for a surface of the variant."""
    if fit is None:
        return None
    drawn = PriorSet.model_validate(fit.json("priors"))
    return PriorDraws.of(drawn, fit.read("draws"), mixture=variant.source == "mixture", colours=variant.colours)


def image_blind(channels: list[Artefact]) -> set[str]:
    """Channels of lensed galaxies that share no origin with any channel that trains: found without the survey's images."""
    rules = {m.channel: m for m in (ChannelMapping.model_validate(c.json("mapping")) for c in channels)}
    return {name for name in independent_channels(rules) if rules[name].kind == "galaxy"}


@dg.asset(
    **renewing(GROUP, {"python", "scipy", "matplotlib"}, chosen=True),
    ins={
        "splits": dg.AssetIn(),
        "positives": dg.AssetIn(),
        "lens_channel": dg.AssetIn(partition_mapping=ALL),
        "cutouts": dg.AssetIn(partition_mapping=ALL),
    },
    metadata=of_table("prior_calibration"),
)
def prior_calibration(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    splits: Artefact,
    positives: Artefact,
    lens_channel: list[Artefact],
    cutouts: list[Artefact],
) -> dg.MaterializeResult[Artefact]:
    """The population prior fitted to one half of the held-out lenses (never training), so that injections have the lenses' observed
    brightness, colours and shapes; judged on the other half, which the realism report of calibrated variants keeps to. No detector
    enters."""
    profile = workspace.profile()
    blind = image_blind(lens_channel)
    identity = {
        "code": code_digest(*CODE),
        "settings": profile.calibration,
        "injections": profile.injections.model_dump(exclude={"threads", "chunk", "per_cell"}),
        "blind": sorted(blind),
        **digests(splits, positives, cutouts),
    }

    def make(draft: Draft) -> None:
        stamps = stamps_of(cutouts)
        sample = splits.read()
        sample = sample.filter(pl.Series(stamps.has(sample["galaxy_id"])))
        lenses = calibration_lenses(sample, positives.read(), blind, profile.calibration)
        found = calibrate(sample, lenses, stamps, profile.injections, profile.calibration, context.log.info)
        draft.table(PRIOR_CALIBRATION.conform(found.parameters))
        draft.table(found.draws, "draws")
        draft.table(CALIBRATION_ROUNDS.conform(found.rounds), "rounds")
        draft.table(CALIBRATION_JUDGEMENT.conform(found.judgement), "judgement")
        draft.table(CALIBRATION_LENSES.conform(found.lenses), "lenses")
        draft.table(pl.DataFrame({"galaxy_id": found.keep}, schema={"galaxy_id": pl.String}), "hosts")
        draft.json("priors", found.priors.model_dump(mode="json", exclude_defaults=True))  # JSON has no infinity
        draft.json("report", found.facts)
        figures.parameters_figure(found.parameters, draft.path("parameters.png"), found.facts["n"]["fit"])
        figures.judgement_figure(found.judgement, draft.path("judgement.png"))
        draft.facts.update(
            priors=found.priors.digest,
            lenses=found.facts["n"],
            warnings=found.facts["warnings"],
            blind=found.facts["blind"],
        )

    return stage(
        context,
        workspace,
        identity,
        make,
        lambda made: {"parameters": dg.MetadataValue.md(markdown(made.read())),
                      "judgement": dg.MetadataValue.md(markdown(made.read("judgement")))},
    )  # fmt: skip
