"""Columns of the released tables that no earlier room has."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.calibration import CALIBRATION_DRAWS
from lens_assets.science.columns.completeness import (
    CELL_DEPTH,
    CELL_PSF,
    HOSTS,
    I_DEPTH,
    I_PSF,
    MARGINALS,
    MEMBERS,
    OPTIONAL,
    PHYSICS,
    SURFACE,
    TWO_FACTOR,
    N,
)
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import CELL

_S7 = "science contract, section 7"

SURFACE_NAME = Column(
    "surface", pl.String(), "", "detector and variant the surface is for", _S7, ucd="meta.id;meta.main"
)
SURVEY_N = Column("survey_objects", pl.Int64(), "", "objects of the survey under these conditions", "sweeps", lo=0,
                  nullable=True, ucd="meta.number")  # fmt: skip
SURVEY_SHARE = Column("survey_share", pl.Float64(), "", "their share of the survey, objects outside the grid included",
                      "sweeps", lo=0, hi=1, nullable=True, ucd="stat.weight")  # fmt: skip
SKY_PSF = Column("sky_psf", pl.Float64(), "arcsec", "median r-band PSF FWHM of the cell's objects", "sweeps", lo=0,
                 ucd="instr.obsty.seeing;stat.median")  # fmt: skip
SKY_DEPTH = Column("sky_depth", pl.Float64(), "mag", "median r-band 5-sigma depth (AB) of the cell's objects",
                   "sweeps", ucd="phot.mag;em.opt.R;stat.median")  # fmt: skip
SKY_N = Column("sky_objects", pl.Int64(), "", "objects in the cell with both values", "sweeps", lo=1, ucd="meta.number")
PSF_SCATTER = Column("sky_psf_spread", pl.Float64(), "arcsec", "half of the 16 to 84 % range of PSF FWHM in the cell",
                     "sweeps", lo=0, ucd="instr.obsty.seeing;stat.stdev")  # fmt: skip
DEPTH_SCATTER = Column("sky_depth_spread", pl.Float64(), "mag", "half of the 16 to 84 % range of depth in the cell",
                       "sweeps", lo=0, ucd="phot.mag;em.opt.R;stat.stdev")  # fmt: skip

COLUMNS: tuple[Column, ...] = (
    SURFACE_NAME, SURVEY_N, SURVEY_SHARE, SKY_PSF, SKY_DEPTH, SKY_N, PSF_SCATTER, DEPTH_SCATTER,
)  # fmt: skip


def _released(table: Table, name: str) -> Table:
    return Table(
        f"release_{name}", f"{table.row}, of one surface", (SURFACE_NAME, *table.columns), ("surface", *table.key)
    )


RELEASE_SURFACE = _released(SURFACE, "surface")
RELEASE_TWO_FACTOR = _released(TWO_FACTOR, "two_factor")
RELEASE_MARGINALS = _released(MARGINALS, "marginals")
RELEASE_OPTIONAL = _released(OPTIONAL, "optional_axes")
RELEASE_PHYSICS = _released(PHYSICS, "physics")
RELEASE_INJECTIONS = _released(MEMBERS, "injections")
RELEASE_PRIOR_DRAWS = _released(CALIBRATION_DRAWS, "prior_draws")
OCCUPANCY = Table(
    "release_occupancy", "one PSF x depth condition of the grid: what the survey and the injections hold there",
    (I_PSF, I_DEPTH, CELL_PSF, CELL_DEPTH, SURVEY_N, SURVEY_SHARE, N, HOSTS), ("i_psf", "i_depth"),
)  # fmt: skip
SKY = Table(
    "release_sky", "one HEALPix cell with objects: its median conditions, for look-ups by position",
    (CELL, SKY_PSF, SKY_DEPTH, PSF_SCATTER, DEPTH_SCATTER, SKY_N), ("cell",),
)  # fmt: skip

TABLES: tuple[Table, ...] = (
    RELEASE_SURFACE, RELEASE_TWO_FACTOR, RELEASE_MARGINALS, RELEASE_OPTIONAL, RELEASE_PHYSICS,
    RELEASE_INJECTIONS, RELEASE_PRIOR_DRAWS, OCCUPANCY, SKY,
)  # fmt: skip
