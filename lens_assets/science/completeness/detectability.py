"""The detectability gate: could anyone see an arc in these pixels? No learning, deliberately simple.

The statistic is the energy of what an azimuthal model leaves in the arc annulus, counted only where at least two bands
agree, over a stationary background. Its threshold is set by random galaxies at a stated false-alarm rate; the share of
confirmed lenses that pass says how good a gate it is. It makes the first factor of
``recall = P(observable) x P(found | observable)`` and must never be tuned on what a detector finds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.intervals import wilson
from lens_assets.science.realism.azimuth import coherent_map, residuals
from lens_assets.science.realism.disc import disc

F64 = npt.NDArray[np.float64]
CODE = ("completeness/detectability.py", "realism/azimuth.py", "realism/disc.py")
"""What makes the statistic, for the digests of code of everything that depends on it."""


class GateSettings(BaseModel):
    """The gate's numbers; a threshold holds only for the settings it was calibrated with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bands: int = Field(2, ge=1, le=3, description="bands that must agree")
    pixel_sigma: float = Field(2.0, ge=0, description="a pixel counts where its second band is above this significance")
    model_error: float = Field(0.10, ge=0, description="error of the azimuthal model, as a fraction of the model")
    pixel_cap: float = Field(25.0, gt=0, description="largest significance of one pixel: a star must not decide alone")


@dataclass(frozen=True)
class GateStatistic:
    """Per stamp: ``total`` (n,) and ``per_band`` (n, 3; g, r, z); nan where the background cannot be measured."""

    total: F64
    per_band: F64


def gate_statistic(images: npt.ArrayLike, invvar: npt.ArrayLike, settings: GateSettings | None = None) -> GateStatistic:
    """The statistic of stamps (n, 3, h, w) in nanomaggies per pixel with their inverse variance.

    With t the significance of the box-averaged residual in the second most significant band
    (``azimuth.coherent_map``), the total is ``sqrt(sum t^2)`` over the annulus pixels with t above ``pixel_sigma``; a
    band's own value takes its own significance over the same pixels. It is in units of sigma of a box average: 0
    where nothing coherent is seen.
    """
    s = settings or GateSettings()
    im, iv = np.asarray(images, np.float32), np.asarray(invvar, np.float32)
    if im.ndim != 4 or im.shape[1] != 3 or im.shape != iv.shape:
        raise BadInput(f"images {im.shape} and invvar {iv.shape} must both be (n, 3, h, w)")
    h, w = im.shape[-2:]
    annulus = np.flatnonzero(disc(h, w).annulus)
    total, bands = np.empty(len(im)), np.empty((len(im), 3))
    for i in range(0, len(im), 512):
        r = residuals(im[i : i + 512], iv[i : i + 512])
        together, single = coherent_map(r, h, w, model_error=s.model_error, bands=s.bands)
        t = np.clip(np.take(together, annulus, axis=1), 0, s.pixel_cap)
        counts = t > s.pixel_sigma
        each = np.clip(np.take(single, annulus, axis=2), 0, s.pixel_cap)
        measured = (np.isfinite(r.sigma_smooth) & (r.sigma_smooth > 0)).sum(axis=1) >= s.bands
        total[i : i + 512] = np.where(measured, np.sqrt((np.where(counts, t, 0) ** 2).sum(axis=1)), np.nan)
        bands[i : i + 512] = np.sqrt((np.where(counts[:, None], each, 0) ** 2).sum(axis=2))
    bands[~np.isfinite(total)] = np.nan
    return GateStatistic(total, bands)


@dataclass(frozen=True)
class GateSpec:
    """A calibrated gate. ``*_lo68`` and so on are Wilson intervals (``interval``)."""

    threshold: float
    target_false_alarm: float
    false_alarm: float
    false_alarm_lo68: float
    false_alarm_hi68: float
    false_alarm_lo95: float
    false_alarm_hi95: float
    false_alarm_on: str
    n_randoms: int
    k_randoms: int
    lens_fraction: float
    lens_lo68: float
    lens_hi68: float
    lens_lo95: float
    lens_hi95: float
    n_lenses: int
    k_lenses: int
    not_measured: int
    interval: str
    settings: dict[str, Any]
    settings_digest: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; nan as None."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GateSpec:
        """The inverse of :meth:`to_json`."""
        filled: dict[str, Any] = {k: float("nan") if v is None else v for k, v in value.items()}
        return cls(**filled)


