"""The massive early types that lens, and their like that do not: mass, redshift, light. Shared so that host light
tells nothing.

Light follows the velocity dispersion (Faber & Jackson; sizes as in LensPop, Collett 2015) with real scatter, and is
tuned to the measured magnitudes and colours of published lens candidates: z 18.64 (16.64-19.79), g-r 1.62, r-z 1.13.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from astropy.cosmology import FlatLambdaCDM

from lens_assets.science.mock.settings import Settings

F64 = npt.NDArray[np.float64]
C_KM_S = 299_792.458
_Z = np.linspace(0.0, 6.0, 1201)


@lru_cache
def _distances() -> tuple[F64, F64]:
    """Comoving distance (Mpc) and distance modulus on the redshift grid; flat, H0 = 70, Om = 0.3."""
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    comoving = np.asarray(cosmology.comoving_distance(_Z).value, float)
    return comoving, 25 + 5 * np.log10(np.maximum(comoving * (1 + _Z), 1e-3))


def comoving(z: float) -> float:
    """Comoving distance, Mpc."""
    return float(np.interp(z, _Z, _distances()[0]))


def dispersion(theta_e: float, z_lens: float, z_source: float) -> float:
    """Velocity dispersion (km/s) of the isothermal sphere of Einstein radius ``theta_e`` (arcsec)."""
    ratio = 1 - comoving(z_lens) / comoving(z_source)  # D_ls / D_s in a flat universe
    return C_KM_S * float(np.sqrt(np.radians(theta_e / 3600) / (4 * np.pi * ratio)))


@dataclass(frozen=True)
class Deflector:
    """A would-be lens: Einstein radius (arcsec), redshifts, dispersion (km/s), and its light as one profile."""

    theta_e: float
    z: float
    z_source: float
    sigma_v: float
    flux: F64
    re: float
    q: float
    pa: float
    n: float


def deflector_light(s: Settings, rng: np.random.Generator, faintest: float = 19.98) -> Deflector:
    """Draw a deflector brighter than ``faintest`` in z: the parent sample's own cut, so lenses and their like share
    it."""
    while True:
        d = _draw(s, rng)
        if 22.5 - 2.5 * np.log10(d.flux[2]) < faintest:
            return d


def _draw(s: Settings, rng: np.random.Generator) -> Deflector:
    median, scatter, least, most = s.theta_e
    theta = 0.0
    while not least <= theta <= most:
        theta = float(median * np.exp(scatter * rng.normal()))
    z = float(np.clip(rng.normal(0.48, 0.16), 0.12, 0.9))
    z_source = float(np.clip(z + 0.3 + rng.gamma(3.0, 0.4), z + 0.3, 4.5))
    sigma = dispersion(theta, z, z_source)
    v = np.log10(np.clip(sigma, 120, 420))
    modulus = float(np.interp(z, _Z, _distances()[1])) - float(np.interp(0.5, _Z, _distances()[1]))
    # Faber-Jackson slope 4, flattened to 3.2 by lenses' own scatter; fading beyond distance by the K-correction,
    # 1.0 mag per z
    mag = 19.65 + modulus + 1.0 * (z - 0.5) - 8.0 * (v - np.log10(250)) + 0.35 * rng.normal()
    gr = float(np.interp(z, [0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.9], [0.92, 1.2, 1.48, 1.68, 1.74, 1.72, 1.6]))
    rz = float(np.interp(z, [0.1, 0.3, 0.5, 0.7, 0.9], [0.55, 0.78, 1.08, 1.5, 1.75]))
    gr, rz = gr + 0.09 * rng.normal(), rz + 0.07 * rng.normal()
    kpc = 1.3 * 10 ** (2.46 - 2.79 * v + 0.84 * v**2 + 0.13 * rng.normal())  # LensPop sizes, 1.3 for the envelope
    re = float(np.clip(kpc / (comoving(z) * 1e3 / (1 + z)) * 206_265, 0.3, 6.0))
    q = float(np.clip(1 - rng.rayleigh(0.378 - 0.000572 * min(sigma, 400)), 0.3, 1.0))
    n = float(np.clip(rng.normal(4.2, 0.9), 2.0, 6.0))
    flux = 10 ** (0.4 * (22.5 - np.array([mag + rz + gr, mag + rz, mag])))
    return Deflector(theta, z, z_source, sigma, flux, re, q, float(rng.uniform(0, np.pi)), n)
