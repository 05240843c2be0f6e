"""Observing conditions of a brick: exposures with CCD gaps, seeing and depth that step across the image.

Every exposure has its own pointing offset, seeing, depth and CCDs; the coadd maps follow from them as the survey's do:
invvar is the sum of the exposures' sky inverse variances, PSFSIZE the mean FWHM weighted by it, PSFDEPTH and GALDEPTH
the sum of invvar x PSF norm. All maps are constant on the rectangles that the CCD edges cut, so they are computed
there and expanded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lens_assets.science.hashing import generator
from lens_assets.science.mock.footprint import BrickPlan
from lens_assets.science.mock.psf import exponential_norm2, point_norm2
from lens_assets.science.mock.settings import MockSize, Settings
from lens_assets.science.surveys.layout import BANDS, PIXEL_SCALE, ZERO_POINT

F32 = npt.NDArray[np.float32]

CCD = (4096, 2048)
"""Imaging pixels of a DECam CCD along the long (E-W) and the short side."""
CCD_GAP = (201, 153)
"""Pixels between CCDs."""


@dataclass(frozen=True)
class BandConditions:
    """Maps of one band on rectangles: ``xs`` and ``ys`` are the pixel edges, every map has shape (ny, nx)."""

    band: str
    beta: float
    ellipticity: tuple[float, float]
    sky: float
    xs: npt.NDArray[np.int64]
    ys: npt.NDArray[np.int64]
    nexp: npt.NDArray[np.int16]
    invvar: F32
    psfsize: F32
    psfdepth: F32
    galdepth: F32

    def full(self, name: str) -> npt.NDArray[np.generic]:
        """The map ``name`` on every pixel."""
        small = getattr(self, name)
        wide: npt.NDArray[np.generic] = np.repeat(small, np.diff(self.xs), axis=1)
        return np.repeat(wide, np.diff(self.ys), axis=0)

    def at(self, name: str, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The map at zero-based pixel positions (outside: the nearest pixel)."""
        i = np.clip(np.searchsorted(self.xs, np.round(np.asarray(x, float)), side="right") - 1, 0, len(self.xs) - 2)
        j = np.clip(np.searchsorted(self.ys, np.round(np.asarray(y, float)), side="right") - 1, 0, len(self.ys) - 2)
        return np.asarray(getattr(self, name)[j, i], float)

    @property
    def typical_sigma(self) -> float:
        """Median scatter of the white sky noise, nanomaggy a pixel."""
        seen = self.invvar[self.invvar > 0]
        return float(1 / np.sqrt(np.median(seen))) if seen.size else 1.0


