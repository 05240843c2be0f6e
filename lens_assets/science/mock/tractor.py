"""The catalogue of a mock brick: what a model-fitting pipeline would have measured of each object, in sweep columns.

Fluxes scatter by the depth at the position (and by photons, which FLUX_IVAR leaves out, as in the release); TYPE is
confused as in reality; shapes scatter and stay within their bounds. Fits are not run: the link from truth to
measurement is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from lens_assets.science.hashing import generator
from lens_assets.science.mock.conditions import BandConditions
from lens_assets.science.mock.footprint import BrickPlan
from lens_assets.science.mock.sweepfile import BANDS4, SWEEP_DTYPE
from lens_assets.science.surveys.layout import BANDS, EXTINCTION, PIXEL_SCALE

F64 = npt.NDArray[np.float64]

TYPES = ("PSF", "REX", "EXP", "DEV", "SER")
TYPE_ODDS = {
    # Rows sum to 1. Lenses: measured shares of 4,788 matched positives; their like share these odds, so that TYPE
    # tells nothing about lensing. The rest is an assumption that reproduces the TYPE mix of the parent sample
    # (SER 49, DEV 18, REX 22, EXP 11 %).
    "lens": (0.01, 0.15, 0.04, 0.19, 0.61),
    "early": (0.01, 0.17, 0.03, 0.27, 0.52),
    "spiral": (0.0, 0.10, 0.20, 0.06, 0.64),
    "disc": (0.01, 0.54, 0.22, 0.05, 0.18),
    "edge_on": (0.0, 0.02, 0.28, 0.03, 0.67),
    "ring": (0.0, 0.08, 0.06, 0.26, 0.60),
    "clumpy": (0.0, 0.30, 0.28, 0.02, 0.40),
    "large": (0.0, 0.0, 0.07, 0.10, 0.83),
    "merger": (0.0, 0.15, 0.10, 0.20, 0.55),
    "faint": (0.10, 0.62, 0.16, 0.08, 0.04),
    "star": (1.0, 0.0, 0.0, 0.0, 0.0),
}


@dataclass
class Scene:
    """Objects of a brick, one entry each: position, class, and the truth that the measurement starts from."""

    kind: list[str] = field(default_factory=list)
    ra: list[float] = field(default_factory=list)
    dec: list[float] = field(default_factory=list)
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    flux: list[F64] = field(default_factory=list)
    re: list[float] = field(default_factory=list)
    q: list[float] = field(default_factory=list)
    pa: list[float] = field(default_factory=list)
    n: list[float] = field(default_factory=list)
    z: list[float] = field(default_factory=list)
    gaia: list[float] = field(default_factory=list)
    ebv: list[float] = field(default_factory=list)
    identity: list[str] = field(default_factory=list)

    def add(self, **values: object) -> None:
        """Append one object; every field is needed."""
        for name in self.__dataclass_fields__:
            getattr(self, name).append(values[name])


def measure(
    scene: Scene, plan: BrickPlan, seen: dict[str, BandConditions], bits: npt.NDArray[np.int32],
    bad: dict[str, npt.NDArray[np.bool_]], seed: int,
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int64]]:  # fmt: skip
    """Sweep rows of the objects that a catalogue would hold, and the index in ``scene`` of each. OBJID follows the
    scene's order.

    Kept: whatever has a band with exposures and a signal above 6 sigma in any band (the survey's own limit).
    """
    n = len(scene.x)
    rng = generator("mock measure", seed, plan.cell.brickid)
    x, y = np.array(scene.x), np.array(scene.y)
    true = np.array(scene.flux).reshape(n, 3)
    re, q = np.array(scene.re), np.array(scene.q)
    kinds = np.array(scene.kind)
    types = _types(kinds, re, seen, x, y, rng)
    point = types == "PSF"
    rows = np.zeros(n, SWEEP_DTYPE)
    noise = {b: rng.normal(size=(3, n)) for b in BANDS}
    signal = np.zeros(n)
    ix, iy = (np.clip(np.round(v).astype(int), 0, bits.shape[0] - 1) for v in (x, y))
    common = 1 + 0.02 * rng.normal(size=n) * ~point  # a model misses or adds light alike in all bands
    neighbour = _fracflux(x, y, true, re)
    for i, b in enumerate(BANDS):
        B = b.upper()
        if b not in seen:
            continue
        c = seen[b]
        nexp = c.at("nexp", x, y)
        here = nexp > 0
        depth, gal = c.at("psfdepth", x, y), c.at("galdepth", x, y)
        ivar = np.where(point, depth, gal / (1 + (re / 0.55) ** 2 * 0.5))
        with np.errstate(divide="ignore"):
            sigma = np.where(here, 1 / np.sqrt(np.maximum(ivar, 1e-12)), 0)
        iv_pixel = np.maximum(c.at("invvar", x, y), 1e-12)
        photons = np.sqrt(np.maximum(true[:, i], 0) / (c.sky * iv_pixel))
        flux = true[:, i] * common * (1 + 0.01 * noise[b][2] * ~point) + sigma * noise[b][0] + photons * noise[b][1]
        rows[f"FLUX_{B}"] = np.where(here, flux, 0)
        rows[f"FLUX_IVAR_{B}"] = np.where(here, ivar, 0)
        rows[f"NOBS_{B}"] = nexp
        rows[f"PSFSIZE_{B}"] = c.at("psfsize", x, y)
        rows[f"PSFDEPTH_{B}"], rows[f"GALDEPTH_{B}"] = depth, gal
        rows[f"RCHISQ_{B}"] = np.where(here, 1 + 0.05 * np.abs(noise[b][2]) + 2e-3 * np.maximum(flux, 0), 0)
        rows[f"FRACFLUX_{B}"] = np.where(here, neighbour[:, i] * np.exp(0.1 * noise[b][1]), 0)
        masked = bad[b][iy, ix]
        rows[f"FRACMASKED_{B}"] = np.where(here, np.where(masked, 0.6, 0.02 * np.abs(noise[b][0])), 0)
        rows[f"FRACIN_{B}"] = np.where(here, 1.0, 0)
        rows[f"ANYMASK_{B}"] = np.where(masked, 2, 0)
        rows[f"FIBERFLUX_{B}"] = rows[f"FIBERTOTFLUX_{B}"] = rows[f"FLUX_{B}"] / (1 + (re / 0.75) ** 1.5) * 0.78
        signal = np.maximum(signal, np.where(here, true[:, i] * np.sqrt(ivar), 0))
    _identity(rows, scene, plan, types, signal, rng)
    _shapes(rows, types, re, q, np.array(scene.pa), np.array(scene.n), signal, rng)
    _gaia(rows, np.array(scene.gaia), rng)
    rows["MASKBITS"] = bits[iy, ix]
    kept = np.flatnonzero(signal > 6)
    rows = rows[kept]
    rows["OBJID"] = np.arange(len(kept))
    return rows, kept


def _types(
    kinds: npt.NDArray[np.str_], re: F64, seen: dict[str, BandConditions], x: F64, y: F64, rng: np.random.Generator
) -> npt.NDArray[np.str_]:
    """TYPE by class, with what seeing does to small ones: SER, DEV and EXP below 0.35 FWHM are often no more than
    REX."""
    draw, smear = rng.random(len(kinds)), rng.random(len(kinds))
    odds = np.cumsum(np.array([TYPE_ODDS[k] for k in kinds]).reshape(-1, 5), axis=1)
    index = np.minimum((draw[:, None] > odds).sum(axis=1), 4)
    types = np.array(TYPES)[index]
    width = np.max([seen[b].at("psfsize", x, y) for b in seen], axis=0) if seen else np.zeros(len(x))
    blurred = (re < 0.35 * width) & (index >= 2) & (smear < 0.5)
    return np.where(blurred, "REX", types)


def _fracflux(x: F64, y: F64, flux: F64, re: F64) -> F64:
    """Neighbours' flux under each object's profile over its own flux, Gaussians of the objects' sizes, within 12"."""
    n = len(x)
    total = np.zeros((n, 3))
    pairs = cKDTree(np.stack([x, y], 1)).query_pairs(12 / PIXEL_SCALE, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    width2 = (re / PIXEL_SCALE / 1.2) ** 2 + 2.2**2
    for a, b in ((0, 1), (1, 0)):
        i, j = pairs[:, a], pairs[:, b]
        d2 = (x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2
        overlap = np.exp(-0.5 * d2 / (width2[i] + width2[j])) * 2 * width2[i] / (width2[i] + width2[j])
        for k in range(3):
            np.add.at(total[:, k], i, overlap * flux[j, k])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0, total / np.maximum(flux, 1e-6), 0)


def _identity(
    rows: npt.NDArray[np.void],
    scene: Scene,
    plan: BrickPlan,
    types: npt.NDArray[np.str_],
    signal: F64,
    rng: np.random.Generator,
) -> None:
    n = len(rows)
    # 598 of 366,898 bricks were done again for 10.1; one in ten here, so that both values of RELEASE occur. Assumption.
    rows["RELEASE"] = 10002 if plan.cell.brickid % 10 == 0 else 10000
    rows["BRICKID"], rows["BRICKNAME"] = plan.cell.brickid, plan.cell.name
    rows["TYPE"] = types
    error = np.clip(0.6 / np.maximum(signal, 1), 0.002, 0.3) / 3600
    dec = np.array(scene.dec)
    rows["RA"] = (np.array(scene.ra) + error * rng.normal(size=n) / np.cos(np.radians(dec))) % 360
    rows["DEC"] = dec + error * rng.normal(size=n)
    # a primary object lies in its own brick: measurement scatter may not carry it across the edge
    rows["RA"] = np.clip(rows["RA"], plan.cell.ra1, np.nextafter(plan.cell.ra2, plan.cell.ra1))
    rows["DEC"] = np.clip(rows["DEC"], plan.cell.dec1, np.nextafter(plan.cell.dec2, plan.cell.dec1))
    rows["RA_IVAR"] = rows["DEC_IVAR"] = 1 / error**2
    ebv = np.array(scene.ebv)
    rows["EBV"] = ebv
    for b in BANDS4:
        rows[f"MW_TRANSMISSION_{b}"] = 10 ** (-0.4 * EXTINCTION[b.lower()] * ebv)
    for w, a in (("W1", 0.184), ("W2", 0.113), ("W3", 0.024), ("W4", 0.0)):
        rows[f"MW_TRANSMISSION_{w}"] = 10 ** (-0.4 * a * ebv)
        rows[f"NOBS_{w}"] = 60
    true = np.maximum(np.array(scene.flux).reshape(n, 3), 1e-3)
    rz = np.clip(2.5 * np.log10(true[:, 2] / true[:, 1]), -0.5, 2.5)
    star = np.array(scene.kind) == "star"
    w1 = true[:, 2] * 10 ** (0.4 * np.where(star, -0.5, 0.4 + 1.0 * rz) + 0.06 * rng.normal(size=n))
    for w, share, depth in (("W1", 1.0, 7.0), ("W2", 0.65, 1.6), ("W3", 0.5, 2.0e-3), ("W4", 0.6, 4.0e-5)):
        rows[f"FLUX_{w}"] = w1 * share + rng.normal(size=n) / np.sqrt(depth)
        rows[f"FLUX_IVAR_{w}"] = depth
        rows[f"RCHISQ_{w}"] = 1.0
    rows["PSFDEPTH_W1"], rows["PSFDEPTH_W2"] = 7.0, 1.6
    base = signal**2
    gain = {"PSF": (1, 0.9, 0.9, 0.9, 0.9), "REX": (0.97, 1, 1, 1, 1), "DEV": (0.9, 0.97, 1, 0.98, 1),
            "EXP": (0.9, 0.97, 0.98, 1, 1), "SER": (0.9, 0.96, 0.98, 0.98, 1)}  # fmt: skip
    rows["DCHISQ"] = base[:, None] * np.array([gain[str(t)] for t in types]).reshape(-1, 5)
    rows["WISE_COADD_ID"] = f"{plan.cell.ra:04.0f}{'p' if plan.cell.dec >= 0 else 'm'}{abs(plan.cell.dec):03.0f}"


def _shapes(
    rows: npt.NDArray[np.void], types: npt.NDArray[np.str_], re: F64, q: F64, pa: F64, index: F64, signal: F64,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    n = len(rows)
    blur = np.clip(1.5 / np.maximum(signal, 1), 0.01, 0.3)
    point, round_ = types == "PSF", (types == "PSF") | (types == "REX")
    shape = np.clip(re * np.exp((0.06 + blur) * rng.normal(size=n)), 0.02, 20.0)
    shape = np.where(types == "REX", shape * np.sqrt(q), shape)
    rows["SHAPE_R"] = np.where(point, 0, shape)
    rows["SHAPE_R_IVAR"] = np.where(point, 0, 1 / (shape * (0.02 + blur)) ** 2)
    e = (1 - q) / (1 + q)
    phi = np.arctan2(-np.cos(pa), np.sin(pa))  # position angle East of North; East is at -x
    for name, value in (("E1", e * np.cos(2 * phi)), ("E2", e * np.sin(2 * phi))):
        noisy = np.clip(value + (0.015 + 0.5 * blur) * rng.normal(size=n), -0.7, 0.7)
        rows[f"SHAPE_{name}"] = np.where(round_, 0, noisy)
        rows[f"SHAPE_{name}_IVAR"] = np.where(round_, 0, 1 / (0.015 + 0.5 * blur) ** 2)
    sersic = np.clip(index * np.exp((0.12 + blur) * rng.normal(size=n)), 0.5, 6.0)
    ser = types == "SER"
    rows["SERSIC"] = np.where(ser, sersic, 0)
    rows["SERSIC_IVAR"] = np.where(ser, 1 / (0.1 + blur) ** 2, 0)
    rows["FITBITS"] = np.where(ser & ((sersic <= 0.5) | (sersic >= 6)), 1 << 3, 0)


def _gaia(rows: npt.NDArray[np.void], gaia: F64, rng: np.random.Generator) -> None:
    known = np.isfinite(gaia) & (gaia < 20.7)
    n = len(rows)
    rows["REF_CAT"] = np.where(known, "GE", "")
    rows["REF_ID"] = np.where(known, rng.integers(1, 1 << 60, n), 0)
    rows["REF_EPOCH"] = np.where(known, 2016.0, 0)
    magnitude = np.nan_to_num(gaia)
    for band, shift in (("G", 0.0), ("BP", 0.4), ("RP", -0.6)):
        rows[f"GAIA_PHOT_{band}_MEAN_MAG"] = np.where(known, magnitude + shift, 0)
        rows[f"GAIA_PHOT_{band}_MEAN_FLUX_OVER_ERROR"] = np.where(known, 10 ** (0.2 * (21 - magnitude)) * 30, 0)
    for stem, scale in (("PARALLAX", 1.0), ("PMRA", 6.0), ("PMDEC", 6.0)):
        rows[stem] = np.where(known, scale * rng.normal(size=n), 0)
        rows[f"{stem}_IVAR"] = np.where(known, 25.0, 0)
    rows["GAIA_ASTROMETRIC_PARAMS_SOLVED"] = np.where(known, 31, 0)
    rows["FITBITS"] |= np.where(known, (1 << 7) | (1 << 12), 0).astype(np.int16)
