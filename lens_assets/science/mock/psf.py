"""Point spread functions in Fourier space: Moffat, of any width and slight ellipticity, and the norms that depth needs.

PSFSIZE is taken as the FWHM of the effective (pixel-convolved) PSF, as a coadd's PSF model is, so no pixel is
convolved again. GalSim computes the transfer functions once a slope; a width then is a scaling of the wave number.
"""

from __future__ import annotations

from functools import lru_cache

import galsim
import numpy as np
import numpy.typing as npt

from lens_assets.science.surveys.layout import PIXEL_SCALE

F64 = npt.NDArray[np.float64]
_LOG_K = np.linspace(np.log(1e-3), np.log(300.0), 700)


@lru_cache
def moffat_table(beta: float) -> F64:
    """Transfer function of a Moffat of FWHM 1 at wave numbers exp(``_LOG_K``)."""
    profile = galsim.Moffat(beta=beta, fwhm=1.0)
    return np.array([profile.kValue(float(k), 0.0).real for k in np.exp(_LOG_K)])


def transfer(beta: float, k: F64) -> F64:
    """Transfer function at ``k`` = wave number x FWHM (dimensionless, any shape)."""
    return np.interp(np.log(np.maximum(k, 1e-3)), _LOG_K, moffat_table(beta), right=0.0)


def point_norm2(beta: float, fwhm: npt.ArrayLike) -> F64:
    """Sum of the squared PSF over pixels (1/pixels), so that psfdepth = invvar x norm; ``fwhm`` in arcsec.

    For a Moffat, the integral of p^2 is (beta - 1)^2 / (pi alpha^2 (2 beta - 1)), alpha = FWHM / (2 sqrt(2^(1/beta) -
    1)).
    """
    alpha = np.asarray(fwhm, float) / PIXEL_SCALE / (2 * np.sqrt(2 ** (1 / beta) - 1))
    return np.asarray((beta - 1) ** 2 / (np.pi * alpha**2 * (2 * beta - 1)))


GALAXY_RE = 0.45
"""arcsec: half-light radius of the round exponential that GALDEPTH is defined by (DR10 `catalogs` page)."""


def exponential_norm2(beta: float, fwhm: npt.ArrayLike, re: float = GALAXY_RE) -> F64:
    """The same for a round exponential of half-light radius ``re`` (arcsec) seen through the PSF: galdepth = invvar x
    norm.

    Parseval: (1 / 2 pi) integral k T_exp^2 T_psf^2 dk, T_exp = (1 + (k h)^2)^-1.5, h = re / 1.6783.
    """
    width = np.ravel(np.asarray(fwhm, float)) / PIXEL_SCALE
    k = np.linspace(0, np.pi, 400)
    h = re / PIXEL_SCALE / 1.6783469900166605
    exp = (1 + (k * h) ** 2) ** -1.5
    psf = transfer(beta, k[None, :] * width[:, None])
    return np.asarray(np.trapezoid(k * (exp * psf) ** 2, k, axis=1) / (2 * np.pi)).reshape(np.shape(fwhm))
