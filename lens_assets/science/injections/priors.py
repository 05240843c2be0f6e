"""Priors of lenses and sources: read from one YAML, the only place where the numbers are written.

A quantity is a distribution with a quantile function, so that the same uniform deviate gives paired draws under two
prior sets. Colours may be drawn jointly (``colour_correlation``). A surface records ``PriorSet.digest``.

What does not belong here: numbers, and the draws themselves (``batch``).
"""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import ndtr, ndtri

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest

F64 = npt.NDArray[np.float64]
FILE = "priors.yaml"
NAMES = ("published", "population", "calibrated")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Uniform(_Frozen):
    """Uniform between ``lo`` and ``hi``."""

    kind: Literal["uniform"]
    lo: float
    hi: float

    def ppf(self, u: F64) -> F64:
        """Quantiles at ``u``."""
        return np.asarray(self.lo + u * (self.hi - self.lo))


class Area(_Frozen):
    """Uniform over the area of an annulus: sqrt(U(lo^2, hi^2))."""

    kind: Literal["area"]
    lo: float = Field(ge=0)
    hi: float

    def ppf(self, u: F64) -> F64:
        """Quantiles at ``u``."""
        return np.asarray(np.sqrt(self.lo**2 + u * (self.hi**2 - self.lo**2)))


class Normal(_Frozen):
    """Normal, optionally truncated to [lo, hi] (by its quantiles: no pile-up at the edges)."""

    kind: Literal["normal"]
    mean: float
    sigma: float = Field(gt=0)
    lo: float = -np.inf
    hi: float = np.inf

    def ppf(self, u: F64) -> F64:
        """Quantiles at ``u``."""
        a, b = ndtr((self.lo - self.mean) / self.sigma), ndtr((self.hi - self.mean) / self.sigma)
        return np.asarray(self.mean + self.sigma * ndtri(np.clip(a + u * (b - a), 1e-15, 1 - 1e-15)))


class LogNormal(_Frozen):
    """Log-normal by its median and scatter in dex, optionally truncated."""

    kind: Literal["lognormal"]
    median: float = Field(gt=0)
    dex: float = Field(gt=0)
    lo: float = 1e-6
    hi: float = 1e6

    def ppf(self, u: F64) -> F64:
        """Quantiles at ``u``."""
        log = Normal(
            kind="normal", mean=np.log10(self.median), sigma=self.dex, lo=np.log10(self.lo), hi=np.log10(self.hi)
        )
        return np.asarray(10.0 ** log.ppf(u))


class Fixed(_Frozen):
    """One value."""

    kind: Literal["fixed"]
    value: float

    def ppf(self, u: F64) -> F64:
        """The value, whatever ``u``."""
        return np.full(np.shape(u), self.value)


class Rayleigh(_Frozen):
    """1 - Rayleigh(scale), kept in [lo, 1]: LensPop's axis ratios."""

    kind: Literal["one-minus-rayleigh"]
    scale: float = Field(gt=0)
    lo: float = 0.2

    def ppf(self, u: F64) -> F64:
        """Quantiles at ``u`` (decreasing in the Rayleigh deviate, truncated by its distribution)."""
        top = -np.expm1(-0.5 * ((1 - self.lo) / self.scale) ** 2)
        return np.asarray(1.0 - self.scale * np.sqrt(-2.0 * np.log1p(-(1.0 - u) * top)))


Distribution = Annotated[Uniform | Area | Normal | LogNormal | Fixed | Rayleigh, Field(discriminator="kind")]


class AroundHost(_Frozen):
    """Lens shape around the host's own light: q ~ N(q_host, sigma_q) kept in [lo, hi], angle ~ N(pa_host, sigma_phi
    deg)."""

    sigma_q: float = Field(gt=0)
    sigma_phi: float = Field(gt=0)
    lo: float = 0.3
    hi: float = 1.0


class Clumps(_Frozen):
    """Star-forming clumps: how many, their share of the light, their radii in units of Re; within Re of the centre."""

    number: tuple[int, int]
    fraction: Distribution
    radius: Distribution

    @model_validator(mode="after")
    def _ordered(self) -> Clumps:
        if not 0 < self.number[0] <= self.number[1]:
            raise ValueError("number of clumps must be positive and increasing")
        return self


