"""What a calibration is: sizes, rounds, selection. Defaults are those of a publishable run."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """All of the calibration room's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field("population", description="the prior set that is fitted; what is not fitted is kept from it")
    tiers: tuple[str, ...] = ("confirmed", "A")
    fit_share: float = Field(0.5, gt=0, lt=1, description="share of systems in the fitting half; the rest judges")
    validation_share: float = Field(0.25, gt=0, lt=1, description="of the fitting half, on which a round must improve")
    min_lenses: int = Field(30, ge=8, description="fewer lenses in the fitting half: refused")
    min_blind: int = Field(20, ge=0, description="fewer found without images: a warning, the faint end is extrapolated")
    injections: int = Field(6000, ge=200, description="proposals a round")
    rounds: int = Field(4, ge=1, description="most rounds")
    least_gain: float = Field(0.02, ge=0, description="stop when the validation distance falls by less than this share")
    min_effective: float = Field(100.0, ge=10, description="smallest effective number of injections; fewer: a warning")
    directions: int = Field(96, ge=8, description="directions of the sliced energy distance, beside the axes")
    strength: float = Field(0.25, ge=0, description="pull towards the base set, per (parameter / its scale)^2")
    bootstrap_draws: int = Field(200, ge=20)
    wings: tuple[float, ...] = Field((2.5, 3.5, 4.5), description="Moffat beta of the proposals: the brackets")
    early_hosts: bool = Field(True, description="hosts are early types by the catalogue, as deflectors are")
    host_share: float = Field(0.5, gt=0, le=1, description="least share of the hosts kept when they are thinned")
    min_hosts: int = Field(40, ge=5, description="fewer hosts like lens galaxies: those most like them are taken")
    seed: int = 20261123
