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
LABEL = Column("label", pl.String, "", "visual_A/B/C, spec_lens_z, spec_both_z, not_lens or candidate", "mapping file")

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
CONFLICT_Z = Column("conflict_z", pl.Boolean, "", "members disagree on the deflector's redshift", "settings")
CONFLICT_THETA_E = Column("conflict_theta_e", pl.Boolean, "", "members disagree on the Einstein radius", "settings")
CONFLICT_GRADE = Column("conflict_grade", pl.Boolean, "", "members have different visual grades", "derived")
CONFLICT_LABEL = Column("conflict_label", pl.Boolean, "", "a lens to one channel, not_lens to another", "derived")
CONFLICT_KIND = Column("conflict_kind", pl.Boolean, "", "members are of different kinds", "derived")
CONFLICTS = (CONFLICT_Z, CONFLICT_THETA_E, CONFLICT_GRADE, CONFLICT_LABEL, CONFLICT_KIND)

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

LENS_CHANNEL = Table(
    "lens_channel",
    "one row of a published list",
    (CHANNEL, LENS_ID, RA, DEC, Z_LENS, Z_SOURCE, THETA_E, GRADE, KIND, REFERENCE, LABEL, ROW),
    ("channel", "lens_id"),
)
LENS_REGISTRY = Table(
    "lens_registry",
    "one lens system, united over all channels",
    (SYSTEM_ID, RA, DEC, Z_LENS, Z_SOURCE, THETA_E, KIND, LABEL, TIER, WEIGHT, CHANNELS, LENS_IDS, N_MEMBERS, EXTENT,
     TRAINS, INDEPENDENT, *CONFLICTS),
    ("system_id",),
)  # fmt: skip
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
UNMATCHED = Table("unmatched", "one system that is not a positive", (SYSTEM_ID, RA, DEC, REASON), ("system_id",))

COLUMNS = (
    CHANNEL, LENS_ID, Z_LENS, Z_SOURCE, THETA_E, GRADE, KIND, REFERENCE, LABEL, SYSTEM_ID, TIER, WEIGHT, CHANNELS,
    LENS_IDS, N_MEMBERS, EXTENT, TRAINS, INDEPENDENT, *CONFLICTS, SEP, USE, REASON,
)  # fmt: skip
TABLES = (LENS_CHANNEL, LENS_REGISTRY, LENS_MATCHES, POSITIVES, UNMATCHED)
