"""The parameters that are fitted, the density of an injection's latent draws under them, and the prior set they make.

Everything else (Sersic index, axis ratios, shear, the number and size of clumps) stays as in the base set: the
observables hardly depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import expit, log_ndtr, ndtr

from lens_assets.science.injections.distributions import Area, LogNormal, Normal
from lens_assets.science.injections.priors import Clumps, PriorSet

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """One fitted number: allowed range, start where the base set has none, and the scale of the pull towards the start."""

    name: str
    unit: str
    lo: float
    hi: float
    scale: float
    meaning: str


PARAMETERS = (
    Parameter("r_mean", "AB mag", 20.0, 26.5, 1.5, "mean of the source's unlensed r"),
    Parameter("r_sigma", "mag", 0.25, 2.0, 0.5, "its scatter"),
    Parameter("gr_mean", "mag", -0.6, 1.6, 0.5, "mean of the source's g - r"),
    Parameter("gr_sigma", "mag", 0.08, 0.9, 0.2, "its scatter"),
    Parameter("rz_mean", "mag", -0.6, 1.6, 0.5, "mean of the source's r - z"),
    Parameter("rz_sigma", "mag", 0.08, 0.9, 0.2, "its scatter"),
    Parameter("rho", "1", -0.2, 0.9, 0.3, "correlation of the two colours"),
    Parameter("re_log", "dex(arcsec)", -1.2, 0.1, 0.2, "log10 of the median half-light radius"),
    Parameter("re_dex", "dex", 0.08, 0.6, 0.1, "its scatter"),
    Parameter("beta_hi", "theta_E", 0.25, 1.0, 0.3, "largest source offset, area-weighted from 0"),
    Parameter("clumpy", "1", 0.02, 0.98, 0.4, "share of clumpy sources, the others smooth"),
    Parameter("clump_mean", "1", 0.05, 0.8, 0.25, "mean share of a clumpy source's light in clumps"),
    Parameter("wings", "1", 2.5, 4.5, 1.5, "mean Moffat beta of the PSF's wings over the brackets"),
)
NAMES = tuple(p.name for p in PARAMETERS)
R_RANGE, COLOUR_RANGE, RE_RANGE, CLUMP_RANGE = (20.0, 27.5), (-1.2, 2.4), (0.03, 1.5), (0.05, 0.80)
"""Where proposals and fitted sets are cut off alike."""
CLUMP_SIGMA = 0.15
_EDGE = 0.02
"""Softness of the outer edge of the offsets in the fit, in theta_E; the set that is written has a sharp one."""

BROAD: Mapping[str, float] = {
    "r_mean": 23.4, "r_sigma": 1.5, "gr_mean": 0.3, "gr_sigma": 0.6, "rz_mean": 0.35, "rz_sigma": 0.6, "rho": 0.2,
    "re_log": np.log10(0.28), "re_dex": 0.38, "beta_hi": 1.0, "clumpy": 0.5, "clump_mean": 0.35, "wings": 3.5,
}  # fmt: skip
"""The first proposal: wide enough to hold every published set."""


def start_of(base: PriorSet) -> dict[str, float]:
    """Where the fit starts and what it is pulled to: the base set, by its moments where its families differ."""

    def moments(name: str) -> tuple[float, float]:
        v = getattr(base, name).ppf((np.arange(2000) + 0.5) / 2000)
        v = np.log10(v) if name == "re" else v
        return float(np.mean(v)), float(np.std(v))

    out = dict(BROAD)
    for name, (mean, sigma) in {"r_mag": ("r_mean", "r_sigma"), "g_r": ("gr_mean", "gr_sigma"),
                                "r_z": ("rz_mean", "rz_sigma"), "re": ("re_log", "re_dex")}.items():  # fmt: skip
        out[mean], out[sigma] = moments(name)
    fraction = base.clumps.fraction.ppf((np.arange(2000) + 0.5) / 2000)
    out |= {
        "rho": base.colour_correlation,
        "beta_hi": float(base.beta.ppf(np.array([1.0 - 1e-9]))[0]),
        "clump_mean": float(np.mean(fraction)),
        "clumpy": _clumpy_share(base),
    }
    return {p.name: float(np.clip(out[p.name], p.lo, p.hi)) for p in PARAMETERS}


def _clumpy_share(base: PriorSet) -> float:
    """Share of clumpy sources among smooth and clumpy ones; the first proposal's where the set has no mixture."""
    clumpy, smooth = (base.families.get(f, 0.0) for f in ("clumpy", "sersic"))
    return clumpy / (clumpy + smooth) if clumpy + smooth > 0 else BROAD["clumpy"]


