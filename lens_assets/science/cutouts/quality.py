"""Quality control of stamps: which are rejected, and why.

A pixel is valid where its inverse variance is positive and finite and its value is finite; never ``image != 0``
(missing data are 0.0, but so may sky be) and never ``isfinite`` alone. The rules are those of the protocol plus one
that makes the rest of the platform safe: a stamp whose background annulus cannot normalise it is rejected here, not
met in training.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.cutouts.normalise import background
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.errors import BadInput

CORE = "invalid pixel in the core"
CENTRE = "too many invalid pixels in the centre"
BACKGROUND = "background annulus cannot normalise"


def valid_pixels(images: npt.NDArray[np.float32], invvar: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where pixels may be used: ``invvar`` positive and finite, image finite. Same shape as ``images``."""
    if images.shape != invvar.shape:
        raise BadInput(f"images have shape {images.shape}, inverse variances {invvar.shape}")
    with np.errstate(invalid="ignore"):
        return np.isfinite(images) & np.isfinite(invvar) & (invvar > 0)


def quality(images: npt.NDArray[np.float32], invvar: npt.NDArray[np.float32], settings: Settings) -> pl.DataFrame:
    """Judge stamps.

    Parameters
    ----------
    images, invvar : (n, bands, size, size), nanomaggies per pixel and their inverse square.

    Returns
    -------
    One row a stamp, in order: ``reason`` (the first rule it breaks, null when it passes), ``detail`` (every rule and
    band, joined by "; "; null when it passes) and, per band, ``invalid_fraction_*`` (of the whole stamp),
    ``central_invalid_*`` (of the central box) and ``nan_count_*`` (non-finite image pixels).
    """
    shape = (len(settings.bands), settings.size, settings.size)
    if images.shape[1:] != shape:
        raise BadInput(f"stamps have shape {images.shape}; (n, {', '.join(map(str, shape))}) is needed")
    invalid = ~valid_pixels(images, invvar)
    core_mask, box = _regions(settings.size, settings.core_radius, settings.central_box)
    whole = invalid.mean(axis=(2, 3))
    central = invalid[:, :, box, box].mean(axis=(2, 3))
    core = invalid[:, :, core_mask].any(axis=2)
    nans = (~np.isfinite(images)).sum(axis=(2, 3))
    mad = background(images, settings.normalisation, ~invalid)[1]
    flat = ~(np.isfinite(mad) & (mad > 0))

    crowded = central > settings.max_invalid_central
    rules: tuple[tuple[str, npt.NDArray[np.bool_]], ...] = (
        (CORE, np.asarray(core)),
        (CENTRE, np.asarray(crowded)),
        (BACKGROUND, flat),
    )
    reasons: list[str | None] = [None] * len(images)
    details: list[str | None] = [None] * len(images)
    for i in np.flatnonzero(np.any([broken.any(axis=1) for _, broken in rules], axis=0)):
        found = [
            (rule, f"{rule} ({', '.join(b for b, bad in zip(settings.bands, broken[i], strict=True) if bad)})")
            for rule, broken in rules
            if broken[i].any()
        ]
        reasons[i], details[i] = found[0][0], "; ".join(text for _, text in found)
    columns: dict[str, object] = {
        "reason": pl.Series(reasons, dtype=pl.String),
        "detail": pl.Series(details, dtype=pl.String),
    }
    for k, band in enumerate(settings.bands):
        columns[f"invalid_fraction_{band}"] = whole[:, k].astype(np.float32)
        columns[f"central_invalid_{band}"] = central[:, k].astype(np.float32)
        columns[f"nan_count_{band}"] = nans[:, k].astype(np.int32)
    return pl.DataFrame(columns)


@lru_cache(maxsize=16)
def _regions(size: int, core_radius: float, central_box: int) -> tuple[npt.NDArray[np.bool_], slice]:
    """The core (r < radius, from the centre pixel) and the central box (an even box has its extra pixel below)."""
    y, x = np.ogrid[:size, :size]
    core = np.hypot(x - size // 2, y - size // 2) < core_radius
    box = min(central_box, size)
    start = size // 2 - box // 2
    return core, slice(start, start + box)
