r"""How much more, or less, often another prior set draws the very injections that one set drew: the ratio of their densities.

Exact for what the engine draws (``injections.draws``), not for what a fit assumes of it: magnitudes, radii and the light in
clumps are drawn by quantile functions of truncated distributions, so their densities are the truncated ones; the two colours
are truncated normals joined by a Gaussian copula, because each deviate goes through its own quantile function:

    ln c(z1, z2) = -ln(1 - rho^2) / 2 - (rho^2 (z1^2 + z2^2) - 2 rho z1 z2) / (2 (1 - rho^2)),   z = Phi^-1(F(colour));

a mixture's family is a discrete draw, whose density is its share. Quantities whose distribution is the same in both sets
count exactly nothing, so a set against itself gives exactly zero. What is fixed in both has no density and needs none.

**Offsets.** The one support that differs from set to set is that of the source offsets, uniform in area up to the largest
offset. Where the other set reaches further, no injection can speak for its outer part. That part of its mass, the *share
beyond*, is put on the outermost fifth of the area that has injections, and stated. Completeness falls with the offset (a
smaller magnification), so this is an upper bound of what lies beyond, and nothing was to be assumed but that it does not rise.

What does not belong here: which sets are compared (``prior_error``), and the densities a fit uses (``calibration.model``).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import log_ndtr, ndtr, ndtri

from lens_assets.science.errors import BadInput
from lens_assets.science.injections.distributions import Area, Distribution, Fixed, LogNormal, Normal, Rayleigh, Uniform
from lens_assets.science.injections.priors import FAMILIES, PriorSet

F64 = npt.NDArray[np.float64]
OUTERMOST = 0.2
"""Share of the area of the offsets that stands for what lies beyond the largest one."""
_ROUNDING = 1e-6
LATENTS = {
    "r_mag": "injection_source_mag_r",
    "g": "injection_source_mag_g",
    "z": "injection_source_mag_z",
    "re": "injection_source_re",
    "beta": "injection_beta",
    "fraction": "injection_clump_fraction",
}
"""Columns of a surface's members (``completeness_members``) that hold what an injection was drawn with."""
_NOT_DRAWN = {"name", "reference", "r_mag", "g_r", "r_z", "colour_correlation", "re", "beta", "families", "clumps"}


def latents_of(members: pl.DataFrame) -> dict[str, F64]:
    """What the members were drawn with: magnitude, colours (mag), radius (arcsec), offset (theta_E), clumps.

    Raises :class:`BadInput` naming the column that a member lacks.
    """
    for column in (*LATENTS.values(), "injection_family"):
        if members[column].null_count():
            raise BadInput("weights under other priors need what each injection was drawn with", column=column)
    c = {name: members[column].cast(pl.Float64).to_numpy() for name, column in LATENTS.items()}
    family = members["injection_family"]
    return {
        "r_mag": c["r_mag"], "g_r": c["g"] - c["r_mag"], "r_z": c["r_mag"] - c["z"], "re": c["re"], "beta": c["beta"],
        "fraction": c["fraction"],
        **{f"is_{name}": (family == name).to_numpy().astype(float) for name in FAMILIES},
    }  # fmt: skip


def log_ratio(
    x: Mapping[str, F64], wanted: PriorSet, drawn: PriorSet, *, mixture: bool, colours: str
) -> tuple[F64, float]:
    """Log density ratio (n,) wanted over drawn of injections ``x`` (:func:`latents_of`), and the share beyond.

    ``mixture``: whether the variant draws the family; ``colours``: how it draws colours (``Variant.colours``). Raises
    :class:`BadInput` where the sets differ in something that has no ratio.
    """
    _same_otherwise(wanted, drawn)
    out = np.zeros(len(x["beta"]))
    if colours != "table":
        for name in ("r_mag", "re"):
            out += _ratio(name, getattr(wanted, name), getattr(drawn, name), x[name])
    elif any(getattr(wanted, n) != getattr(drawn, n) for n in ("r_mag", "re")):
        raise BadInput(
            "magnitudes from a table do not follow these priors: there is nothing to reweight", column="r_mag"
        )
    if colours == "normal" and _colours_of(wanted) != _colours_of(drawn):
        for name in ("g_r", "r_z"):
            _ratio(name, getattr(wanted, name), getattr(drawn, name), x[name])  # refuses what has none
        seen = [_drawn_from(name, getattr(drawn, name), x[name]) for name in ("g_r", "r_z")]
        out += _colours(wanted, *seen) - _colours(drawn, *seen)
    clumpy = x["is_clumpy"] > 0
    out[clumpy] += _ratio("clumps", wanted.clumps.fraction, drawn.clumps.fraction, x["fraction"][clumpy])
    if mixture and wanted.families != drawn.families:
        for name in FAMILIES:
            new, old = wanted.families.get(name, 0.0), drawn.families.get(name, 0.0)
            if old == 0.0 and new > 0.0:
                raise BadInput(
                    f"no injection is of the family {name!r}, of which the other set has some", column="family"
                )
            if old > 0.0:
                with np.errstate(divide="ignore"):
                    out[x[f"is_{name}"] > 0] += np.log(new) - np.log(old)
    offsets, beyond = _offsets(wanted.beta, drawn.beta, x["beta"])
    return out + offsets, beyond


