"""Truth of an injection, measured from its rendered arc: magnification, brightness, signal to noise, where the light
is.

What does not belong here: what a detector or a gate makes of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.injections import INJECTION_BATCH
from lens_assets.science.injections.batch import Chunk, StampSource, inject
from lens_assets.science.injections.planes import Galaxies
from lens_assets.science.injections.settings import Settings
from lens_assets.science.injections.variants import Variant
from lens_assets.science.surveys.layout import BANDS, ZERO_POINT

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

ARC_SNR = "matched filter: sqrt(sum arc^2 invvar) over the annulus, per band"
"""The estimator's name. Resampling correlates the noise of neighbouring pixels but keeps its power on the scale of an
arc, and that power is what the inverse variance states (it is summed before resampling); the scatter of single pixels
is 11-17 % lower and would flatter the arc. The weight is the host's: sky noise only."""


def annulus(size: int, radii: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Pixels with inner <= r < outer from the stamp's centre."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    r = np.hypot(x, y)
    return np.asarray((r >= radii[0]) & (r < radii[1]))


def arc_snr(arcs: F32, invvar: F32, radii: tuple[float, float]) -> F64:
    """SNR (n, 3) of arcs (n, 3, s, s) in the annulus, by the estimator ``ARC_SNR``. Pixels with invvar <= 0 do not
    count."""
    ring = annulus(arcs.shape[-1], radii)
    signal = arcs[..., ring].astype(np.float64)
    weight = np.clip(invvar[..., ring].astype(np.float64), 0.0, None)
    return np.asarray(np.sqrt(np.einsum("nbp,nbp,nbp->nb", signal, signal, weight)))


def truth_of(chunk: Chunk, settings: Settings) -> pl.DataFrame:
    """Truth columns of a rendered chunk, one row per injection."""
    arcs = chunk.arcs.images
    flux = arcs.sum(axis=(2, 3), dtype=np.float64)
    ring = annulus(arcs.shape[-1], settings.annulus)
    snr = arc_snr(arcs, chunk.host_invvar, settings.annulus)
    unlensed = chunk.arcs.unlensed_flux[:, 1]
    inside = arcs[:, 1][..., ring].sum(axis=1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "injection_id": chunk.ids,
            "magnification": np.where(unlensed > 0, flux[:, 1] / unlensed, 0.0),
            "arc_snr": snr[:, 1],
            "arc_snr_grz": np.sqrt((snr**2).sum(axis=1)),
            "arc_flux_fraction": np.where(flux[:, 1] > 0, inside / flux[:, 1], 0.0),
            **{
                f"lensed_mag_{b}": np.where(flux[:, k] > 0, ZERO_POINT - 2.5 * np.log10(flux[:, k]), np.nan)
                for k, b in enumerate(BANDS)
            },
            **{f"gain_{b}": chunk.gain[:, k] for k, b in enumerate(BANDS)},
        }
    nullable = [f"{stem}_{b}" for stem in ("lensed_mag", "gain") for b in BANDS]
    return pl.DataFrame(columns).with_columns(pl.col(c).fill_nan(None) for c in nullable)


def measure_truth(
    params: pl.DataFrame,
    stamps: StampSource,
    settings: Settings,
    variant: Variant | None = None,
    galaxies: Galaxies | None = None,
) -> pl.DataFrame:
    """The table ``injection_batch``: parameters and truth, one row per injection, sorted by ``injection_id``."""
    parts = [truth_of(chunk, settings) for chunk in inject(params, stamps, settings, variant, galaxies)]
    if not parts:
        return pl.DataFrame(schema={c.name: c.dtype for c in INJECTION_BATCH.columns})
    return INJECTION_BATCH.conform(params.join(pl.concat(parts), on="injection_id", how="left"))
