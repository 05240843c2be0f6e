"""Settings of the negatives room: exclusion radius, sampling ratio, mixture and the thresholds of the N2 proxies.

The cuts on the parent sample are not here but in the named selection profiles (``config/selections/*.yaml``).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

CATEGORIES = (
    "artefact-near-star-proxy",
    "merger-blend-proxy",
    "spiral-proxy",
    "edge-on-proxy",
    "blue-clumpy-proxy",
    "large-galaxy-proxy",
    "ring-proxy",
)
"""N2 categories in order of priority: the narrow and physically specific ones first, the broad ones last (the ring
proxy takes nearly every bright DEV, so that in front it would empty the others). All are catalogue proxies; an object
is a ring or a merger only after an image-based confirmation."""


class N2Thresholds(BaseModel):
    """Thresholds of the confuser proxies (science contract, section 2); fluxes in nanomaggies, radii in arcsec.

    The bright-neighbour, FRACFLUX and star limits are choices of this project: the contract names the proxy, not its
    number. Magnitudes and colours are observed ones, not dereddened, as in the rules these were taken from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ring_sersic_min: float = 4.0
    ring_flux_r_min: float = 5.0
    edge_on_ellipticity_min: float = 0.50
    edge_on_radius_min: float = 0.6
    blue_gr_max: float = 0.4
    blue_mag_r_max: float = 20.5
    large_radius_min: float = 2.0
    large_flux_r_min: float = 3.0
    spiral_gr_min: float = 0.4
    """Exclusive: the blue proxy ends where the spiral one begins."""
    spiral_gr_max: float = 0.7
    spiral_radius_min: float = 0.8
    spiral_sersic_max: float = 2.0
    """Exclusive, for SER."""
    neighbour_min_arcsec: float = 3.0
    neighbour_max_arcsec: float = 6.0
    neighbour_flux_r_min: float = 1.0
    neighbour_flux_ratio_min: float = Field(0.2, gt=0)
    """A neighbour counts as bright at this fraction of the object's own r flux, and above the floor."""
    fracflux_min: float = 0.5
    """In any of g, r, z: half the profile-weighted flux comes from neighbours."""
    star_maskbits: tuple[str, ...] = ("BRIGHT", "MEDIUM")
    tycho_radius_arcsec: float = 30.0
    gaia_radius_arcsec: float = 10.0
    gaia_flux_r_min: float = 158.5
    """r = 17.0: fainter Gaia stars leave no halo or spike at 10 arcsec."""


class Settings(BaseModel):
    """How pools are built and sampled; the defaults are the paper-grade values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    selection: str = "paper-iv"
    exclusion_arcsec: float = Field(11.0, gt=0)
    """5" + 2 x 3": a lens's arcs, and twice the matching radius."""
    negatives_per_positive: float = Field(100.0, gt=0)
    n2_share: float = Field(0.15, ge=0, le=1)
    mix_tolerance: float = Field(0.01, gt=0)
    """Largest accepted distance of the realised N2 share from ``n2_share``."""
    max_mix_trim: float = Field(0.5, ge=0, le=1)
    """Share of the draw that may be given up to hold the mixture; beyond it nothing is, and the mixture check fails."""
    fill_reach: int = Field(1, ge=0, le=4)
    """How many nobs_z bins away a shortfall may be filled from; 1 is the neighbouring bin."""
    seed: int = 20261123
    n2: N2Thresholds = N2Thresholds()
    priority: tuple[str, ...] = CATEGORIES

    @field_validator("priority")
    @classmethod
    def _a_permutation(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if sorted(value) != sorted(CATEGORIES):
            raise ValueError(f"priority must hold each category once: {CATEGORIES}")
        return value