def log_density(prior: Distribution, x: F64) -> F64:
    """Log density of values ``x`` under ``prior``; -inf outside. Raises :class:`BadInput` for a fixed value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        match prior:
            case Uniform(lo=lo, hi=hi):
                inside = np.full(x.shape, -np.log(hi - lo))
            case Area(lo=lo, hi=hi):
                inside = np.log(2 * x / (hi**2 - lo**2))
            case Normal(mean=mean, sigma=sigma, lo=lo, hi=hi):
                mass = _log_mass((lo - mean) / sigma, (hi - mean) / sigma)
                inside = -0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma * np.sqrt(2 * np.pi)) - mass
            case LogNormal(median=median, dex=dex, lo=lo, hi=hi):
                log = Normal(kind="normal", mean=np.log10(median), sigma=dex, lo=np.log10(lo), hi=np.log10(hi))
                inside = log_density(log, np.log10(x)) - np.log(x * np.log(10))
            case Rayleigh(scale=scale, lo=lo):
                t, top = (1 - x) / scale, -np.expm1(-0.5 * ((1 - lo) / scale) ** 2)
                inside = np.log(t / scale) - 0.5 * t**2 - np.log(top)
            case Fixed():
                raise BadInput(f"a fixed value has no density: {prior}")
        lo, hi = _support(prior)
        return np.asarray(np.where((x >= lo) & (x <= hi), inside, -np.inf))


def _same_otherwise(wanted: PriorSet, drawn: PriorSet) -> None:
    for name in sorted(set(PriorSet.model_fields) - _NOT_DRAWN):
        if getattr(wanted, name) != getattr(drawn, name):
            raise BadInput("the two sets differ in something that weights do not account for", column=name)
    for name in ("number", "radius"):
        if getattr(wanted.clumps, name) != getattr(drawn.clumps, name):
            raise BadInput("the two sets differ in something that weights do not account for", column=f"clumps.{name}")


def _ratio(name: str, wanted: Distribution, drawn: Distribution, x: F64) -> F64:
    if wanted == drawn:
        return np.zeros(len(x))
    (lo, hi), (from_, to) = _support(wanted), _support(drawn)
    if lo < from_ or hi > to:
        raise BadInput(
            f"the other set reaches from {lo:g} to {hi:g}, the injections from {from_:g} to {to:g}", column=name
        )
    inside = _drawn_from(name, drawn, x)
    return log_density(wanted, inside) - log_density(drawn, inside)


def _drawn_from(name: str, drawn: Distribution, x: F64) -> F64:
    """Values that a set drew, kept in its range (they leave it by rounding, in the difference of two magnitudes)."""
    lo, hi = _support(drawn)
    worst = float(np.max(np.maximum(lo - x, x - hi), initial=0.0))
    if worst > _ROUNDING:
        raise BadInput(
            f"an injection lies {worst:g} outside the range {lo:g} to {hi:g} of the set that drew it", column=name
        )
    return np.clip(x, lo, hi)


def _support(prior: Distribution) -> tuple[float, float]:
    if isinstance(prior, Fixed):
        return prior.value, prior.value
    return prior.lo, 1.0 if isinstance(prior, Rayleigh) else prior.hi


def _log_mass(a: float, b: float) -> float:
    """ln(Phi(b) - Phi(a))."""
    if a > 0:
        a, b = -b, -a
    return float(log_ndtr(b) + np.log1p(-np.minimum(ndtr(a) / ndtr(b), 1 - 1e-15)))


def _colours_of(s: PriorSet) -> tuple[Distribution, Distribution, float]:
    return s.g_r, s.r_z, s.colour_correlation


def _colours(s: PriorSet, g_r: F64, r_z: F64) -> F64:
    """Log density of the two colours: their own densities, joined by a Gaussian copula."""
    rho = s.colour_correlation
    out = log_density(s.g_r, g_r) + log_density(s.r_z, r_z)
    if rho == 0.0:
        return out
    z1, z2 = (_deviate(d, v) for d, v in ((s.g_r, g_r), (s.r_z, r_z)))
    joined = (rho**2 * (z1**2 + z2**2) - 2 * rho * z1 * z2) / (2 * (1 - rho**2))
    return np.asarray(out - 0.5 * np.log1p(-(rho**2)) - joined)


def _deviate(prior: Distribution, x: F64) -> F64:
    """The normal deviate that the engine's quantile function turned into ``x``."""
    if not isinstance(prior, Normal):
        raise BadInput(f"correlated colours are normal, not {prior.kind}", column="colours")
    a, b = ndtr((prior.lo - prior.mean) / prior.sigma), ndtr((prior.hi - prior.mean) / prior.sigma)
    u = (ndtr((x - prior.mean) / prior.sigma) - a) / (b - a)
    return np.asarray(ndtri(np.clip(u, 1e-15, 1 - 1e-15)))


def _offsets(wanted: Distribution, drawn: Distribution, beta: F64) -> tuple[F64, float]:
    """Log ratio of the offsets, with what lies beyond on the outermost fifth of the area; and the share beyond."""
    beta = _drawn_from("beta", drawn, beta)
    if wanted == drawn:
        return np.zeros(len(beta)), 0.0
    if not isinstance(wanted, Area) or not isinstance(drawn, Area) or wanted.lo < drawn.lo:
        return _ratio("beta", wanted, drawn, beta), 0.0
    lo2, hi2, new2 = wanted.lo**2, drawn.hi**2, wanted.hi**2
    beyond = float(np.clip((new2 - max(hi2, lo2)) / (new2 - lo2), 0.0, 1.0))
    inside = (beta >= wanted.lo) & (beta <= wanted.hi)
    density = np.where(inside, (hi2 - drawn.lo**2) / (new2 - lo2), 0.0)
    outermost = beta**2 >= hi2 - OUTERMOST * (hi2 - drawn.lo**2)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(density + np.where(outermost, beyond / OUTERMOST, 0.0))), beyond
