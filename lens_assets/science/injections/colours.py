"""Colours of sources by physics or by example: a dusty star-forming spectrum at a redshift, or rows of a table.

Independent or correlated normal draws (``PriorSet.g_r``, ``r_z``, ``colour_correlation``) make colours that no galaxy
has at any redshift. Here are two alternatives: ``Spectra`` integrates a star-forming spectrum through the bands, and
``ColourTable`` draws magnitude, colours and size together from measured galaxies.

The spectrum, all of it analytic (no stellar library): f_lambda ~ lambda^slope in the ultraviolet (Meurer, Heckman &
Calzetti 1999, ApJ 521, 64: -2.23 without dust), a Balmer/4000 A step, f_nu ~ lambda^optical redwards, reddened by the
starburst law of Calzetti et al. 2000 (ApJ 533, 682, eq. 4), absorbed by the Lyman series of the intergalactic medium
(Madau 1995, ApJ 441, 18, eq. 12-15) and black below the Lyman limit. Bands are boxes of the nominal width of DECam's.

What does not belong here: normal colours (``batch``), the numbers (``config/injections/priors.yaml``).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, field_validator, model_validator

from lens_assets.science.errors import BadInput
from lens_assets.science.injections.distributions import Distribution, Frozen, describe

F64 = npt.NDArray[np.float64]
BAND_EDGES = {"g": (3980.0, 5480.0), "r": (5680.0, 7160.0), "z": (8500.0, 10000.0)}
"""ASSUMPTION. Bands as boxes (Angstrom): half-power edges of DECam's filters, nominal; atmosphere and CCD ignored. For
smooth spectra a colour moves by less than 0.03 mag when an edge moves by 100 A."""
_LYMAN = ((1215.67, 3.6e-3), (1025.72, 1.7e-3), (972.54, 1.2e-3), (949.74, 9.3e-4))
_LIMIT = 911.75
_STEP = (3646.0, 4000.0)
_SAMPLES = 48


def reddening(wavelength: npt.ArrayLike) -> F64:
    """k(lambda) = A / E(B - V) of starbursts at rest wavelengths (Angstrom): Calzetti et al. 2000, eq. 4.

    Defined from 0.12 to 2.2 micron; kept at its end value outside.
    """
    w = np.clip(np.asarray(wavelength, dtype=np.float64) * 1e-4, 0.12, 2.2)
    blue = 2.659 * (-2.156 + 1.509 / w - 0.198 / w**2 + 0.011 / w**3)
    return np.asarray(np.where(w < 0.63, blue, 2.659 * (-1.857 + 1.040 / w)) + 4.05)


def transmission(observed: F64, z: F64) -> F64:
    """Mean transmission of the intergalactic medium at observed wavelengths (Angstrom): Lyman lines, then nothing."""
    depth = np.zeros(np.broadcast_shapes(observed.shape, z.shape))
    for line, strength in _LYMAN:
        depth += np.where(observed < line * (1 + z), strength * (observed / line) ** 3.46, 0.0)
    return np.asarray(np.where(observed < _LIMIT * (1 + z), 0.0, np.exp(-depth)))


def spectrum(rest: F64, slope: F64, step: F64, optical: F64, ebv: F64) -> F64:
    """f_nu (any unit) at rest wavelengths (Angstrom) of the star-forming spectrum of the module's first lines."""
    lo, hi = _STEP
    ramp = 1.0 + (step - 1.0) * np.clip((rest - lo) / (hi - lo), 0.0, 1.0)
    bent = np.where(rest < lo, (rest / lo) ** (slope + 2.0), (rest / lo) ** optical)
    return np.asarray(bent * ramp * 10 ** (-0.4 * ebv * reddening(rest)))


