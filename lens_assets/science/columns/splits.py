"""Columns of the split table, positives and negatives in one, and of its balance."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from lens_assets.science.columns import lenses, negatives, surveys
from lens_assets.science.columns.registry import Column, Table

_S2 = "science contract, section 2"
_ANY = "of lens or non-lens"

LABEL = Column("label", pl.Int8, "", "1 for a lens, 0 for a non-lens", _S2, lo=0, hi=1, variant=_ANY)
TIER = replace(lenses.TIER, nullable=True, variant=_ANY)
SYSTEM_ID = replace(lenses.SYSTEM_ID, nullable=True, variant=_ANY)
POOL = replace(negatives.POOL, nullable=True, variant=_ANY)
DEPLOYMENT_WEIGHT = replace(negatives.DEPLOYMENT_WEIGHT, nullable=True, variant=_ANY)
SPLIT = Column("split", pl.String, "", "train, val, test, guard or evaluation", _S2)
ROLE = Column(
    "role", pl.String, "",
    "train; select, calibrate, threshold (val); host, report (test); guard; evaluation", _S2,
)  # fmt: skip

_BALANCE = (
    Column("quantity", pl.String, "", "column of the split table", "derived"),
    Column("n_null", pl.Int64, "", "objects without a value", "count", lo=0),
    Column("p16", pl.Float64, "", "16th percentile", "derived", nullable=True),
    Column("p50", pl.Float64, "", "median", "derived", nullable=True),
    Column("p84", pl.Float64, "", "84th percentile", "derived", nullable=True),
    Column("ks_train", pl.Float64, "", "KS distance from its class in train", "derived", lo=0, hi=1, nullable=True),
    Column(
        "ks_95", pl.Float64, "", "KS distance that independent objects exceed in 5 % of cases", "Smirnov 1948", lo=0,
        nullable=True,
    ),
    Column("ks_classes", pl.Float64, "", "KS distance between the classes", "derived", lo=0, hi=1, nullable=True),
)  # fmt: skip

_OF_OBJECT = (
    surveys.TYPE, *surveys.NOBS, *surveys.PSFSIZE, *surveys.DEPTH, *surveys.PSFDEPTH, *surveys.GALDEPTH, surveys.EBV,
    surveys.MASKBITS, *surveys.FLUX, *surveys.MAG, surveys.GR, surveys.RZ, surveys.SHAPE_R, surveys.SERSIC,
    surveys.ELLIPTICITY, surveys.SHAPE_E1, surveys.SHAPE_E2,
)  # fmt: skip
SPLITS = Table(
    "splits",
    "one lens or non-lens with the set and role it plays",
    (
        surveys.GALAXY_ID, surveys.TILE, surveys.BRICKNAME, surveys.BRICKID, surveys.RA, surveys.DEC, surveys.CELL,
        LABEL, lenses.WEIGHT, TIER, SYSTEM_ID, lenses.CHANNELS, lenses.USE, POOL, negatives.N2_CATEGORY,
        DEPLOYMENT_WEIGHT,
        *_OF_OBJECT, lenses.THETA_E, SPLIT, ROLE,
    ),
    ("galaxy_id",),
)  # fmt: skip
BALANCE = Table(
    "balance",
    "one quantity of one class in one split",
    (SPLIT, LABEL, _BALANCE[0], surveys.N, *_BALANCE[1:]),
    ("split", "label", "quantity"),
)

COLUMNS = (LABEL, TIER, SYSTEM_ID, POOL, DEPLOYMENT_WEIGHT, SPLIT, ROLE, *_BALANCE)
TABLES = (SPLITS, BALANCE)
