"""Columns of the negative pools, their attrition, the stratified sample and its strata."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import BRICKID, DEC, FLUX, OBJID, RA, REF_CAT, RELEASE, SWEEPS_COLUMNS, TYPE

_S2 = "science contract, section 2"

SELECTION = Column("selection", pl.String, "", "name of the selection profile the object passed", "settings")
POOL = Column("pool", pl.String, "", "N1 (no confuser flag) or N2 (at least one)", _S2)
N2_CATEGORY = Column(
    "n2_category", pl.String, "", "first confuser proxy in the stated priority; null in N1", _S2, nullable=True
)
N2_FLAGS = Column("n2_flags", pl.List(pl.String), "", "all confuser proxies of the object, by priority", _S2)

STAGE = Column("stage", pl.String, "", "what the row counts: filter, stratum (TYPE|nobs_z) or pool", "derived")
STEP = Column("step", pl.String, "", "filter, stratum, or pool and category", "derived")
ORDER = Column("order", pl.Int32, "", "order of the rows", "derived", lo=0)
N_IN = Column("n_in", pl.Int64, "", "objects before", "count", lo=0, ucd="meta.number")
REMOVED = Column("removed", pl.Int64, "", "objects removed by this step in its turn", "count", lo=0)
N_LEFT = Column("n_left", pl.Int64, "", "objects after", "count", lo=0)
REMOVED_ALONE = Column(
    "removed_alone", pl.Int64, "", "objects the filter would remove were it the only one", "count", lo=0, nullable=True
)

STRATUM_TYPE = Column("stratum_type", pl.String, "", "TYPE of the stratum the object counts for", _S2)
STRATUM_NOBS = Column("stratum_nobs", pl.String, "", "nobs_z bin of the stratum: 1-2, 3-5, 6-10, 11+", _S2)
DRAWN_FROM = Column("drawn_from", pl.String, "", "TYPE|nobs_z bin the object belongs to; differs in a fill", _S2)
RANK_HASH = Column("rank_hash", pl.UInt64, "", "stable hash of (galaxy, seed); the smallest are drawn", "hashing")
DEPLOYMENT_WEIGHT = Column(
    "deployment_weight",
    pl.Float64,
    "",
    "objects of the pools the row stands for: available / taken of its own stratum and pool",
    "inverse sampling probability",
    lo=1,
)

_COUNTS = (
    Column("n_positive", pl.Int64, "", "training lenses in the stratum", "count", lo=0),
    Column("target", pl.Int64, "", "negatives wanted", _S2, lo=0),
    Column("available", pl.Int64, "", "eligible objects", "count", lo=0),
    Column("available_n1", pl.Int64, "", "eligible objects in N1", "count", lo=0),
    Column("available_n2", pl.Int64, "", "eligible objects in N2", "count", lo=0),
    Column("drawn", pl.Int64, "", "drawn from the stratum for itself", "count", lo=0),
    Column("filled", pl.Int64, "", "drawn from neighbouring bins for it", "count", lo=0),
    Column("given", pl.Int64, "", "drawn from it for neighbouring bins", "count", lo=0),
    Column("shortfall", pl.Int64, "", "target - drawn - filled", "count", lo=0),
    Column("taken_n1", pl.Int64, "", "N1 objects drawn from it, for itself or others", "count", lo=0),
    Column("taken_n2", pl.Int64, "", "N2 objects drawn from it, for itself or others", "count", lo=0),
)

SWEEP_BORDER = Table(
    "sweep_border",
    "one object near the edge of a tile that may matter to objects of the tiles beside it",
    (RELEASE, BRICKID, OBJID, TYPE, RA, DEC, FLUX[1], REF_CAT),
    ("release", "brickid", "objid"),
)
NEGATIVE_POOL = Table(
    "negative_pool",
    "one eligible non-lens of a tile",
    (*SWEEPS_COLUMNS, SELECTION, N2_FLAGS, N2_CATEGORY, POOL),
    ("galaxy_id",),
)
ATTRITION = Table(
    "attrition",
    "one filter, stratum or pool",
    (STAGE, STEP, ORDER, N_IN, REMOVED, N_LEFT, REMOVED_ALONE),
    ("order",),
)
NEGATIVE_SAMPLE = Table(
    "negative_sample",
    "one negative of the stratified sample",
    (*NEGATIVE_POOL.columns, STRATUM_TYPE, STRATUM_NOBS, DRAWN_FROM, RANK_HASH, DEPLOYMENT_WEIGHT),
    ("galaxy_id",),
)
STRATA = Table("strata", "one stratum of TYPE and nobs_z", (TYPE, STRATUM_NOBS, *_COUNTS), ("type", "stratum_nobs"))

COLUMNS = (
    SELECTION, POOL, N2_CATEGORY, N2_FLAGS, STAGE, STEP, ORDER, N_IN, REMOVED, N_LEFT, REMOVED_ALONE, STRATUM_TYPE,
    STRATUM_NOBS, DRAWN_FROM, RANK_HASH, DEPLOYMENT_WEIGHT, *_COUNTS,
)  # fmt: skip
TABLES = (SWEEP_BORDER, NEGATIVE_POOL, ATTRITION, NEGATIVE_SAMPLE, STRATA)
