"""Distributions of one quantity, each with its quantile function.

A quantile function, so that the same uniform deviate gives paired draws under two prior sets.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtr, ndtri

F64 = npt.NDArray[np.float64]


class Frozen(BaseModel):
    """Frozen, without unknown fields; infinity is written as text in JSON, and read back."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Uniform(Frozen):
    """Uniform between ``lo`` and ``hi``."""

    kind: Literal["uniform"]
    lo: float
    hi: float

    def ppf(self, u: F64) -> F64:
        """Quantiles at ``u``."""
        return np.asarray(self.lo + u * (self.hi - self.lo))


class Area(Frozen):
    """Uniform over the area of an annulus: sqrt(U(lo^2, hi^2))."""

    kind: Literal["area"]
    lo: float = Field(ge=0)
    hi: float

    def ppf(self, u: F64) -> F64:
        """Quantiles at ``u``."""
        return np.asarray(np.sqrt(self.lo**2 + u * (self.hi**2 - self.lo**2)))


class Normal(Frozen):
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


class LogNormal(Frozen):
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


class Fixed(Frozen):
    """One value."""

    kind: Literal["fixed"]
    value: float

    def ppf(self, u: F64) -> F64:
        """The value, whatever ``u``."""
        return np.full(np.shape(u), self.value)


class Rayleigh(Frozen):
    """1 - Rayleigh(scale), kept in [lo, 1]: LensPop's axis ratios."""

    kind: Literal["one-minus-rayleigh"]
    scale: float = Field(gt=0)
    lo: float = 0.2

    def ppf(self, u: F64) -> F64:
        """Quantiles at ``u`` (decreasing in the Rayleigh deviate, truncated by its distribution)."""
        top = -np.expm1(-0.5 * ((1 - self.lo) / self.scale) ** 2)
        return np.asarray(1.0 - self.scale * np.sqrt(-2.0 * np.log1p(-(1.0 - u) * top)))


Distribution = Annotated[Uniform | Area | Normal | LogNormal | Fixed | Rayleigh, Field(discriminator="kind")]


def describe(prior: Distribution) -> str:
    """In the notation of a paper's table."""
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
    raise TypeError(type(prior))