def prior_of(values: Mapping[str, float], base: PriorSet, name: str, reference: str) -> PriorSet:
    """The prior set of fitted ``values``; what is not fitted comes from ``base``."""
    v = {k: float(f"{x:.6g}") for k, x in values.items()}
    clumps = Clumps(
        number=base.clumps.number,
        fraction=Normal(kind="normal", mean=v["clump_mean"], sigma=CLUMP_SIGMA, lo=CLUMP_RANGE[0], hi=CLUMP_RANGE[1]),
        radius=base.clumps.radius,
    )
    return base.model_copy(
        update={
            "name": name,
            "reference": reference,
            "r_mag": Normal(kind="normal", mean=v["r_mean"], sigma=v["r_sigma"], lo=R_RANGE[0], hi=R_RANGE[1]),
            "g_r": Normal(
                kind="normal", mean=v["gr_mean"], sigma=v["gr_sigma"], lo=COLOUR_RANGE[0], hi=COLOUR_RANGE[1]
            ),
            "r_z": Normal(
                kind="normal", mean=v["rz_mean"], sigma=v["rz_sigma"], lo=COLOUR_RANGE[0], hi=COLOUR_RANGE[1]
            ),
            "colour_correlation": v["rho"],
            "re": LogNormal(
                kind="lognormal",
                median=float(f"{10 ** v['re_log']:.6g}"),
                dex=v["re_dex"],
                lo=RE_RANGE[0],
                hi=RE_RANGE[1],
            ),
            "beta": Area(kind="area", lo=0.0, hi=v["beta_hi"]),
            "clumps": clumps,
            "families": {"sersic": round(1 - v["clumpy"], 12), "clumpy": v["clumpy"]},
        }
    )


LATENTS = ("r", "g_r", "r_z", "re_log", "beta", "clumpy", "clump_fraction", "wings")


def latents_of(rows: pl.DataFrame) -> dict[str, F64]:
    """The draws of injections (columns of ``injection_batch`` and ``psf_wings``) on which the density depends."""
    c = {n: rows[n].cast(pl.Float64).to_numpy() for n in ("source_mag_g", "source_mag_r", "source_mag_z", "source_re")}
    return {
        "r": c["source_mag_r"],
        "g_r": c["source_mag_g"] - c["source_mag_r"],
        "r_z": c["source_mag_r"] - c["source_mag_z"],
        "re_log": np.log10(c["source_re"]),
        "beta": rows["beta"].cast(pl.Float64).to_numpy(),
        "clumpy": (rows["family"] == "clumpy").to_numpy().astype(np.float64),
        "clump_fraction": rows["clump_fraction"].cast(pl.Float64).to_numpy(),
        "wings": rows["psf_wings"].cast(pl.Float64).to_numpy(),
    }


def log_density(values: Mapping[str, float], z: Mapping[str, F64], brackets: tuple[float, ...]) -> F64:
    """Log density (n,) of latent draws ``z`` under ``values``, up to a constant that is the same for all values."""
    v = values
    out = _normal(z["r"], v["r_mean"], v["r_sigma"], *R_RANGE)
    out += _normal(z["re_log"], v["re_log"], v["re_dex"], *np.log10(RE_RANGE))
    a, b, rho = (z["g_r"] - v["gr_mean"]) / v["gr_sigma"], (z["r_z"] - v["rz_mean"]) / v["rz_sigma"], v["rho"]
    out += -0.5 * (a * a - 2 * rho * a * b + b * b) / (1 - rho**2) - 0.5 * np.log(1 - rho**2)
    for mean, sigma in (("gr_mean", "gr_sigma"), ("rz_mean", "rz_sigma")):
        out -= np.log(v[sigma]) + _log_mass(v[mean], v[sigma], *COLOUR_RANGE)
    # area-weighted offsets: density 2 beta / hi^2 inside; beta itself cancels between any two sets
    out += np.log(expit((v["beta_hi"] - z["beta"]) / _EDGE) + 1e-12) - 2 * np.log(v["beta_hi"])
    clumps = _normal(z["clump_fraction"], v["clump_mean"], CLUMP_SIGMA, *CLUMP_RANGE)
    out += np.where(z["clumpy"] > 0, np.log(v["clumpy"]) + clumps, np.log1p(-v["clumpy"]))
    return out + _wings(v["wings"], z["wings"], brackets)


def _normal(x: F64, mean: float, sigma: float, lo: float, hi: float) -> F64:
    return np.asarray(-0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma) - _log_mass(mean, sigma, lo, hi))


def _log_mass(mean: float, sigma: float, lo: float, hi: float) -> float:
    a, b = (lo - mean) / sigma, (hi - mean) / sigma
    if a > 0:
        a, b = -b, -a
    return float(log_ndtr(b) + np.log1p(-np.minimum(ndtr(a) / ndtr(b), 1 - 1e-12)))


def _wings(mean: float, z: F64, brackets: tuple[float, ...]) -> F64:
    """Log share of each bracket ``z`` (n,) when the brackets are tilted exponentially to the wanted mean: the flattest
    shares that have it."""
    if len(brackets) < 2:
        return np.zeros(len(z))
    x = np.asarray(brackets) - np.mean(brackets)
    target = float(np.clip(mean - np.mean(brackets), x.min() * 0.999, x.max() * 0.999))
    tilt = 0.0
    for _ in range(50):  # Newton on the mean of an exponential family: concave, so it converges from zero
        p = np.exp(tilt * x - (tilt * x).max())
        p /= p.sum()
        miss = target - float(p @ x)
        step = miss / max(float(p @ x**2) - float(p @ x) ** 2, 1e-9)
        tilt += float(np.clip(step, -2.0, 2.0))
        if abs(miss) < 1e-12:
            break
    top = float((tilt * x).max())
    return np.asarray(tilt * (z - np.mean(brackets)) - top - np.log(np.exp(tilt * x - top).sum()))
