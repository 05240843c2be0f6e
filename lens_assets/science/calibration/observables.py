"""What is compared: the measured properties of the arc annulus, by the realism room's estimators, on both sides alike.

Brightness and colours are differences of asinh magnitudes, so that they exist for an arc that cannot be seen too.
Where no arc is coherent its shape does not exist: it takes the real lenses' median, and whether there is one is an
observable of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.completeness.detectability import gate_statistic
from lens_assets.science.errors import BadInput
from lens_assets.science.realism.measure import arc_measures, asinh_magnitude

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

NAMES = {
    "obs_mag_r": "excess in the arc annulus, r (asinh AB mag)",
    "obs_g_r": "its g - r (asinh mag)",
    "obs_r_z": "its r - z (asinh mag)",
    "obs_visibility": "log10 of the detectability statistic",
    "obs_surface_brightness": "mean surface brightness of coherent pixels (r mag/arcsec^2)",
    "obs_width": "radial width of coherent pixels (arcsec)",
    "obs_radius": "radius of coherent pixels (arcsec)",
    "obs_asymmetry": "length of their mean direction",
    "obs_area": "log10 of the number of coherent pixels",
    "obs_seen": "whether there are coherent pixels",
}
"""The observables and what each is; all from ``realism.measure`` and the detectability gate."""
FAINTEST = 0.0
"""log10 of the gate's statistic below which stamps do not differ: nothing coherent at all."""


def observe(images: F32, invvar: F32) -> pl.DataFrame:
    """The observables of stamps (n, 3, h, w), nmgy per pixel and 1/nmgy^2, one row a stamp; null where there is none."""
    m = arc_measures(images, invvar)
    statistic = np.nan_to_num(gate_statistic(images, invvar).total, nan=0.0)
    g, r, z = (asinh_magnitude(m[f"excess_flux_{b}"].cast(pl.Float64).fill_null(np.nan).to_numpy()) for b in "grz")
    pixels = m["arc_pixels"].to_numpy()
    return pl.DataFrame(
        {
            "obs_mag_r": pl.Series(r).fill_nan(None),
            "obs_g_r": pl.Series(g - r).fill_nan(None),
            "obs_r_z": pl.Series(r - z).fill_nan(None),
            "obs_visibility": np.log10(np.maximum(statistic, 10.0**FAINTEST)),
            "obs_surface_brightness": m["arc_sb_r"],
            "obs_width": m["arc_width"],
            "obs_radius": m["arc_radius"],
            "obs_asymmetry": m["arc_asymmetry"],
            "obs_area": pl.Series(np.where(pixels >= 5, np.log10(np.maximum(pixels, 1)), np.nan)).fill_nan(None),
            "obs_seen": (pixels >= 5).astype(np.float64),
        }
    )


@dataclass(frozen=True)
class Scale:
    """Centre and robust scale of every observable on the real lenses that are fitted; both sides are put on it."""

    centre: dict[str, float]
    width: dict[str, float]

    @classmethod
    def of(cls, real: pl.DataFrame) -> Scale:
        """From the fitting half; :class:`BadInput` where an observable was measured on none of them."""
        centre, width = {}, {}
        for name in NAMES:
            v = real[name].drop_nulls().to_numpy().astype(np.float64)
            if not len(v):
                raise BadInput("no real lens has this observable", column=name)
            centre[name] = float(np.median(v))
            width[name] = max(1.4826 * float(np.median(np.abs(v - np.median(v)))), 0.25 * float(v.std()), 1e-3)
        width["obs_seen"] = 0.5
        return cls(centre, width)

    def matrix(self, frame: pl.DataFrame) -> F64:
        """Observables (n, 10) in units of the scale, absent shapes at the centre, clipped to +-6."""
        columns = []
        for name in NAMES:
            v = frame[name].cast(pl.Float64).fill_null(self.centre[name]).to_numpy()
            columns.append(np.clip((v - self.centre[name]) / self.width[name], -6.0, 6.0))
        return np.stack(columns, axis=1)