def calibrate_gate(
    stat_lenses: npt.ArrayLike,
    stat_randoms: npt.ArrayLike,
    false_alarm_rate: float,
    *,
    stat_randoms_held_out: npt.ArrayLike | None = None,
    min_expected: int = 100,
    settings: GateSettings | None = None,
) -> GateSpec:
    """Set the threshold at ``false_alarm_rate`` on random galaxies and say what it does to confirmed lenses.

    Parameters
    ----------
    stat_lenses, stat_randoms : statistics (n,) of confirmed lenses and of random galaxies *as they come* (not cleaned).
    stat_randoms_held_out : further random galaxies, to measure the achieved rate on; without them it is measured on the
        sample that set it and says so (``false_alarm_on``).
    min_expected : false alarms the sample must be expected to hold (a rate f needs 100/f randoms); fewer is refused.

    The threshold is the smallest observed statistic that at most ``floor(f n)`` randoms exceed, so the achieved rate
    never exceeds the target on the calibrating sample. Values that are nan are left out and counted in
    ``not_measured``. Raises :class:`BadInput` where the sample is too small or a rate is not in (0, 1).
    """
    if not 0 < false_alarm_rate < 1:
        raise BadInput(f"a false-alarm rate lies in (0, 1), not {false_alarm_rate}")
    raw = [np.asarray(a, float).ravel() for a in (stat_lenses, stat_randoms)]
    lenses, randoms = (a[~np.isnan(a)] for a in raw)
    need = int(np.ceil(min_expected / false_alarm_rate - 1e-9))
    if len(randoms) < max(need, 1):
        raise BadInput(
            f"a false-alarm rate of {false_alarm_rate} needs {need} random galaxies"
            f" ({min_expected} expected false alarms); there are {len(randoms)}"
        )
    if not len(lenses):
        raise BadInput("no confirmed lens has a measured statistic: the gate cannot be judged")
    allowed = int(np.floor(false_alarm_rate * len(randoms) + 1e-9))
    threshold = float(np.sort(randoms)[::-1][allowed])
    held = stat_randoms_held_out is not None
    judged = np.asarray(stat_randoms_held_out, float).ravel() if held else randoms
    judged = judged[~np.isnan(judged)]
    k_r, k_l = int((judged > threshold).sum()), int((lenses > threshold).sum())
    r68, r95 = wilson(k_r, len(judged), 0.68), wilson(k_r, len(judged), 0.95)
    l68, l95 = wilson(k_l, len(lenses), 0.68), wilson(k_l, len(lenses), 0.95)
    s = (settings or GateSettings()).model_dump()
    return GateSpec(
        threshold=threshold,
        target_false_alarm=float(false_alarm_rate),
        false_alarm=k_r / len(judged) if len(judged) else float("nan"),
        false_alarm_lo68=float(r68.lo),
        false_alarm_hi68=float(r68.hi),
        false_alarm_lo95=float(r95.lo),
        false_alarm_hi95=float(r95.hi),
        false_alarm_on="held-out random galaxies" if held else "the random galaxies that set the threshold",
        n_randoms=len(judged),
        k_randoms=k_r,
        lens_fraction=k_l / len(lenses),
        lens_lo68=float(l68.lo),
        lens_hi68=float(l68.hi),
        lens_lo95=float(l95.lo),
        lens_hi95=float(l95.hi),
        n_lenses=len(lenses),
        k_lenses=k_l,
        not_measured=sum(len(a) for a in raw) - len(lenses) - len(randoms),
        interval=r68.name,
        settings=s,
        settings_digest=digest(s)[:16],
    )


def observable(stat: npt.ArrayLike, spec: GateSpec, settings: GateSettings | None = None) -> npt.NDArray[np.bool_]:
    """Whether each statistic passes the gate; nan does not. ``settings`` other than the calibrated ones are refused."""
    if settings is not None and digest(settings.model_dump())[:16] != spec.settings_digest:
        raise BadInput("this gate was calibrated with other settings; calibrate it again")
    return np.asarray(stat, float) > spec.threshold