def ebv(settings: Settings, seed: int, ra: npt.ArrayLike, dec: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A smooth E(B-V) map (mag) of the mock sky: log-normal about the median from a few plane waves. Assumption."""
    waves, phases = _dust_waves(seed)
    a, d = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    v = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
    total = np.cos(v @ waves.T + phases).sum(axis=-1)
    return np.asarray(settings.ebv_median * np.exp(0.45 * total / np.sqrt(12)))


@lru_cache(maxsize=8)
def _dust_waves(seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rng = generator("mock ebv", seed)
    return rng.normal(0, 12, (24, 3)), rng.uniform(0, 2 * np.pi, 24)


def conditions(size: MockSize, plan: BrickPlan, seed: int) -> dict[str, BandConditions]:
    """The conditions of a brick in each band it was observed in, from its identity alone."""
    s = size.settings
    brick = generator("mock seeing", seed, plan.cell.brickid)
    median, scatter = s.seeing_r
    seeing = {"r": float(np.clip(median * np.exp(scatter * brick.normal()), 0.85, 1.85))}
    for band in ("g", "z"):
        ratio, spread = s.seeing_ratio[band]
        seeing[band] = float(np.clip(seeing["r"] * ratio * np.exp(spread * brick.normal()), 0.75, 2.3))
    strip = int(size.brick_pixels * brick.uniform(0.12, 0.3)) if plan.edge else 0
    return {b: _band(size, plan, seed, b, seeing[b], strip) for b in BANDS if b in plan.bands}


def _band(size: MockSize, plan: BrickPlan, seed: int, band: str, seeing: float, strip: int) -> BandConditions:
    s, n = size.settings, size.brick_pixels
    rng = generator("mock exposures", seed, plan.cell.brickid, band)
    regime = s.regimes[plan.regime]
    beta = float(np.round(rng.uniform(*s.moffat_beta), 1))
    count = int(rng.integers(regime.exposures[band][0], regime.exposures[band][1] + 1))  # type: ignore[index]
    pitch = np.array(CCD) + np.array(CCD_GAP)
    exposures = []
    for _ in range(count):
        offset = rng.uniform(0, pitch)
        field_edge = float(rng.uniform(0, n)) if rng.random() < 0.08 else None
        exposures.append(
            {
                "x": _edges(n, offset[0], CCD[0], CCD_GAP[0]),
                "y": _edges(n, offset[1], CCD[1], CCD_GAP[1]),
                "edge": (int(rng.integers(4)), field_edge),
                "fwhm": seeing * np.exp(0.07 * rng.normal()),
                "depth": regime.single_depth[band] + 0.12 * rng.normal(),  # type: ignore[index]
                "ccd": int(rng.integers(1 << 40)),
            }
        )
    xs, ys = _cuts(n, exposures, strip)
    xm, ym = (xs[:-1] + xs[1:]) / 2, (ys[:-1] + ys[1:]) / 2
    nexp, weight = np.zeros((ym.size, xm.size), np.int16), np.zeros((ym.size, xm.size))
    size_sum, point, galaxy = np.zeros_like(weight), np.zeros_like(weight), np.zeros_like(weight)
    for e in exposures:
        column, row = _ccd_of(xm, e["x"]), _ccd_of(ym, e["y"])
        covered = (row[:, None] >= 0) & (column[None, :] >= 0)
        side, at = e["edge"]
        if at is not None:
            beyond = ((xm < at), (xm > at), (ym < at), (ym > at))[side]
            covered &= ~(beyond[None, :] if side < 2 else beyond[:, None])
        if strip:
            covered &= (xm >= strip)[None, :]
        # each CCD sees a little differently: 2 % in width
        wiggle = generator("ccd", e["ccd"]).normal(0, 0.02, (64, 64))[row[:, None], column[None, :]]
        fwhm = e["fwhm"] * (1 + wiggle)
        norm = point_norm2(beta, fwhm)
        depth = (5 / 10 ** (0.4 * (ZERO_POINT - e["depth"] - 2.5 * np.log10(seeing / fwhm)))) ** 2
        iv = np.where(covered, depth / norm, 0.0)
        nexp += covered
        weight += iv
        size_sum += iv * fwhm
        point += iv * norm
        galaxy += iv * exponential_norm2(beta, fwhm)
    with np.errstate(invalid="ignore", divide="ignore"):
        psfsize = np.where(weight > 0, size_sum / weight, 0.0)
    e1, e2 = s.psf_ellipticity * rng.normal(size=2)
    sky = 10 ** (0.4 * (ZERO_POINT - s.sky_brightness[band])) * PIXEL_SCALE**2  # type: ignore[index]
    f4 = np.float32
    return BandConditions(
        band, beta, (float(e1), float(e2)), sky, xs, ys, nexp,
        weight.astype(f4), psfsize.astype(f4), point.astype(f4), galaxy.astype(f4),
    )  # fmt: skip


def _edges(n: int, offset: float, width: int, gap: int) -> list[tuple[int, int]]:
    """Pixel ranges of the CCDs of an exposure along one axis."""
    start = -int(offset)
    found = []
    while start < n:
        found.append((start, start + width))
        start += width + gap
    return found


def _ccd_of(middle: npt.NDArray[np.float64], ccds: list[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Index of the CCD at each rectangle's middle, -1 in a gap."""
    index = np.full(middle.size, -1, np.int64)
    for i, (lo, hi) in enumerate(ccds):
        index[(middle >= lo) & (middle < hi)] = i
    return index


def _cuts(n: int, exposures: list[dict], strip: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:  # type: ignore[type-arg]
    x, y = {0, n, strip}, {0, n}
    for e in exposures:
        x.update(int(v) for pair in e["x"] for v in pair)
        y.update(int(v) for pair in e["y"] for v in pair)
        side, at = e["edge"]
        if at is not None:
            (x if side < 2 else y).add(round(at))
    clip = [np.array(sorted(v for v in values if 0 <= v <= n)) for values in (x, y)]
    return clip[0], clip[1]
