"""Columns of the lens channels, the registry, its matches to the survey, and the positives."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import DEC, GALAXY_ID, RA, ROW, SWEEPS_COLUMNS, TILE

CHANNEL = Column("channel", pl.String, "", "key of the lens list", "mapping file", ucd="meta.id.part")
LENS_ID = Column("lens_id", pl.String, "", "identity of the row in its list", "the list", ucd="meta.id")
Z_LENS = Column(
    "z_lens", pl.Float64, "", "redshift of the deflector", "the list", lo=0, hi=20, nullable=True, ucd="src.redshift"
)
Z_SOURCE = Column(
    "z_source", pl.Float64, "", "redshift of the source", "the list", lo=0, hi=20, nullable=True, ucd="src.redshift"
)
THETA_E = Column(
    "theta_e", pl.Float64, "arcsec", "Einstein radius", "the list", lo=0, hi=120, nullable=True, ucd="phys.angSize"
)
GRADE = Column("grade", pl.String, "", "grade as published", "the list", nullable=True)
KIND = Column("kind", pl.String, "", "galaxy, group, cluster, quasar or supernova", "mapping file", ucd="src.class")
REFERENCE = Column("reference", pl.String, "", "where it was published", "the list or its mapping", ucd="meta.bib")
LABEL = Column(
    "label",
    pl.String,
    "",
    "visual_A/B/C, spec_lens_z, spec_source_z, spec_both_z, not_lens or candidate",
    "mapping file",
)
NOTES = Column(
    "notes",
    pl.List(pl.String),
    "",
    "odd cells of the row, FIELD: WHAT: TEXT (several values, limits, doubts)",
    "the list",
)

SYSTEM_ID = Column(
    "system_id", pl.String, "", "J2000 name from the earliest member's position", "derived", ucd="meta.id"
)
TIER = Column("tier", pl.String, "", "confirmed, A, B or none", "science contract, section 2")
WEIGHT = Column("weight", pl.Float64, "", "weight in the loss; 0 without a tier", "settings", lo=0, hi=1)
CHANNELS = Column("channels", pl.List(pl.String), "", "channels that found the system, sorted", "derived")
LENS_IDS = Column("lens_ids", pl.List(pl.String), "", "CHANNEL:LENS_ID of every member, sorted", "derived")
N_MEMBERS = Column("n_members", pl.Int32, "", "rows united into the system", "derived", lo=1, ucd="meta.number")
EXTENT = Column(
    "extent_arcsec", pl.Float64, "arcsec", "largest separation of a member from the system", "derived", lo=0
)
TRAINS = Column("trains", pl.Boolean, "", "known to a channel that trains", "mapping files")
INDEPENDENT = Column(
    "independent", pl.Boolean, "", "only in channels that share no ancestor with a training channel", "mapping files"
)
CONFLICT_Z = Column(
    "conflict_z",
    pl.Boolean,
    "",
    "members disagree on a redshift, or the deflector is not before the source",
    "settings",
)
CONFLICT_THETA_E = Column("conflict_theta_e", pl.Boolean, "", "members disagree on the Einstein radius", "settings")
CONFLICT_GRADE = Column("conflict_grade", pl.Boolean, "", "members have different visual grades", "derived")
CONFLICT_LABEL = Column("conflict_label", pl.Boolean, "", "a lens to one channel, not_lens to another", "derived")
CONFLICT_KIND = Column("conflict_kind", pl.Boolean, "", "members are of different kinds", "derived")
CONFLICTS = (CONFLICT_Z, CONFLICT_THETA_E, CONFLICT_GRADE, CONFLICT_LABEL, CONFLICT_KIND)

FIELD = Column("field", pl.String, "", "what the members disagree on, or `cell`, `twice`, `extent`", "derived")
VALUES = Column("values", pl.List(pl.String), "", "what they say, as text", "the lists")
TOLERANCE = Column("tolerance", pl.Float64, "", "from where on two values disagree", "settings", lo=0, nullable=True)
USED = Column("used", pl.String, "", "what the registry says, as text", "derived")

SEP = Column(
    "sep_arcsec",
    pl.Float64,
    "arcsec",
    "from the system to its survey object",
    "derived",
    lo=0,
    hi=5,
    ucd="pos.angDistance",
)
USE = Column("use", pl.String, "", "train or evaluation", "science contract, section 2")
REASON = Column("reason", pl.String, "", "why a system is not a positive", "derived")
NEAREST_ID = Column("nearest_id", pl.String, "", "galaxy_id of the nearest primary object", "derived", nullable=True)
NEAREST_TYPE = Column("nearest_type", pl.String, "", "its TYPE", "Legacy Surveys DR10", nullable=True)
NEAREST_SEP = Column(
    "nearest_arcsec", pl.Float64, "arcsec", "separation of the nearest primary object", "derived", lo=0, nullable=True,
    ucd="pos.angDistance",
)  # fmt: skip
TAKEN_BY = Column("taken_by", pl.String, "", "system that matched the object instead", "derived", nullable=True)

LENS_CHANNEL = Table(
    "lens_channel",
    "one row of a published list",
    (CHANNEL, LENS_ID, RA, DEC, Z_LENS, Z_SOURCE, THETA_E, GRADE, KIND, REFERENCE, LABEL, NOTES, ROW),
    ("channel", "lens_id"),
)
LENS_REGISTRY = Table(
    "lens_registry",
    "one lens system, united over all channels",
    (SYSTEM_ID, RA, DEC, Z_LENS, Z_SOURCE, THETA_E, KIND, LABEL, TIER, WEIGHT, CHANNELS, LENS_IDS, N_MEMBERS, EXTENT,
     TRAINS, INDEPENDENT, *CONFLICTS),
    ("system_id",),
)  # fmt: skip
LENS_CONFLICTS = Table(
    "lens_conflicts",
    "one field on which the members of a system disagree, or that is odd",
    (SYSTEM_ID, FIELD, VALUES, CHANNELS, LENS_IDS, TOLERANCE, USED),
    ("system_id", "field", "values"),
)
LENS_NEAREST = Table(
    "lens_nearest",
    "one system without a match in a tile, and the nearest primary object there",
    (SYSTEM_ID, TILE, NEAREST_ID, NEAREST_TYPE, NEAREST_SEP),
    ("system_id",),
)
_OF_SYSTEM = (
    SYSTEM_ID,
    GALAXY_ID,
    TILE,
    SEP,
    TIER,
    WEIGHT,
    LABEL,
    KIND,
    TRAINS,
    INDEPENDENT,
    Z_LENS,
    THETA_E,
    CHANNELS,
)
_OF_OBJECT = tuple(c for c in SWEEPS_COLUMNS if c not in (GALAXY_ID, TILE))
LENS_MATCHES = Table(
    "lens_matches",
    "one system and its nearest primary object of a tile",
    (*_OF_SYSTEM, *_OF_OBJECT),
    ("system_id", "galaxy_id"),
)
POSITIVES = Table("positives", "one matched lens system", (*_OF_SYSTEM, USE, *_OF_OBJECT), ("system_id",))
UNMATCHED = Table(
    "unmatched",
    "one system that is not a positive",
    (SYSTEM_ID, RA, DEC, REASON, NEAREST_ID, NEAREST_TYPE, NEAREST_SEP, TAKEN_BY),
    ("system_id",),
)

COLUMNS = (
    CHANNEL, LENS_ID, Z_LENS, Z_SOURCE, THETA_E, GRADE, KIND, REFERENCE, LABEL, NOTES, SYSTEM_ID, TIER, WEIGHT,
    CHANNELS, LENS_IDS, N_MEMBERS, EXTENT, TRAINS, INDEPENDENT, *CONFLICTS, FIELD, VALUES, TOLERANCE, USED, SEP, USE,
    REASON, NEAREST_ID, NEAREST_TYPE, NEAREST_SEP, TAKEN_BY,
)  # fmt: skip
TABLES = (LENS_CHANNEL, LENS_REGISTRY, LENS_CONFLICTS, LENS_MATCHES, LENS_NEAREST, POSITIVES, UNMATCHED)
