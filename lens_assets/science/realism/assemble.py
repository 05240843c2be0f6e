"""From the platform's tables to the three sets of stamps that the realism report compares.

Real: held-out confirmed and tier-A lenses (never trained on); under calibrated priors those alone that took no part in
the fit. Injected: a bounded number of injections by smallest stable hash, re-rendered. Hosts: the same hosts untouched.
All through one reader, one gate and one frozen detector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.completeness.detectability import GateSpec, gate_statistic, observable
from lens_assets.science.detectors.score import Scorer
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.injections.batch import StampSource, inject, plan_batch
from lens_assets.science.injections.hosts import choose_hosts
from lens_assets.science.injections.planes import Galaxies
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.injections.variants import Variant, load_variants
from lens_assets.science.realism.panel import Panel, assemble
from lens_assets.science.realism.report import RealismReport, realism_report
from lens_assets.science.realism.settings import Settings
from lens_assets.science.realism.stamps import StampSet

CONDITIONS = ["galaxy_id", "psfsize_g", "psfsize_r", "psfsize_z", "depth_r"]
TIERS = ("confirmed", "A")
BEFORE = "sersic-population"


def held_out_lenses(sample: pl.DataFrame) -> pl.DataFrame:
    """Rows of lenses that may judge realism: confirmed or tier A, in no training or guard split, galaxy-scale arcs."""
    return sample.filter(
        (pl.col("label") == 1) & pl.col("tier").is_in(TIERS) & pl.col("split").is_in(["val", "test", "evaluation"])
    ).sort("galaxy_id")


def of_kind(lenses: pl.DataFrame, positives: pl.DataFrame, variant: Variant) -> pl.DataFrame:
    """The lenses whose sources are of the variant's kind: quasars for point sources, galaxies for all others."""
    kind = "quasar" if variant.source == "point" else "galaxy"
    kept = positives.filter(pl.col("kind") == kind)["galaxy_id"].implode()
    return lenses.filter(pl.col("galaxy_id").is_in(kept))


def unseen(lenses: pl.DataFrame, judges: frozenset[str], fitted: frozenset[str]) -> pl.DataFrame:
    """The lenses that judge a fit. Raises :class:`BadInput` when one of them took part in it."""
    both = judges & fitted
    if both:
        raise BadInput(f"{len(both)} lenses fitted the priors and would judge them, for instance {min(both)}")
    return lenses.filter(pl.col("galaxy_id").is_in(sorted(judges)))


def real_set(rows: pl.DataFrame, stamps: StampSource, scorer: Scorer, gate: GateSpec, what: str) -> StampSet:
    """Stamps of catalogue objects with conditions, the gate's word and the detector's features."""
    ids = rows["galaxy_id"].to_list()
    images, invvar = stamps.images(ids), stamps.invvar(ids)
    frame = rows.select(*CONDITIONS, *(["tier"] if "tier" in rows.columns else [])).with_columns(
        observable=pl.Series(observable(gate_statistic(images, invvar).total, gate))
    )
    return StampSet.of(images, invvar, frame, scorer.features(images, invvar > 0), what=what)


def injected_set(
    batches: pl.DataFrame,
    stamps: StampSource,
    scorer: Scorer,
    gate: GateSpec,
    settings: InjectionSettings,
    variant: Variant,
    *,
    most: int,
    seed: int,
    galaxies: Galaxies | None = None,
) -> StampSet:
    """At most ``most`` injections of a variant, drawn by stable hash, rendered again with their features."""
    rows = batches.sort("injection_id")
    if rows.height > most:
        chosen = generator("realism injections", variant.name, seed).choice(rows.height, most, replace=False)
        rows = rows[np.sort(chosen)]
    images, invvar = [], []
    for chunk in inject(rows, stamps, settings, variant, galaxies):
        images.append(chunk.images)
        invvar.append(chunk.invvar)
    im, iv = np.concatenate(images), np.concatenate(invvar)
    frame = rows.select(pl.col("injection_id").alias("id"), *CONDITIONS, pl.col("theta_e", "source_id")).with_columns(
        observable=pl.Series(observable(gate_statistic(im, iv).total, gate))
    )
    return StampSet.of(im, iv, frame, scorer.features(im, iv > 0), what="injected")


