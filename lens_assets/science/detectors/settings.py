"""Settings of the room: what is not part of a recipe. Defaults are those of a published measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class GateSettings(BaseModel):
    """Bars and sizes of a detector's gates (``shortcuts``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    core_auc: float = Field(default=0.55, ge=0.5, le=1)
    """Bar of the core-only probe: that of the attempts before this one."""
    profile_auc: float = Field(default=0.60, ge=0.5, le=1)
    """Bar of the galaxy's own profile."""
    red_auc: float = Field(default=0.70, ge=0.5, le=1)
    """A probe whose lower 68 % bound exceeds this is red (science contract, section 3, shortcut features)."""
    annulus_auc: float = Field(default=0.70, ge=0.5, le=1)
    """The annulus alone must reach this; red where its upper 68 % bound stays below ``annulus_red``."""
    annulus_red: float = Field(default=0.60, ge=0.5, le=1)
    folds: int = Field(default=5, ge=2)
    permutations: int = Field(default=200, ge=20)
    draws: int = Field(default=500, ge=50)
    min_groups: int = Field(default=20, ge=2)
    """Fewest lenses and fewest non-lenses of a probe."""
    most: int = Field(default=2000, ge=20)
    """Most stamps of a kind, the smallest hashes of those there are."""
    match_mag: float = Field(default=0.25, gt=0)
    """Largest difference of r magnitude of a matched pair."""
    match_colour: float = Field(default=0.15, gt=0)
    """Largest difference of g - r and of r - z of a matched pair, mag."""
    match_each: int = Field(default=3, ge=1)
    """Most non-lenses a lens is matched to."""
    block: bool = False
    """Whether red gates stop the chain. They always forbid promotion."""
    seed: int = 20261123

    def bars_of(self, probe: str) -> tuple[float, float]:
        """Bar and red bar of a probe."""
        if probe == "annulus_only":
            return self.annulus_auc, self.annulus_red
        return (self.core_auc if probe.startswith("core") else self.profile_auc), self.red_auc


class Settings(BaseModel):
    """How detectors are trained here, scored and evaluated. Profiles override single fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 20261123
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Fields of recipes that this profile changes, by recipe name or ``"*"`` (see ``recipes.parse_detector``)."""

    # training
    threads: int | None = Field(default=None, gt=0)
    """Threads of a training run; the weights' last bits depend on it. ``None``: as torch decides."""
    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches; no effect on the result."""
    devices: int = Field(default=1, gt=0)
    """Devices of a training (GPUs where there are, else processes on the CPU); the batch of a step stays the recipe's."""
    strategy: Literal["spawn", "external"] = "spawn"
    """How the processes of several devices start: from the training's own, or from outside (torchrun, SLURM)."""
    nodes: int = Field(default=1, gt=0)
    """Machines of a training that is started from outside."""
    encoders: dict[str, Path] = Field(default_factory=dict)
    """Folders (config.json, *.safetensors) of frozen encoders by hub id; others come from the hub or its cache."""
    cache_bytes: int = Field(default=2 << 30, ge=0)
    """Normalised stamps are kept in memory while they fit in this, else read again every epoch."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Training stops after the epoch that passes this. For practice only: such a run is not repeatable bit by bit."""

    # scoring
    score_batch: int = Field(default=64, gt=0)
    """Fixed batch of the scorer: scores do not depend on how a caller groups stamps, only (in the last bits) on
    this."""
    score_precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bfloat16 where the processor has it and the drift measured at training is within ``max_drift``."""
    max_drift: float = Field(default=0.1, gt=0)
    """Largest accepted |logit(bf16) - logit(fp32)| over the drift sample."""
    drift_stamps: int = Field(default=512, gt=0)

    # evaluation
    fpr_targets: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    """False-positive rates for which a threshold is set, where the negatives allow."""
    negatives_per_rate: float = Field(default=100.0, gt=0)
    """A threshold for a rate f needs this / f negatives, or is refused."""
    fixed_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    draws: int = Field(default=1000, ge=100)
    """Bootstrap draws."""
    top_fractions: tuple[float, ...] = (0.01, 0.001)
    """Shares of the highest scores whose calibration is reported."""
    calibration_bins: int = Field(default=15, ge=2)
    min_bin: int = Field(default=10, ge=2)
    """Fewest rows of a calibration bin; a subset with fewer than two such bins gets a reason instead of a value."""
    min_class: int = Field(default=5, ge=2)
    """Fewest positives and fewest negatives for an AUC, an average precision or a calibration error."""
    calibration_map: Literal["none", "platt", "isotonic"] = "platt"
    """Map from logit to probability, fitted on the role ``calibrate`` and stored with the evaluation; its effect is
    judged on ``report``. It moves no threshold."""
    psf_edges: tuple[float, ...] = (0.0, 1.05, 1.2, 1.35, 1.5, 1.65, 9.0)
    """Edges of the r-band PSF strata, arcsec FWHM."""
    depth_edges: tuple[float, ...] = (0.0, 22.75, 23.25, 23.75, 24.25, 99.0)
    """Edges of the r-band 5-sigma depth strata, mag."""
    nobs_edges: tuple[int, ...] = (1, 3, 6, 11, 32767)
    """Lower edges of the z-band exposure strata (1-2, 3-5, 6-10, 11+)."""

    gates: GateSettings = GateSettings()
