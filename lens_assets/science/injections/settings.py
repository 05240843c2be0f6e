"""What an injection campaign is: grid, sample sizes, seeds. Defaults are the published grid (385 cells)."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


def _grid(first: float, step: float, n: int) -> tuple[float, ...]:
    return tuple(round(first + step * i, 4) for i in range(n))


class GalaxySettings(BaseModel):
    """How a catalogue of real galaxies becomes sources."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deconvolve: bool = True
    """Replace the stamps' point-spread function by a round Gaussian; else it counts as part of the galaxy."""
    target_fwhm: float = Field(0.10, gt=0)
    """FWHM (arcsec) of that one, before a galaxy is scaled. HST's is 0.11. Narrower is sharper, and the noise that is made
    larger looks like structure: at 0.08 the error of a plane is 1.7 times that at 0.10, at 0.06 three to five times."""
    least_radius: float = Field(0.10, gt=0)
    """Galaxies with a smaller half-light radius (arcsec) show nothing but their point-spread function."""
    recovery_share: float = Field(0.5, gt=0, le=1)
    """Share of the catalogue that injections may use; the rest is for training sets."""
    most: int = Field(1000, ge=1)
    """Galaxies prepared at most."""


class Settings(BaseModel):
    """Grid of cell centres and how many injections each cell gets.

    A host belongs to the cell whose half-open interval [centre - step/2, centre + step/2) holds its own ``psfsize_r``
    (arcsec) and ``depth_r`` (5-sigma point-source AB mag); outside the grid it is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    theta_e: tuple[float, ...] = _grid(0.5, 0.25, 11)
    """Einstein radii, arcsec."""
    psf_centres: tuple[float, ...] = _grid(0.9, 0.15, 7)
    """PSF FWHM in r, arcsec."""
    depth_centres: tuple[float, ...] = _grid(22.5, 0.5, 5)
    """5-sigma point-source depth in r, AB mag."""
    psf_step: float = Field(0.15, gt=0)
    depth_step: float = Field(0.5, gt=0)
    per_cell: int = Field(200, ge=1)
    """Injections wanted per cell (theta_e, psf, depth)."""
    sufficient: int = Field(200, ge=1)
    """Fewer injections than this and a cell is insufficient; a practice profile may lower ``per_cell`` but not hide
    it."""
    max_host_reuse: int = Field(20, ge=1)
    """At most so many injections of one host per (variant, theta_e); a cell with too few hosts stays short."""
    max_hosts_per_cell: int = Field(2000, ge=1)
    """Hosts kept per (psf, depth) cell: those of smallest hash of (galaxy_id, seed)."""
    host_role: str = "host"
    """Only galaxies of this role of the split may host."""
    annulus: tuple[float, float] = (4.0, 16.0)
    """Arc annulus, pixels."""
    seed: int = 20261123
    galaxies: GalaxySettings = GalaxySettings()
    """Real galaxies as sources; the catalogue itself is named by ``LENS_ASSETS_GALAXIES``."""
    chunk: int = Field(256, ge=1)
    """Injections rendered at a time; results do not depend on it."""
    threads: int = Field(0, ge=0)
    """That render; 0: one a processor of the machine. Results do not depend on it."""
    backend: Literal["adaptive", "torch"] = "adaptive"
    """``torch``: whole chunks at a time, on the GPU where there is one. The same to rounding (``render``), so a row alone, another
    chunk or another card is not the same bytes: the choice is part of a batch's identity."""

    @model_validator(mode="after")
    def _regular(self) -> Settings:
        for name, step in (("psf_centres", self.psf_step), ("depth_centres", self.depth_step)):
            centres = getattr(self, name)
            if not centres or list(centres) != sorted(set(centres)):
                raise ValueError(f"{name} must be increasing and not empty")
            if any(b - a < step - 1e-9 for a, b in pairwise(centres)):
                raise ValueError(f"cells of {name} overlap: centres closer than their width {step}")
        if not self.theta_e or min(self.theta_e) <= 0:
            raise ValueError("theta_e must be positive")
        return self

    @property
    def processors(self) -> int:
        """How many threads render."""
        return self.threads or os.cpu_count() or 1

    def theta_key(self, theta_e: float) -> str:
        """Partition key of an Einstein-radius bin, for instance ``1.25``."""
        if not any(abs(theta_e - t) < 1e-9 for t in self.theta_e):
            raise ValueError(f"theta_e {theta_e} is not in the grid {self.theta_e}")
        return f"{theta_e:.2f}"
