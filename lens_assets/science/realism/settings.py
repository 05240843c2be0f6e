"""The bars, sizes and tolerances of the realism report.

Defaults are those of a publishable run; a profile may shrink the sizes but the report always prints what it used. The
bars 1-3 and 5 are the platform's own (factor 2, 0.2 mag, p > 0.05, AUC 0.70); no bar stands behind a number that is
only reported.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

GATES = (
    "arc_snr",
    "annulus_snr",
    "annulus_colour",
    "arc_colour",
    "background_ks",
    "background_power",
    "surface_brightness",
    "arc_width",
    "arc_radius",
    "tangential_asymmetry",
    "feature_probe",
    "feature_frechet",
    "blinded_panel",
)
"""All gates, in the order of the report."""
BLOCKING = ("arc_snr", "annulus_colour", "arc_colour", "background_ks", "background_power", "feature_probe")
"""The gates that decide; the others are reported."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bars(_Frozen):
    """What passes."""

    snr_factor: float = Field(2.0, gt=1, description="largest ratio of the 10th, 50th and 90th SNR percentiles")
    colour_mag: float = Field(0.2, gt=0, description="largest difference of median colours, mag")
    ks_p: float = Field(0.05, gt=0, lt=1, description="smallest Holm-adjusted KS p over the bands")
    power_ratio: float = Field(
        0.05, gt=0, description="largest |ratio - 1| of the noise power spectrum, any bin or band"
    )
    probe_auc: float = Field(0.70, ge=0.5, le=1, description="largest cross-validated AUC of the linear probe")
    null_score: float = Field(0.2, gt=0, lt=1, description="largest mean score of zero-flux injections")
    suppressed_score: float = Field(0.3, gt=0, lt=1, description="largest mean score of lenses with the arc removed")
    ring_score: float = Field(0.3, gt=0, lt=1, description="largest mean score of negatives with an impossible ring")


class Matching(_Frozen):
    """How far an injection may lie from the real lens it is matched to, per axis; and how many each real lens gets.

    ``radius_arcsec`` applies to the flux-weighted radius of the arc and is there because injections lie on a grid of
    Einstein radii, flat by construction, and surfaces are per Einstein radius: its distribution is nobody's prior.
    ``brightness_mag`` applies to the asinh magnitude of the azimuth-subtracted r-band annulus. Both are measured alike
    on either side.
    """

    psfsize_arcsec: float = Field(0.10, gt=0)
    depth_mag: float = Field(0.25, gt=0)
    radius_arcsec: float | None = Field(0.50, gt=0, description="null: not matched")
    brightness_mag: float = Field(0.50, gt=0)
    per_real: int = Field(5, ge=1)
    exact: tuple[str, ...] = ()


class Override(_Frozen):
    """Leave to publish under no-go. It needs a reason, which is recorded with everything made under it."""

    allow: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _reasoned(self) -> Override:
        if self.allow and not self.reason.strip():
            raise ValueError("an override needs a reason")
        return self


class Settings(_Frozen):
    """All of the realism room's configuration."""

    bars: Bars = Bars()
    matching: Matching = Matching()
    blocking: tuple[str, ...] = BLOCKING
    min_real: int = Field(30, ge=4, description="fewer matched real lenses: insufficient, hence no-go")
    min_sources: int = Field(
        30, ge=1, description="fewer distinct galaxies among injections of real galaxies: no-go, whatever the gates say"
    )
    min_background_hosts: int = Field(20, ge=2, description="fewer hosts with an untouched stamp: insufficient")
    observable_only: bool = Field(
        True, description="where both sides carry the column `observable`, compare only stamps that pass the same gate"
    )
    colour_min_snr: float = Field(3.0, ge=0, description="an arc colour needs this annulus SNR in both bands")
    snr_floor: float = Field(1.0, gt=0, description="SNR percentiles below this count as this: no arc is seen there")
    ks_max_correlation: float = Field(
        0.05, gt=0, lt=1, description="pixels are spaced where |autocorrelation| is below"
    )
    probe_folds: int = Field(5, ge=2)
    probe_repeats: int = Field(3, ge=1, description="fold assignments averaged")
    probe_max_components: int = Field(64, ge=1, description="PCA components, beside the limit of n/5")
    probe_c: float = Field(1.0, gt=0, description="inverse ridge strength of the logistic regression")
    permutations: int = Field(200, ge=20)
    bootstrap_draws: int = Field(500, ge=50)
    control_splits: int = Field(20, ge=2, description="random halvings of the real lenses")
    panel_size: int = Field(50, ge=4)
    most_injected: int = Field(2000, ge=50, description="injections compared, the smallest hashes of those there are")
    most_negatives: int = Field(2000, ge=50, description="other real non-lenses in the host-only control")
    override: Override = Override()
    seed: int = 20261123

    @model_validator(mode="after")
    def _known(self) -> Settings:
        unknown = set(self.blocking) - set(GATES)
        if unknown:
            raise ValueError(f"no such gates: {sorted(unknown)} (there are {', '.join(GATES)})")
        return self


Status = Literal["pass", "fail", "reported", "insufficient"]
