"""Hosts that look like the galaxies that lens, told by their cores: thinning by magnitude, colour and concentration.

A ridge logistic regression of lens galaxies (fitting half) against hosts gives the ratio of their densities; a host is
kept with a probability proportional to it, up to a cap, by a stable hash of its id. Only light within 1.1 arcsec counts,
and the z band where brightness is meant: the catalogue's TYPE, total magnitude and colour of a lens hold its arcs (on
the practice sky they make the median lens galaxy 0.5 mag bluer than it is), and hosts matched to those would be late
types. The core's g - r holds them too, for seeing carries blue arcs into a core that is dark in g: on the practice sky
lenses' is 0.37 mag (1.1") and 0.24 mag (0.55") bluer than the deflectors are, r - z within 0.55" 0.01 mag (medians, n 236).
So g - r is not matched: it follows from r - z along the red sequence. It and TYPE are reported beside the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lens_assets.science.calibration.settings import Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import mix64, seed_of, uniform
from lens_assets.science.injections.hosts import MATCHED_SERSIC, host_key
from lens_assets.science.surveys.layout import ZERO_POINT

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
CORE, INNER = 4.2, 2.1
"""Radii of the apertures, pixels (1.1 and 0.55 arcsec): within most Einstein radii."""
MATCHED = ("core_z", "core_rz", "core_concentration")
PROPERTIES = (*MATCHED, "core_gr")


@dataclass(frozen=True)
class HostMatch:
    """``keep`` (n,) of the hosts, in their order, and per property the means and standardised differences."""

    keep: npt.NDArray[np.bool_]
    balance: dict[str, Any]


def core_properties(images: F32) -> F64:
    """``PROPERTIES`` of the cores of stamps (n, 3, h, w): (n, 4), mag, nan where dark.

    z magnitude within ``CORE``, r - z within ``INNER``, concentration (z magnitude of the inner less that of the core), and
    g - r within ``INNER``, which holds arcs.
    """
    h, w = images.shape[-2:]
    y, x = np.mgrid[:h, :w]
    r = np.hypot(y - (h - 1) / 2, x - (w - 1) / 2)
    core, inner = (images[..., r <= edge].sum(axis=-1, dtype=np.float64) for edge in (CORE, INNER))
    with np.errstate(invalid="ignore", divide="ignore"):
        mag = ZERO_POINT - 2.5 * np.log10(np.where(core[:, 2] > 0, core[:, 2], np.nan))
        g, r_, z = (ZERO_POINT - 2.5 * np.log10(np.where(f > 0, f, np.nan)) for f in inner.T)
    return np.stack([mag, r_ - z, z - mag, g - r_], axis=1)


def early_types(hosts: pl.DataFrame, sample: pl.DataFrame) -> pl.DataFrame:
    """The ``hosts`` that are early types by the catalogue (DEV, or SER of high index), which holds no arc of theirs.

    Massive early types do nearly all lensing (Turner, Ostriker & Gott 1984, doi:10.1086/162379); spirals and mergers
    have structure that an azimuthal model leaves over, in their own red light, and a fit would make sources bluer to
    make up for it.
    """
    rows = hosts.select("galaxy_id").join(sample, on="galaxy_id", how="left", maintain_order="left")
    return hosts.filter(pl.Series(_early(rows) > 0))


@threadpool_limits.wrap(limits=1)
def like_lenses(
    hosts: pl.DataFrame, host_cores: F64, lenses: pl.DataFrame, lens_cores: F64, settings: Settings
) -> HostMatch:
    """Which ``hosts`` to keep so that they resemble ``lenses``; tables with ``galaxy_id``, ``type``, ``sersic`` and
    their :func:`core_properties`."""
    if hosts.height != len(host_cores) or lenses.height != len(lens_cores):
        raise BadInput(
            f"{hosts.height} hosts and {lenses.height} lenses with {len(host_cores)} and {len(lens_cores)} cores"
        )
    used = [PROPERTIES.index(name) for name in MATCHED]
    middle = np.nanmedian(lens_cores, axis=0)
    a, b = (np.where(np.isfinite(v), v, middle) for v in (lens_cores, host_cores))
    x = np.concatenate([_expand(a[:, used]), _expand(b[:, used])])
    y = np.concatenate([np.ones(len(a)), np.zeros(len(b))])
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced").fit(scaler.transform(x), y)
    ratio = np.exp(np.clip(model.decision_function(scaler.transform(_expand(b[:, used]))), -30, 30))
    least = min(len(b), max(settings.min_hosts, round(settings.host_share * len(b))))
    drawn = uniform(mix64(host_key(hosts["galaxy_id"]), seed_of("calibrated hosts", settings.seed)))
    keep = np.asarray(drawn < np.minimum(1.0, ratio / _cap(ratio, least)))
    if keep.sum() < min(settings.min_hosts, len(b)):  # few hosts: those most alike, whatever the draw
        keep = np.zeros(len(b), bool)
        keep[np.argsort(-ratio, kind="stable")[: min(settings.min_hosts, len(b))]] = True
    a, b = np.column_stack([a, _early(lenses)]), np.column_stack([b, _early(hosts)])
    spread = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 2) + 1e-9
    balance = {
        name: {
            "lenses": float(a[:, i].mean()),
            "hosts": float(b[:, i].mean()),
            "kept": float(b[keep, i].mean()),
            "difference_before": float((b[:, i].mean() - a[:, i].mean()) / spread[i]),
            "difference_after": float((b[keep, i].mean() - a[:, i].mean()) / spread[i]),
        }
        for i, name in enumerate((*PROPERTIES, "early_type"))
    }
    return HostMatch(keep, {"hosts": len(b), "kept": int(keep.sum()), "lenses": len(a), "properties": balance})


def _cap(ratio: F64, least: int) -> float:
    """The largest cap under which at least ``least`` hosts are expected to stay."""
    lo, hi = float(ratio.min()) * 0.5, float(ratio.max())
    if np.minimum(1.0, ratio / hi).sum() >= least:
        return hi
    for _ in range(60):
        mid = float(np.sqrt(lo * hi))
        lo, hi = (mid, hi) if np.minimum(1.0, ratio / mid).sum() >= least else (lo, mid)
    return lo


def _early(frame: pl.DataFrame) -> F64:
    early = (pl.col("type") == "DEV") | ((pl.col("type") == "SER") & (pl.col("sersic") > MATCHED_SERSIC))
    return frame.select(early.fill_null(False).cast(pl.Float64)).to_series().to_numpy()


def _expand(x: F64) -> F64:
    return np.concatenate([x, x**2], axis=1)
