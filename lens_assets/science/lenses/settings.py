"""Settings of the lenses room, and the closed lists of labels, tiers and kinds.

``visual_*`` is what somebody saw in an image, ``spec_*`` what a spectrum says; the two are never mixed, because a
published list's "confident" (a visual grade) was once quoted as a spectroscopic confirmation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Label(StrEnum):
    """What is known of one row of one channel."""

    VISUAL_A = "visual_A"
    VISUAL_B = "visual_B"
    VISUAL_C = "visual_C"
    SPEC_LENS_Z = "spec_lens_z"
    """A spectroscopic redshift of the deflector only: it does not confirm a lens."""
    SPEC_SOURCE_Z = "spec_source_z"
    """A spectroscopic redshift of the source only, as of many lensed quasars: no confirmation either."""
    SPEC_BOTH_Z = "spec_both_z"
    """Spectroscopic redshifts of deflector and source."""
    NOT_LENS = "not_lens"
    """Looked at again and found to be something else: no positive, and no negative either."""
    CANDIDATE = "candidate"
    """Listed without a grade."""


VISUAL = frozenset({Label.VISUAL_A, Label.VISUAL_B, Label.VISUAL_C})
SPECTROSCOPIC = frozenset({Label.SPEC_LENS_Z, Label.SPEC_SOURCE_Z, Label.SPEC_BOTH_Z})

Kind = Literal["galaxy", "group", "cluster", "quasar", "supernova"]
KINDS: tuple[Kind, ...] = ("galaxy", "group", "cluster", "quasar", "supernova")
Tier = Literal["confirmed", "A", "B", "none"]
TIERS: tuple[Tier, ...] = ("confirmed", "A", "B", "none")


ObjectType = Literal["SER", "DEV", "EXP", "REX", "PSF", "DUP"]


class Settings(BaseModel):
    """Lens settings (frozen). Radii in arcsec; the values are those of the science contract, section 2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fof_radius_arcsec: float = Field(3.0, gt=0, le=5, description="linking length of the registry")
    match_radius_arcsec: float = Field(3.0, gt=0, le=5, description="largest separation of a match; above 5 is refused")
    search_radius_arcsec: float = Field(
        30.0, gt=0, le=300, description="how far an unmatched system's nearest object is looked for, to give the reason"
    )
    match_types: tuple[ObjectType, ...] = Field(
        ("SER", "DEV", "EXP", "REX", "PSF"), description="TYPEs a system may match; DUP is no object of its own"
    )
    weight_confirmed: float = Field(1.0, gt=0, le=1)
    weight_a: float = Field(1.0, gt=0, le=1)
    weight_b: float = Field(
        0.5, ge=0.3, le=0.6, description="tier B is noisy: 38 % of the public rows match no candidate"
    )
    z_conflict: float = Field(0.05, gt=0, description="|dz| / (1 + z) above which two redshifts of a system disagree")
    z_conflict_spec: float = Field(0.005, gt=0, description="the same, between two spectroscopic lists")
    theta_e_conflict: float = Field(
        0.3, gt=0, description="relative difference above which two Einstein radii disagree"
    )
    compilations_lift: bool = Field(
        True,
        description="whether the grade of a compilation (lenscat's 'probable') counts where a list it was made from grades the "
        "same system; false: the list's own visual grade does, and 'probable' lifts no published grade C into tier B",
    )
    train_kinds: tuple[Kind, ...] = ("galaxy", "group", "cluster")

    def weight(self, tier: str) -> float:
        """Weight of a tier in the loss; 0 for ``none``."""
        return {"confirmed": self.weight_confirmed, "A": self.weight_a, "B": self.weight_b}.get(tier, 0.0)
