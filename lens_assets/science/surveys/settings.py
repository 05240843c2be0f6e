"""Settings of the surveys room: what counts as the right release, and the edges of the observing conditions."""

from __future__ import annotations

import itertools
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MISSING_BIN = -9
"""Bin of a condition that was not measured (no exposure: PSF size or depth is zero in the catalogue)."""
BELOW_BIN = -1
"""Bin below the first edge. Above the last edge the bin is ``len(edges) - 1``, one past the last real one."""


class Settings(BaseModel):
    """Surveys settings (frozen).

    ``psf_edges`` (arcsec FWHM, r band) and ``depth_edges`` (5-sigma point-source AB magnitude, r band) are the
    half-width intervals ``[c - h, c + h)`` of the completeness grid's centres 0.90-1.80 by 0.15 and 22.5-24.5 by 0.5
    (science contract, section 7), and two bins deeper, so that one table serves the grid that reaches 25.5 too.
    ``nobs_edges`` are the lower edges of the z-band exposure bins 0, 1-2, 3-5, 6-10, 11+ (section 2).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    release_series: int = Field(10, description="RELEASE // 1000 of the data release that is read (10000, 10002: DR10)")
    psf_edges: tuple[float, ...] = (0.825, 0.975, 1.125, 1.275, 1.425, 1.575, 1.725, 1.875)
    depth_edges: tuple[float, ...] = (22.25, 22.75, 23.25, 23.75, 24.25, 24.75, 25.25, 25.75)
    nobs_edges: tuple[int, ...] = (0, 1, 3, 6, 11)
    verify_datasum: bool = Field(
        True, description="check DATASUM of the FITS files that carry one (finds flipped bytes)"
    )
    max_outside_fraction: float = Field(
        0.01, ge=0, le=1, description="share of objects outside the tile above which the file is refused, not cleaned"
    )

    @model_validator(mode="after")
    def _edges_rise(self) -> Self:
        for name in ("psf_edges", "depth_edges", "nobs_edges"):
            edges = getattr(self, name)
            if len(edges) < 2 or any(b <= a for a, b in itertools.pairwise(edges)):
                raise ValueError(f"{name}: needs at least two edges, strictly rising, not {edges}")
        return self