class PriorSet(_Frozen):
    """One named set. Magnitudes are unlensed, observed-frame AB; radii in arcsec; beta in units of theta_E."""

    name: str
    reference: str
    r_mag: Distribution
    g_r: Distribution
    r_z: Distribution
    colour_correlation: float = Field(0.0, gt=-1, lt=1)
    re: Distribution
    sersic_n: Distribution
    source_q: Distribution
    beta: Distribution
    lens_q: Distribution | AroundHost
    shear: Distribution
    jitter: Distribution
    clumps: Clumps

    @property
    def digest(self) -> str:
        """Identity of the numbers (SHA-256)."""
        return digest(self.model_dump(mode="json"))


def load_priors() -> dict[str, PriorSet]:
    """All prior sets of the shipped YAML, by name; :class:`BadInput` where the file is not a set of priors."""
    text = (resources.files("lens_assets") / "config" / "injections" / FILE).read_text()
    raw = yaml.safe_load(text)
    unknown = set(raw) - set(NAMES)
    if unknown:
        raise BadInput(f"unknown prior sets {sorted(unknown)}; known: {NAMES}", file=FILE)
    sets = {}
    for name, body in raw.items():
        try:
            sets[name] = PriorSet(name=name, **body)
        except ValueError as fault:
            raise BadInput(f"prior set {name!r}: {fault}", file=FILE) from fault
    return sets


def prior_set(name: str) -> PriorSet:
    """One prior set. ``calibrated`` exists only once it has been fitted to held-out real lenses."""
    sets = load_priors()
    if name in sets:
        return sets[name]
    if name == "calibrated":
        raise BadInput(
            "the prior set 'calibrated' has not been fitted to held-out real lenses yet, and no placeholder is "
            f"allowed: fit it and write it to {FILE}, or use one of {sorted(sets)}",
            file=FILE,
        )
    raise BadInput(f"no prior set {name!r}; there are {sorted(sets)}", file=FILE)


def _describe(prior: BaseModel) -> str:
    match prior:
        case Uniform(lo=lo, hi=hi):
            return f"U({lo:g}, {hi:g})"
        case Area(lo=lo, hi=hi):
            return f"sqrt(U({lo:g}^2, {hi:g}^2))"
        case Normal(mean=mean, sigma=sigma, lo=lo, hi=hi):
            return f"N({mean:g}, {sigma:g})" + (f" in [{lo:g}, {hi:g}]" if np.isfinite([lo, hi]).any() else "")
        case LogNormal(median=median, dex=dex, lo=lo, hi=hi):
            return f"lognormal(median {median:g}, {dex:g} dex) in [{lo:g}, {hi:g}]"
        case Rayleigh(scale=scale, lo=lo):
            return f"1 - Rayleigh({scale:g}) in [{lo:g}, 1]"
        case Fixed(value=value):
            return f"{value:g}"
        case AroundHost(sigma_q=sq, sigma_phi=sp, lo=lo, hi=hi):
            return f"host + N(0, {sq:g}) in [{lo:g}, {hi:g}]; angle host + N(0, {sp:g} deg)"
        case Clumps(number=number, fraction=fraction, radius=radius):
            return f"{number[0]}-{number[1]} clumps, share {_describe(fraction)}, radius/Re {_describe(radius)}"
    raise TypeError(type(prior))


_ROWS = (
    ("r_mag", "source r (unlensed)", "AB mag"), ("g_r", "source g - r", "mag"), ("r_z", "source r - z", "mag"),
    ("re", "source half-light radius", "arcsec"), ("sersic_n", "source Sersic index", ""),
    ("source_q", "source axis ratio", ""),
    ("beta", "source offset / theta_E", ""), ("lens_q", "lens axis ratio", ""), ("shear", "shear, per component", ""),
    ("jitter", "centre jitter, per axis", "arcsec"), ("clumps", "clumps (clumpy family)", ""),
)  # fmt: skip


def paper_table() -> str:
    """The priors as a Markdown table, generated from the YAML that the code reads."""
    sets = list(load_priors().values())
    lines = ["| quantity | unit | " + " | ".join(s.name for s in sets) + " |", "|---" * (len(sets) + 2) + "|"]
    for name, label, unit in _ROWS:
        lines.append(f"| {label} | {unit} | " + " | ".join(_describe(getattr(s, name)) for s in sets) + " |")
    lines.append("| colour correlation | | " + " | ".join(f"{s.colour_correlation:g}" for s in sets) + " |")
    lines.append("| digest | | " + " | ".join(s.digest[:12] for s in sets) + " |")
    return "\n".join(lines) + "\n"
