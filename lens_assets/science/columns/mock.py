"""Truth tables of the mock release. Only closure tests and the truth audit may open them.

Columns that the truth shares with the survey keep the survey's definition; all others start with ``true_``, so that
no one takes the true Einstein radius for a catalogue's.
"""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import BANDS, BRICKID, DEC, RA, TILE

_S, _F, _I, _B = pl.String, pl.Float64, pl.Int64, pl.Boolean


def _c(
    name: str, dtype: type[pl.DataType], unit: str, meaning: str, lo: float | None = None, hi: float | None = None,
    *, nullable: bool = False,
) -> Column:  # fmt: skip
    return Column(f"true_{name}", dtype, unit, meaning, "mock release truth", lo, hi, nullable)


GALAXY = _c("galaxy_id", _S, "", "galaxy_id in the sweep; null when too faint to be catalogued", nullable=True)
OBJECT = _c("object", _S, "", "identity of an object: brick and number by kind")
CLASS = _c("class", _S, "", "what it is: star, faint, lens, or a class of galaxy (early, spiral, ring, ...)")
MAG = tuple(_c(f"mag_{b}", _F, "mag", f"true total {b} magnitude, extinguished", nullable=True) for b in BANDS)
LIGHT = (
    _c("z", _F, "", "redshift", 0, 5),
    _c("re", _F, "arcsec", "half-light radius, major axis", 0),
    _c("q", _F, "", "axis ratio of the light", 0, 1),
    _c("n", _F, "", "Sersic index of one fitted profile", 0, 8),
)
LENS = _c("lens", _S, "", "identity of a lens: brick and number")
SYSTEM = (
    _c("kind", _S, "", "galaxy or quasar: the source"),
    _c("theta_e", _F, "arcsec", "Einstein radius of the deflector", 0, 5),
    _c("z_lens", _F, "", "redshift of the deflector", 0, 2),
    _c("z_source", _F, "", "redshift of the source", 0, 6),
    _c("sigma_v", _F, "km/s", "velocity dispersion of the isothermal equivalent", 0),
    _c("mass_slope", _F, "", "slope of the three-dimensional density", 1, 3),
    _c("mass_q", _F, "", "axis ratio of the mass", 0, 1),
    _c("mass_pa", _F, "deg", "angle of the mass from the image's x to y", 0, 180),
    _c("shear", _F, "", "external shear", 0, 1),
    _c("a4_a", _F, "", "fourth multipole of the mass"),
    _c("perturbed", _B, "", "whether a second galaxy perturbs it"),
    _c("beta", _F, "arcsec", "offset of the source", 0),
    _c("source_re", _F, "arcsec", "half-light radius of the source's disc", 0),
    _c("source_mag_r", _F, "mag", "unlensed r magnitude of the source, not extinguished"),
    _c("source_gr", _F, "mag", "g - r of the source"),
    _c("source_rz", _F, "mag", "r - z of the source"),
    _c("source_dusty", _B, "", "whether the source is a red one"),
    _c("clumps", _I, "", "clumps of the source", 0),
    *(
        _c(f"lensed_mag_{b}", _F, "mag", f"total {b} magnitude of all images, extinguished", nullable=True)
        for b in BANDS
    ),
    *(
        _c(f"host_mag_{b}", _F, "mag", f"total {b} magnitude of the deflector, extinguished", nullable=True)
        for b in BANDS
    ),
    _c("magnification", _F, "", "total magnification, measured from the rendered image (r)", 0),
    _c("images", _I, "", "point images (quasars; 0 for galaxies)", 0),
    *(
        _c(f"arc_snr_{b}", _F, "", f"matched signal-to-noise of the noise-free arcs in {b}; 0 without the band", 0)
        for b in BANDS
    ),
    _c("visibility", _F, "dex", "log10 of how visible the arcs are to an eye; 0 is the threshold"),
    _c("observable", _B, "", "whether visibility is above 0"),
    _c("regime", _S, "", "kind of sky: standard, shallow or deep"),
)
COLUMNS = (GALAXY, OBJECT, CLASS, *MAG, *LIGHT, LENS, *SYSTEM)

MOCK_OBJECTS = Table(
    "mock_objects",
    "one object of the mock sky",
    (OBJECT, GALAXY, TILE, BRICKID, RA, DEC, CLASS, *MAG, *LIGHT),
    ("true_object",),
)
MOCK_LENSES = Table(
    "mock_lenses", "one true lens, visible or not", (LENS, GALAXY, TILE, BRICKID, RA, DEC, *SYSTEM), ("true_lens",)
)
TABLES = (MOCK_OBJECTS, MOCK_LENSES)