class Spectra(Frozen):
    """What a star-forming spectrum is drawn from: redshift, ultraviolet slope, step at 4000 A, optical slope, dust."""

    redshift: Distribution
    uv_slope: Distribution
    step: Distribution
    """f_nu just above 4000 A over that just below the Balmer limit."""
    optical_slope: Distribution
    ebv: Distribution
    """E(B - V) of the stars, mag."""

    def colours(self, z: F64, slope: F64, step: F64, optical: F64, ebv: F64) -> tuple[F64, F64]:
        """g - r and r - z (AB mag) of spectra (n,) each: photon-weighted mean f_nu of each band."""
        column = [np.asarray(a, dtype=np.float64)[:, None] for a in (z, slope, step, optical, ebv)]
        mags = {}
        for band, (lo, hi) in BAND_EDGES.items():
            edges = np.exp(
                np.linspace(np.log(lo), np.log(hi), _SAMPLES + 1)
            )  # equal steps of ln(lambda): photons of f_nu
            observed = np.sqrt(edges[1:] * edges[:-1])[None, :]
            flux = spectrum(observed / (1 + column[0]), *column[1:]) * transmission(observed, column[0])
            mags[band] = -2.5 * np.log10(np.maximum(flux.mean(axis=1), 1e-30))
        return mags["g"] - mags["r"], mags["r"] - mags["z"]

    def __str__(self) -> str:
        return (
            f"z {describe(self.redshift)}, UV slope {describe(self.uv_slope)}, 4000 A step {describe(self.step)}, "
            f"optical slope {describe(self.optical_slope)}, E(B - V) {describe(self.ebv)}"
        )


class ColourTable(Frozen):
    """A file of measured galaxies, whose rows are drawn whole: ``r_mag, g_r, r_z, re`` and, if there, ``weight``.

    CSV with a header; magnitudes AB, unlensed, observed frame; half-light radius in arcsec. ``file`` is absolute or
    relative to the folder of the shipped priors; ``sha256`` is part of the identity of the set, the path is not.
    """

    file: str
    sha256: str = Field("", pattern=r"([0-9a-f]{64})?")
    reference: str

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, body: Any) -> Any:
        if isinstance(body, dict) and body.get("file") and not body.get("sha256"):
            return {**body, "sha256": hashlib.sha256(_read(str(body["file"]))).hexdigest()}
        return body

    @field_validator("reference")
    @classmethod
    def _said(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("say which survey and selection the rows come from")
        return text

    def rows(self, u: F64) -> dict[str, F64]:
        """Rows at the uniform deviates ``u``: magnitude, colours and size, (n,) each, of the same galaxy."""
        table = _table(self.file, self.sha256)
        place = np.searchsorted(table["edges"][:-1], u, side="right")
        return {name: table[name][place] for name in _COLUMNS}

    def __str__(self) -> str:
        n = len(_table(self.file, self.sha256)["re"])
        return f"{n} rows, sha256 {self.sha256[:12]} ({self.reference})"


_COLUMNS = ("r_mag", "g_r", "r_z", "re")


def _read(file: str) -> bytes:
    folder = resources.files("lens_assets") / "config" / "injections"
    try:
        return Path(file).read_bytes() if Path(file).is_absolute() else (folder / file).read_bytes()
    except OSError as fault:
        raise BadInput("the table of colours cannot be read", file=file) from fault


@lru_cache(maxsize=4)
def _table(file: str, sha256: str) -> dict[str, F64]:
    raw = _read(file)
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise BadInput(f"the table of colours is another one: sha256 {found}, not {sha256}", file=file)
    frame = pl.read_csv(raw)
    for name in _COLUMNS:
        if name not in frame.columns:
            raise BadInput("the table of colours needs this column", file=file, column=name)
    columns = {name: frame[name].cast(pl.Float64).to_numpy() for name in _COLUMNS}
    weight = frame["weight"].cast(pl.Float64).to_numpy() if "weight" in frame.columns else np.ones(frame.height)
    good = np.all([np.isfinite(c) for c in columns.values()], axis=0) & (columns["re"] > 0) & (weight >= 0)
    if not good.all() or not weight.sum() > 0:
        row = int(np.flatnonzero(~good)[0]) if not good.all() else 0
        raise BadInput("not finite, no size, or no weight", file=file, row=row)
    return {**columns, "edges": np.cumsum(weight) / weight.sum()}
