"""Columns of the audits that compare with a known truth."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.completeness import POINT, S7, WHERE_DEPTH, WHERE_PSF, WHERE_THETA, bounds, fraction
from lens_assets.science.columns.registry import Column, Table

LEVEL = Column(
    "closure_level", pl.String(), "", "all: all lenses; theta_e: all conditions of one theta_E; cell: one cell", S7
)
N_TRUE = Column("n_true_lenses", pl.Int64(), "", "true lenses in supported cells", "truth audit", lo=0)
K_TRUE = Column("n_true_found", pl.Int64(), "", "of these, found", "truth audit", lo=0)
N_OUT = Column(
    "n_true_unsupported", pl.Int64(), "", "true lenses outside the grid or in unsupported cells", "truth audit", lo=0
)
C_TRUE = fraction("true_completeness", "found / true lenses", "truth audit")
B_TRUE = bounds("true", "of true_completeness, Jeffreys", "Brown, Cai & DasGupta 2001")
C_PRED = fraction("predicted_completeness", "the surface at the true lenses' own cells", "truth audit")
B_PRED = bounds("predicted", "of predicted_completeness", "truth audit")
DIFFERENCE = Column(
    "difference", pl.Float64(), "", "true minus predicted completeness", "truth audit", lo=-1, hi=1, nullable=True
)
INSIDE68 = Column(
    "inside68", pl.Boolean(), "", "found count inside the 68 % predictive interval", "truth audit", nullable=True
)
INSIDE95 = Column(
    "inside95", pl.Boolean(), "", "found count inside the 95 % predictive interval", "truth audit", nullable=True
)
P_CLOSURE = Column(
    "p_closure",
    pl.Float64(),
    "",
    "two-sided mid-p of the found count under the surface",
    "truth audit",
    lo=0,
    hi=1,
    nullable=True,
)

COLUMNS: tuple[Column, ...] = (
    LEVEL, N_TRUE, K_TRUE, N_OUT, C_TRUE, *B_TRUE, C_PRED, *B_PRED, DIFFERENCE, INSIDE68, INSIDE95, P_CLOSURE,
)  # fmt: skip

CLOSURE = Table(
    "completeness_closure",
    "true against predicted completeness: of all true lenses, of one theta_E, or of one cell",
    (
        POINT, LEVEL, WHERE_THETA, WHERE_PSF, WHERE_DEPTH, N_TRUE, K_TRUE, N_OUT, C_TRUE, *B_TRUE, C_PRED, *B_PRED,
        DIFFERENCE, INSIDE68, INSIDE95, P_CLOSURE,
    ),
    ("operating_point", "closure_level", "at_theta_e", "at_psf", "at_depth"),
)  # fmt: skip

TABLES: tuple[Table, ...] = (CLOSURE,)