def before_calibration(
    sample: pl.DataFrame, theta_e: list[float], settings: InjectionSettings, most: int
) -> tuple[pl.DataFrame, Variant]:
    """Injections of the default variant (population priors, random hosts), as many as are compared: what a calibrated
    variant is held against on the same lenses."""
    variant = load_variants()[BEFORE]
    hosts = choose_hosts(sample, settings).hosts
    cells = max(hosts.select("psf_bin", "depth_bin").n_unique(), 1)
    fewer = settings.model_copy(update={"per_cell": min(settings.per_cell, -(-2 * most // (len(theta_e) * cells)))})
    return pl.concat([plan_batch(hosts, variant, theta, fewer) for theta in theta_e]), variant


def other_negatives(sample: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """Real non-lenses that neither train nor host, for the host-only control: at most ``most``, by stable hash."""
    rows = sample.filter(
        (pl.col("label") == 0) & pl.col("split").is_in(["val", "test"]) & (pl.col("role") != "host")
    ).sort("galaxy_id")
    if rows.height > most:
        rows = rows[np.sort(generator("realism negatives", seed).choice(rows.height, most, replace=False))]
    return rows


def features_of(rows: pl.DataFrame, stamps: StampSource, scorer: Scorer) -> npt.NDArray[np.float32]:
    """Penultimate features (n, f) of catalogue objects."""
    ids = rows["galaxy_id"].to_list()
    return scorer.features(stamps.images(ids), stamps.invvar(ids) > 0)


@dataclass(frozen=True)
class Comparison:
    """What several sets of injections are judged with: the real lenses, other negatives, one detector, one gate."""

    real: StampSet
    sample: pl.DataFrame
    others: pl.DataFrame
    negatives: npt.NDArray[np.float32]
    stamps: StampSource
    scorer: Scorer
    gate: GateSpec
    injections: InjectionSettings
    settings: Settings

    @classmethod
    def of(
        cls, lenses: pl.DataFrame, sample: pl.DataFrame, stamps: StampSource, scorer: Scorer, gate: GateSpec,
        injections: InjectionSettings, settings: Settings,
    ) -> Comparison:  # fmt: skip
        """Read the stamps of ``lenses`` and the features of other negatives of ``sample``."""
        real = real_set(lenses, stamps, scorer, gate, "held-out lenses")
        others = other_negatives(sample, settings.most_negatives, settings.seed)
        return cls(
            real, sample, others, features_of(others, stamps, scorer), stamps, scorer, gate, injections, settings
        )

    def report(
        self, batches: pl.DataFrame, variant: Variant, identity: tuple[str, ...], galaxies: Galaxies | None = None
    ) -> tuple[RealismReport, StampSet]:
        """The report of a variant's injections, and the injections that were compared; ``galaxies`` where it draws real ones."""
        s = self.settings
        injected = injected_set(
            batches, self.stamps, self.scorer, self.gate, self.injections, variant, most=s.most_injected, seed=s.seed,
            galaxies=galaxies,
        )  # fmt: skip
        hosts = self.sample.join(injected.frame.select("galaxy_id").unique(), on="galaxy_id", how="semi")
        bare = real_set(hosts.sort("galaxy_id"), self.stamps, self.scorer, self.gate, "hosts")
        ids = self.others["galaxy_id"].to_numpy()
        report = realism_report(
            self.real, injected, bare, self.negatives, s, identity, normalisation=self.scorer.normalisation,
            negatives_groups=ids,
        )  # fmt: skip
        return report, injected


def about(real: StampSet, *, calibrated: bool) -> str:
    """Which lenses judge, in a sentence."""
    which = (
        "the half of the held-out lenses that took no part in fitting the priors"
        if calibrated
        else "all held-out lenses"
    )
    tiers = real.frame["tier"].value_counts().sort("tier").rows() if "tier" in real.frame.columns else []
    counts = ", ".join(f"{n} {tier}" for tier, n in tiers)
    return f"Judged by {which}, none of which trained: {len(real)} ({counts})."


def panel_of(report: RealismReport, real: StampSet, injected: StampSet, settings: Settings) -> Panel | None:
    """The blinded panel of stamps matched in conditions and brightness; ``None`` where there are too few of either kind."""
    matched = report.measures.filter(pl.col("matched_brightness"))
    sides = []
    for side, stamps in (("real", real), ("injected", injected)):
        ids = set(matched.filter(pl.col("side") == side)["id"].to_list())
        sides.append(stamps.take(np.array([i in ids for i in stamps.frame["id"]], dtype=bool)))
    if min(len(sides[0]), sides[1].frame["group"].n_unique()) < settings.panel_size - settings.panel_size // 2:
        return None
    return assemble(sides[0], sides[1], settings.panel_size, tuple(report.facts["identity"]))
