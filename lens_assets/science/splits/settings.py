"""Settings of the splits: shares and their order, seed, guard ring, roles, and the bar of the metadata shortcut."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

SPLITS = ("train", "val", "test")
SHAPING = ("train", "val")
"""Splits that shape a detector: its weights, or its epoch, calibration and thresholds. The others only judge it."""


class ShortcutSettings(BaseModel):
    """The classifier on metadata alone (science contract, section 2: "no class-conditional cut")."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bar: float = 0.60
    """The lower 68 % bound of the AUC must be below this."""
    folds: int = Field(5, ge=2)
    draws: int = Field(300, ge=50)
    min_positives: int = 20
    """With fewer positives in common strata the test is "insufficient", which does not pass."""


class Settings(BaseModel):
    """How the sky is split; the defaults are the paper-grade values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: dict[str, float] = {"train": 0.70, "val": 0.15, "test": 0.15}
    order: tuple[str, ...] = SPLITS
    """Order in which the shares are cumulated: explicit, because an alphabetical one gave a published run 26/39/35."""
    seed: int = 20261123
    nside: int = 128
    guard_arcsec: float = Field(40.0, ge=0)
    """Just above the diagonal of a 101-pixel stamp (37.4"): no pixel is seen by two splits. Around lenses kept for
    evaluation, which lie in every cell, the same ring is cleared of what trains or validates."""
    guard_angles: int = Field(8, ge=4)
    exclusion_arcsec: float = Field(11.0, gt=0)
    share_tolerance: float = Field(0.02, gt=0)
    max_salt: int = Field(1000, ge=0)
    """Salts tried before the best one is taken and the check of shares fails; see ``cells.choose_salt``."""
    val_roles: dict[str, float] = {"select": 0.3, "calibrate": 0.2, "threshold": 0.5}
    test_roles: dict[str, float] = {"host": 0.5, "report": 0.5}
    role_nside: int = 1024
    """Cells (3.4 arcmin) within which all objects play the same role, so that overlapping stamps rarely differ in it.
    """
    shortcut: ShortcutSettings = ShortcutSettings()

    @model_validator(mode="after")
    def _sound(self) -> Settings:
        if sorted(self.order) != sorted(self.shares) or not set(self.order) <= set(SPLITS) or "train" not in self.order:
            raise ValueError(f"order {self.order} must name each of the shares {sorted(self.shares)} once, with train")
        for name, roles, known in (
            ("shares", self.shares, SPLITS),
            ("val_roles", self.val_roles, ("select", "calibrate", "threshold")),
            ("test_roles", self.test_roles, ("host", "report")),
        ):
            if any(v <= 0 for v in roles.values()) or abs(sum(roles.values()) - 1) > 1e-9:
                raise ValueError(f"{name} must be positive and add up to 1: {roles}")
            if name != "shares" and tuple(roles) != known:
                raise ValueError(f"{name} must be {known} in this order")
        if self.role_nside < self.nside or any(n & (n - 1) for n in (self.nside, self.role_nside)):
            raise ValueError("nside and role_nside are powers of two, role_nside the larger")
        return self


def parity(**other: object) -> Settings:
    """The 70/30 training and validation split of Inchausti et al. 2025 (theirs was random; ours stays by cell)."""
    return Settings(shares={"train": 0.70, "val": 0.30}, order=("train", "val"), **other)  # type: ignore[arg-type]
